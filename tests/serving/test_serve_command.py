"""The command from its start to its end, with the micro model."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import zygote
from paths import ASSETS, ROOT
from served import CHAT

pytest.importorskip("starlette", reason="the extra [serve] is not installed")


def _start(cache, port=0):
  """(process, port) of a server that is ready."""
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  command = [sys.executable, "-m", "locvlm_jax.serve", f"--port={port}"]
  process = subprocess.Popen(
    [*command, "--max_pictures=1", "--rows=2"],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  line = process.stdout.readline()
  found = re.search(r"http://127\.0\.0\.1:(\d+)/ is ready", line)
  assert found, line
  return process, int(found[1])


def _send(port):
  """A connection on which a question is sent."""
  message = {"role": "user", "content": "Which is larger, 20 or 50?"}
  body = {"model": "micro_reference", "messages": [message]}
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  kind = {"Content-Type": "application/json"}
  connection.request("POST", CHAT, json.dumps(body), kind)
  return connection


def _answer(connection):
  with contextlib.closing(connection):
    response = connection.getresponse()
    assert response.status == 200
    found = json.loads(response.read())
  return found["choices"][0]["message"]["content"]


def test_a_model_that_does_not_say_how_it_was_trained_wants_a_config(tmp_path):
  model = tmp_path / "model"
  shutil.copytree(ASSETS / "micro_reference", model)
  (model / "origin.json").unlink()
  served = f"--checkpoint={model}", "--port=0"
  assert "give --config" in zygote.run("serve", *served).stderr
  # What is refused next comes after the model has been read.
  given = "--config=configs/micro.py:stage2", "--max_prompt_tokens=9999"
  done = zygote.run("serve", *served, *given)
  assert "positions, the model has" in done.stderr


@pytest.mark.slow
def test_a_killed_server_starts_again_and_one_that_is_asked_to_end_ends(
  tmp_path,
):
  process, port = _start(tmp_path)
  wanted = _answer(_send(port))
  process.kill()
  process.wait()
  process.stdout.close()
  process, again = _start(tmp_path, port)
  assert again == port and _answer(_send(port)) == wanted
  under_way = _send(port)
  time.sleep(0.03)  # so that it is read
  process.send_signal(signal.SIGTERM)
  assert _answer(under_way) == wanted
  assert process.wait(60) == 0
  process.stdout.close()

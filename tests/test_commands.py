"""The command lines as a user meets them: help, and one line for a mistake."""

import json
import pathlib
import re
import time

import pytest
from zygote import run

COMMANDS = ("train", "evaluate", "generate", "reproduce", "report",
            "convert", "build_data", "pseudo_label", "overlap",
            "train_tokenizer", "plan", "profile", "microworld",
            "data.inspect")  # fmt: skip


@pytest.fixture(scope="module")
def world(microworld):
  return pathlib.Path(microworld(num_train=8, num_val=4))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_the_command(command):
  done = run(command, "--help")
  text = done.stdout + done.stderr
  assert f"python -m locvlm_jax.{command}" in text, text
  assert "Traceback" not in text


def test_help_of_train_answers_at_once():
  began = time.monotonic()
  run("train", "--help")
  assert time.monotonic() - began < 3


def _refused(world, tmp_path, *flags: str) -> tuple[int, str]:
  """Exit code and the one line on standard error."""
  done = run(
    "train",
    "--config=configs/micro.py:stage2,tiny",
    f"--workdir={tmp_path / 'run'}",
    f"--config.root={world}",
    *flags,
  )
  lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
  assert len(lines) == 1, done.stderr
  assert "Traceback" not in done.stderr
  return done.returncode, lines[0]


def test_misspelt_field(world, tmp_path):
  code, line = _refused(world, tmp_path, "--config.optim.learning_rate=1")
  assert code == 78 and "learning_rate" in line


def test_missing_images_directory(world, tmp_path):
  code, line = _refused(world, tmp_path, "--config.data.images=/nowhere")
  assert code == 70 and "/nowhere: no such images directory" in line


def test_batch_that_does_not_divide(world, tmp_path):
  code, line = _refused(
    world, tmp_path, "--config.batch_size=6", "--config.mesh.fsdp=4"
  )
  assert code == 78 and "batch_size=6" in line


@pytest.mark.parametrize(
  "change, message",
  [
    ({"category_id": 99}, "unknown category 99"),
    ({"bbox": [1, 2, -3, 4]}, "negative size"),
  ],
)
def test_bad_annotation(world, tmp_path, change, message):
  notes = world / "annotations" / "instances_train.json"
  content = json.loads(notes.read_text())
  content["annotations"][0].update(change)
  broken = tmp_path / "broken.json"
  broken.write_text(json.dumps(content))
  code, line = _refused(world, tmp_path, f"--config.data.instances={broken}")
  first = content["annotations"][0]["id"]
  assert code == 70 and f"annotation {first}: " in line and message in line


def test_malformed_json(world, tmp_path):
  broken = tmp_path / "broken.json"
  broken.write_text('{"images": [')
  code, line = _refused(world, tmp_path, f"--config.data.instances={broken}")
  assert code == 70 and re.search(r"broken.json: not valid json", line)


def test_missing_config_is_one_line(tmp_path):
  done = run("train", f"--workdir={tmp_path}")
  assert done.returncode == 78 and "--config is missing" in done.stderr

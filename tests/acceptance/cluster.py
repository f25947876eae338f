"""Runs processes of a test on this machine, and looks at what they leave."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests" / "acceptance" / "worker.py"
DEVICES = 4  # in all processes together, so that programs are the same


class Ended(NamedTuple):
  codes: list[int]
  logs: list[str]
  seconds: float

  @property
  def text(self) -> str:
    return "\n".join(
      f"---- process {i}: {code}\n{log}"
      for i, (code, log) in enumerate(zip(self.codes, self.logs, strict=True))
    )


def _port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


class Cluster:
  """`num` processes of one command.

  Args:
    folder: of this test; logs, ids and the workdir `run` are there.
    world: of `microworld.write`.
    flags: of the command, besides config and workdir.
  """

  def __init__(
    self,
    folder,
    world: str,
    num: int,
    *flags: str,
    command: str = "train",
    fault: dict | None = None,
    devices: int = DEVICES,
    absent: tuple[int, ...] = (),
    only: dict[int, tuple] | None = None,
    prefix=(),
    env: dict | None = None,
  ):
    self.folder, self.began = pathlib.Path(folder), time.monotonic()
    self.folder.mkdir(parents=True, exist_ok=True)
    self.processes, self._files, port = [], [], _port()
    for i in range(num):
      if i in absent:
        continue
      file = open(self.folder / f"log-{i}.txt", "w+b")  # noqa: SIM115
      line = [
        *prefix,
        sys.executable,
        str(WORKER),
        command,
        "--config=configs/micro.py:stage2,tiny",
        f"--workdir={self.folder / 'run'}",
        f"--config.root={world}",
        *FLAGS,
        *flags,
        *(only or {}).get(i, ()),
      ]
      self._files.append(file)
      self.processes.append(
        subprocess.Popen(
          line,
          cwd=ROOT,
          stdout=file,
          stderr=subprocess.STDOUT,
          env=self._env(i, num, devices // num, port, fault) | (env or {}),
          start_new_session=True,
        )
      )

  def _env(self, i, num, devices, port, fault) -> dict:
    return {
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
      "--xla_backend_optimization_level=0 "
      "--xla_llvm_disable_expensive_passes=true",
      "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
      "JAX_NUM_PROCESSES": str(num),
      "JAX_PROCESS_ID": str(i),
      "LOCVLM_FAULT": json.dumps(fault or {}),
      "LOCVLM_TEST_FOLDER": str(self.folder),
    }

  def log(self, i: int = 0) -> str:
    return (self.folder / f"log-{i}.txt").read_text(errors="replace")

  def wait_for(self, text: str, timeout: float = 120, i: int = 0) -> None:
    """Until the log of process `i` has `text`."""
    end = time.monotonic() + timeout
    while text not in self.log(i):
      assert time.monotonic() < end, self.log(i)
      assert self.processes[i].poll() is None, self.log(i)
      time.sleep(0.02)

  def wait(self, timeout: float = 150) -> Ended:
    """Until all have ended; those that have not are killed."""
    end, killed = time.monotonic() + timeout, False
    try:
      for p in self.processes:
        p.wait(max(end - time.monotonic(), 0.1))
    except subprocess.TimeoutExpired:
      killed = True
    finally:
      seconds = time.monotonic() - self.began
      self.kill()
    names = [pathlib.Path(f.name) for f in self._files]
    logs = [n.read_text(errors="replace") for n in names]
    ended = Ended([p.wait() for p in self.processes], logs, seconds)
    assert not killed, f"still running after {timeout} s\n{ended.text}"
    return ended

  def kill(self) -> None:
    for p in self.processes:
      if p.poll() is None:
        os.killpg(p.pid, signal.SIGKILL)
      p.wait()
    for file in self._files:
      file.close()


# Fewer programs to compile: rows of one length, Adam.
FLAGS = (
  "--config.optim.name=adamw", "--config.data.sort_window=0",
  "--config.data.text_length=64", "--config.data.max_pairs=1",
  "--config.steps=12", "--config.checkpoint_every=4",
  "--config.faults.start_seconds=45",
)  # fmt: skip


def run(*args, timeout: float = 150, **kwargs) -> Ended:
  return Cluster(*args, **kwargs).wait(timeout)


def info(folder, step: int) -> dict:
  """What a checkpoint says of itself."""
  path = pathlib.Path(folder) / "run/checkpoints" / str(step) / "info/metadata"
  return json.loads(path.read_text())


def steps(folder) -> list[int]:
  """Of the checkpoints that are finished."""
  saved = pathlib.Path(folder) / "run" / "checkpoints"
  found = saved.glob("*/commit_success.txt")
  return sorted(int(path.parent.name) for path in found)


def curve(folder) -> list[tuple]:
  """(step, loss, gradient's norm), as logged."""
  with open(pathlib.Path(folder) / "run" / "metrics.jsonl") as f:
    rows = [json.loads(line) for line in f]
  return [(r["step"], r["loss"], r["grad_norm"]) for r in rows]


def ids(folder, num: int) -> list[list[int]]:
  """Of each global batch that the last start of `num` processes read."""
  parts = []
  for i in range(num):
    with open(pathlib.Path(folder) / f"ids-{i}.jsonl") as f:
      rows = [json.loads(line) for line in f if line.endswith("\n")]
    last = max(n for n, row in enumerate(rows) if row == "begin")
    parts.append(rows[last + 1 :])
  return [sum(rows, []) for rows in zip(*parts, strict=False)]

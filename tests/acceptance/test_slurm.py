"""`launch/slurm_gpu.sh` under a real Slurm of two nodes on this machine.

Root and Debian's slurm-wlm and munge are needed; `slurm_setup.sh` does the
rest. Skipped where they are missing.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import cluster
import pytest

pytestmark = [
  pytest.mark.acceptance,
  pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("slurmctld"),
    reason="needs root and slurm-wlm: see slurm_setup.sh",
  ),
]
SETUP = pathlib.Path(__file__).with_name("slurm_setup.sh")
LAUNCH = cluster.ROOT / "launch" / "slurm_gpu.sh"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
  folder = tmp_path_factory.mktemp("slurm")
  subprocess.run(["bash", str(SETUP), "start", str(folder)], check=True)
  yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
  subprocess.run(["bash", str(SETUP), "stop", str(folder)], check=True)


def _run(line: list[str], env: dict) -> str:
  done = subprocess.run(line, env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def _state(job: str, env: dict) -> str:
  out = _run(["scontrol", "show", "job", job], env)
  return out.split("JobState=")[1].split()[0]


def _wait(done, what: str, seconds: float = 240) -> None:
  end = time.monotonic() + seconds
  while not done():
    assert time.monotonic() < end, what
    time.sleep(0.5)


def test_two_nodes_train_are_preempted_and_go_on(slurm, world, tmp_path):
  flags = " ".join(
    (
      f"--config.root={world}",
      *cluster.FLAGS,
      "--config.steps=400",
      "--config.log_every=1",
    )
  )
  env = slurm | {
    "CONFIG": f"{cluster.ROOT}/configs/micro.py:stage2,tiny",
    "WORKDIR": str(tmp_path / "run"),
    "FLAGS": flags,
    "NODES": "2",
    "GPUS": "0",
    "PYTHON": sys.executable,
    "PYTHONPATH": str(cluster.ROOT),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
    "--xla_backend_optimization_level=0",
  }
  job = _run(["bash", str(LAUNCH)], env).split()[-1]
  log = tmp_path / "run" / f"slurm-{job}.log"

  def text() -> str:
    return log.read_text(errors="replace") if log.exists() else ""

  _wait(lambda: "step 20/400" in text(), text() or "no log")
  assert "'fsdp': 4" in text()  # two processes with two devices each
  # As Slurm does when the limit is near.
  _run(["scancel", "--batch", "--signal=TERM", job], env)
  _wait(lambda: "queues again" in text(), text())
  assert "preempted: " in text()
  first = max(cluster.steps(tmp_path))
  # A job that queues again waits for two minutes, if it isn't released.
  _wait(lambda: _state(job, env) == "PENDING", "not queued again")
  _run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env)
  _wait(lambda: _state(job, env) == "COMPLETED", text())
  assert f"at step {first}" in text()
  assert max(cluster.steps(tmp_path)) == 400

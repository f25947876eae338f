"""A run's folder belongs to one process at a time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest
from paths import ROOT

from locvlm_jax.parallel import folder_lock

_HOLD = """
import fcntl, json, os, sys, time
f = open(sys.argv[1], "a+")
fcntl.flock(f, fcntl.LOCK_EX)
json.dump({"pid": os.getpid(), "host": "node7"}, f)
f.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
  """Another process that trains into the folder."""
  path = str(tmp_path / ".train.lock")
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLD, path], stdout=subprocess.PIPE, cwd=ROOT
  )
  assert process.stdout.readline() == b"held\n"
  yield process
  process.kill()
  process.communicate()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
  monkeypatch.setattr(folder_lock, "_PATIENCE", 0.2)


def test_a_folder_that_another_process_is_in_is_refused(other, tmp_path):
  with pytest.raises(ValueError, match=f"process {other.pid} on node7 is in"):
    with folder_lock.held(str(tmp_path), "train"):
      pass
  with folder_lock.held(str(tmp_path), "evaluate"):  # writes other files
    pass


def test_a_process_that_was_killed_keeps_no_folder(other, tmp_path):
  other.send_signal(signal.SIGKILL)
  other.wait()
  with folder_lock.held(str(tmp_path), "train"):
    assert f'"pid": {os.getpid()}' in (tmp_path / ".train.lock").read_text()


def test_a_lock_ends_with_its_block(tmp_path):
  for _ in range(2):
    with folder_lock.held(str(tmp_path), "train"):
      pass


def test_the_other_processes_of_a_run_share_the_lock_of_the_first(
  other, tmp_path, monkeypatch
):
  monkeypatch.setattr(folder_lock.hosts, "is_first", lambda: False)
  with folder_lock.held(str(tmp_path), "train"):
    pass


def test_storage_without_locks_is_told(tmp_path, monkeypatch, capsys):
  def unknown(*_):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

  monkeypatch.setattr(fcntl, "flock", unknown)
  with folder_lock.held(str(tmp_path), "train"):
    pass
  assert "locked (Function not implemented)" in capsys.readouterr().out


def test_two_tasks_of_srun_are_explained():
  slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
  assert "srun has started 2 tasks" in folder_lock.slurm_notice(slurm)
  known = slurm | {"JAX_NUM_PROCESSES": "2"}
  assert folder_lock.slurm_notice(known) == ""
  assert folder_lock.slurm_notice({"SLURM_STEP_NUM_TASKS": "1"}) == ""
  assert folder_lock.slurm_notice({}) == ""

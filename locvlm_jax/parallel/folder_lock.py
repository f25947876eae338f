"""Locks the folder that a run writes into, so that no second run does.

The lock is the operating system's (flock): it ends with the process that has
it, however that ends, so that a dead process never keeps a folder. The file
beside it only says whose it is. Of several processes of one run the first has
the lock for all. Where the storage knows no locks, a line says so.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import IO

from locvlm_jax.parallel import hosts

# A process that has just been killed may take so long to be gone.
_PATIENCE = 3.0  # seconds
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def held(folder: str, command: str) -> Iterator[None]:
  """Keeps every other process from running `command` into `folder`.

  Args:
    folder: where it writes; has to exist.
    command: such as "train"; different ones do not keep each other out.

  Raises:
    ValueError: another process has the lock; names it.
  """
  if not hosts.is_first():
    yield
    return
  with open(os.path.join(folder, f".{command}.lock"), "a+") as file:
    _lock(file, folder, command)
    file.truncate(0)
    json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
    file.flush()
    yield


def _lock(file: IO, folder: str, command: str) -> None:
  """Takes the lock; waits a little for one that is about to end."""
  end = time.monotonic() + _PATIENCE
  while True:
    try:
      return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      if e.errno in _UNKNOWN:
        print(f"{folder}: cannot be locked ({e.strerror}).", flush=True)
        return None
      if e.errno not in _BUSY:
        raise
    if time.monotonic() > end:
      raise ValueError(
        f"{folder}: {_owner(file)} is in it with {command}. Name another"
        f" folder, or end that process.{slurm_notice(os.environ)}"
      )
    time.sleep(0.1)


def _owner(file: IO) -> str:
  """Says which process has the lock."""
  file.seek(0)
  try:
    owner = json.loads(file.read())
    return f"process {owner['pid']} on {owner['host']}"
  except (ValueError, KeyError, TypeError):
    return "another process"


def slurm_notice(environment: Mapping[str, str]) -> str:
  """Explains why two tasks of srun are two runs; "" where that is not so."""
  tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
  if tasks in ("", "1") or environment.get("JAX_NUM_PROCESSES"):
    return ""
  return (
    f" srun has started {tasks} tasks (SLURM_STEP_NUM_TASKS), and"
    " JAX_NUM_PROCESSES is not set, so that each of them is a run of its own:"
    " use launch/slurm_gpu.sh, or set the variables of docs/scaling.md."
  )

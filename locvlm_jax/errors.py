"""Errors that end a command early, and the exit code of each.

0   done
1   a mistake of ours; the traceback is printed
70  a file that is missing or has to be repaired, or no checkpoint that can be
    restored
71  loss or gradient not finite, too often in a row
72  a process died, stalled or never started
73  processes disagree, or the run that is resumed is another one
74  a checkpoint could not be saved
75  preempted and saved: run the same command again
78  a wrong config, flag or variable of the environment
"""

import errno
import os
import traceback

OUR_MISTAKE = 1
BAD_DATA = 70
BAD_CONFIG = 78

# What the system raises of a path that is missing, is something else than what
# is wanted, or may not be touched.
_BAD_PATHS = (
  FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError,
  PermissionError,
)  # fmt: skip
# What it raises where a disk is full, a quota is used up, or nothing may be
# written; from the middle of a file without its name.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Fault(Exception):
  """Ends the command with one line and `code`."""

  code = OUR_MISTAKE


class DataError(Fault, ValueError):
  """A file that is missing or has to be repaired; names file and record."""

  code = BAD_DATA


class NoCheckpoint(Fault):
  """There were checkpoints, and none of them can be restored."""

  code = BAD_DATA


class NotFinite(Fault):
  """The loss, a gradient or a parameter is not a finite number."""

  code = 71


class Stalled(Fault):
  """A process is dead, late, stalled or starved."""

  code = 72


class Mismatch(Fault):
  """Processes of one run differ, or a run differs from what it resumes."""

  code = 73


class SaveFailed(Fault):
  """A checkpoint did not reach the disk, or will not fit on it."""

  code = 74


class Preempted(Fault):
  """The process was asked to end; all that was done is saved."""

  code = 75


class CommandFailed(Fault):
  """A command that this one has run failed; `code` is that command's."""

  def __init__(self, message: str, code: int):
    super().__init__(message)
    self.code = code


def code(error: BaseException) -> int:
  """Returns the exit code of an error.

  A fault has its own. A path that cannot be opened is bad data, any other
  ValueError a wrong config or flag, as is a kind of device that is not there.
  The rest are our own mistakes.
  """
  if isinstance(error, Fault):
    return error.code
  if is_bad_path(error):
    return BAD_DATA
  if isinstance(error, ValueError) or is_missing_device(error):
    return BAD_CONFIG
  return OUR_MISTAKE


def is_bad_path(error: BaseException) -> bool:
  """Returns whether the system refused to open or make a path that is named.

  Or to write, since the disk is full or may only be read.
  """
  if isinstance(error, _BAD_PATHS):
    return error.filename is not None
  return isinstance(error, OSError) and error.errno in _NOT_WRITABLE


def is_missing_device(error: BaseException) -> bool:
  """Returns whether JAX found no device of a kind that it was told to use.

  What it raises depends on the kind: of CUDA's, an assertion without a word.
  """
  frames = traceback.extract_tb(error.__traceback__)
  return bool(frames) and frames[-1].filename.endswith("/_src/xla_bridge.py")


def describe(error: BaseException) -> str:
  """Returns the message of an error: of a bad path, the path and the reason."""
  if is_bad_path(error):
    path = error.filename or "a file that is written"
    return f"{path}: {error.strerror}."
  if is_missing_device(error):
    platforms = os.environ.get("JAX_PLATFORMS", "")
    return (
      f"JAX_PLATFORMS={platforms!r}: no such device can be used here. Unset it"
      f" or name one that is there, such as cpu. {error}"
    ).strip()
  return str(error)

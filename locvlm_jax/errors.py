"""Errors that end a command early, and the exit code of each.

0   done
1   a mistake of ours; the traceback is printed
70  data that has to be repaired, or no checkpoint that can be restored
71  loss or gradient not finite, too often in a row
72  a process died, stalled or never started
73  processes disagree, or the run that is resumed is another one
74  a checkpoint could not be saved
75  preempted and saved: run the same command again
78  a config that cannot be meant
"""

BAD_DATA = 70
BAD_CONFIG = 78


class Fault(Exception):
  """Ends the command with one line and `code`."""

  code = 1


class DataError(Fault, ValueError):
  """Data on disk that the user has to repair; names the file and record."""

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


def code(error: BaseException) -> int:
  """Returns the exit code of an error.

  A fault has its own, a ValueError is a wrong config, all else is ours.
  """
  if isinstance(error, Fault):
    return error.code
  return BAD_CONFIG if isinstance(error, ValueError) else 1

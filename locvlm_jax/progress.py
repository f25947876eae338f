"""How far long work is: lines of progress, and the time that is left."""

import time
from collections.abc import Callable


def duration(seconds: float) -> str:
  """Writes a time as hours, minutes and seconds.

  >>> duration(93_784.2)
  '26:03:04'
  """
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours:02}:{minutes:02}:{seconds:02}"


def line(what: str, done: int, total: int, seconds: float) -> str:
  """Writes a line of progress: how far, how fast, how much longer.

  >>> line("train images", 150, 600, 3.0)
  'train images: 150/600, 50.0 a second, 00:00:09 left'

  Args:
    what: is counted.
    done: how many of them are done.
    total: how many there are.
    seconds: how long those that are done took.
  """
  rate = done / max(seconds, 1e-9)
  left = (total - done) / rate if done else 0.0
  return f"{what}: {done}/{total}, {rate:.1f} a second, {duration(left)} left"


class Progress:
  """Counts what is done, and logs a line every few seconds and at the end.

  Args:
    what: is counted, such as "train images".
    total: how many there are.
    log: is called with each line.
    every: seconds between two lines, at least.
  """

  def __init__(
    self, what: str, total: int, log: Callable[[str], None], every: float = 2.0
  ):
    self._what, self._total, self._log = what, total, log
    self._every, self._done = every, 0
    self._began = self._shown = time.monotonic()

  def add(self, number: int) -> None:
    """Counts `number` more as done."""
    self._done += number
    now = time.monotonic()
    if now - self._shown > self._every or self._done == self._total:
      self._shown = now
      self._log(line(self._what, self._done, self._total, now - self._began))

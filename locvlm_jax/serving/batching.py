"""Gathers answers that are asked for at about the same time into batches.

One thread asks the model. An answer waits at most `WAIT` seconds for others to
come with it, or for the batch before to end. Those of one kind and about one
length go together; who waits longest is in the next batch.
"""

import collections
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from locvlm_jax.serving.limits import Refused
from locvlm_jax.serving.rows import Part, Row

WAIT = 0.02


class Job:
  """One answer that is waited for.

  Args:
    row: what is asked.
    is_long: whether its prompt is padded to the longer length.
    size: what jobs of a batch are sorted by.
    tell: called from the batching thread with each part of the answer, and
      with the exception that ended it if one did.

  Attributes:
    is_left: set by whoever waits no more; no more is computed then.
  """

  def __init__(
    self,
    row: Row,
    is_long: bool,
    size: int,
    tell: Callable[[Part | Exception], None],
  ):
    self.row, self.is_long, self.size, self.tell = row, is_long, size, tell
    self.is_left = False

  @property
  def group(self) -> tuple[str, bool]:
    """Jobs of one group can be in one batch."""
    return self.row.kind, self.is_long


Write = Callable[
  [Sequence[Row], Callable[[], Sequence[bool]]], Iterator[list[Part]]
]


class Batcher:
  """A queue, and the thread that empties it.

  Args:
    write: answers a batch; see `writer.Writer.write`.
    rows: of a batch, at most.
    queue: jobs that may wait.
  """

  def __init__(self, write: Write, rows: int, queue: int):
    self._write, self._rows, self._most = write, rows, queue
    self._waiting: collections.deque[Job] = collections.deque()
    self._changed = threading.Condition()
    self._is_closed = False
    self.batches = self.answered = 0
    self._thread = threading.Thread(target=self._run, name="answers")
    self._thread.daemon = True  # kill -9 or not, nothing is lost by its end
    self._thread.start()

  def add(self, jobs: Sequence[Job]) -> None:
    """Puts jobs into the queue, all or none.

    Raises:
      Refused: it is full, or closed.
    """
    with self._changed:
      if self._is_closed:
        raise Refused(429, "shutting_down", "the server is shutting down")
      self._forget()
      if len(self._waiting) + len(jobs) > self._most:
        message = f"{len(self._waiting)} answers wait already; ask again later"
        raise Refused(429, "queue_full", message)
      self._waiting.extend(jobs)
      self._changed.notify()

  @property
  def waiting(self) -> int:
    """Jobs that wait."""
    return len(self._waiting)

  def close(self) -> None:
    """Takes no more jobs, and returns when those that wait are answered."""
    with self._changed:
      self._is_closed = True
      self._changed.notify()
    self._thread.join()

  def _run(self) -> None:
    while (jobs := self._next()) is not None:
      if jobs:
        self._answer(jobs)

  def _next(self) -> list[Job] | None:
    """Waits for a batch; None: there will be no more."""
    with self._changed:
      while not self._waiting:
        if self._is_closed:
          return None
        self._changed.wait()
        until = time.monotonic() + WAIT
        while len(self._waiting) < self._rows and not self._is_closed:
          if (left := until - time.monotonic()) <= 0:
            break
          self._changed.wait(left)
      self._forget()
      return self._take() if self._waiting else []

  def _forget(self) -> None:
    """Drops what nobody waits for."""
    kept = [job for job in self._waiting if not job.is_left]
    if len(kept) < len(self._waiting):
      self._waiting = collections.deque(kept)

  def _take(self) -> list[Job]:
    """Removes those from the queue that go with the first one.

    Those nearest in length to one another go first, the first one with them.
    """
    first = self._waiting[0]
    alike = [job for job in self._waiting if job.group == first.group]
    alike.sort(key=lambda job: job.size)
    place = min(alike.index(first), max(len(alike) - self._rows, 0))
    taken = alike[place : place + self._rows]
    self._waiting = collections.deque(
      job for job in self._waiting if job not in taken
    )
    return taken

  def _answer(self, jobs: list[Job]) -> None:
    self.batches += 1
    self.answered += len(jobs)
    told: list[Part | None] = [None] * len(jobs)
    try:
      rows = [job.row for job in jobs]
      for parts in self._write(rows, lambda: [job.is_left for job in jobs]):
        for i, (job, part) in enumerate(zip(jobs, parts, strict=True)):
          if told[i] != part:
            told[i] = part
            job.tell(part)
    except Exception as error:
      logging.exception("a batch failed")
      for job in jobs:
        job.tell(error)
      return
    for job, part in zip(jobs, told, strict=True):
      if part is None or not part.finish:
        job.tell(RuntimeError("the answer was not finished"))

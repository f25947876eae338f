"""When a process is stuck, and when it only reads for long."""

import time

import pytest

from configs import base
from locvlm_jax.config import freeze
from locvlm_jax.parallel import hosts


@pytest.fixture
def watch(monkeypatch):
  """A watch of 0.4 s, which notes why it would end the process."""
  monkeypatch.setattr(hosts, "_PERIOD", 0.1)
  limits = base.faults().to_dict() | {"stall_seconds": 0.4}
  ended = []
  monkeypatch.setattr(
    hosts.Watch, "_end", lambda _, fault, tell: ended.append(str(fault))
  )
  with hosts.Watch(freeze(limits)) as made:
    yield made, ended


def test_a_batch_may_take_long_as_long_as_rows_are_read(watch):
  made, ended = watch
  rows = []
  made.attend(lambda: len(rows))
  made.enter(3, "data")
  for i in range(12):
    rows.append(i)
    time.sleep(0.1)
  assert not ended
  time.sleep(0.8)  # and now none is
  assert ended and "step 3, phase data: for" in ended[0]


class _LateOnce:
  """An event that is never set; a wait for it once lasts much too long."""

  def __init__(self, seconds):
    self._late = seconds

  def wait(self, seconds):
    time.sleep(seconds + self._late)
    self._late = 0.0
    return False

  def set(self):
    self.wait = lambda seconds: True


def test_who_was_suspended_counts_anew(watch, monkeypatch):
  made, ended = watch
  monkeypatch.setattr(hosts, "_SUSPENDED", 0.5)
  made.enter(7, "step")
  made._over = _LateOnce(1.0)
  time.sleep(1.3)  # the wait that began before is over, and the late one
  assert not ended
  time.sleep(0.6)  # it goes on, and is stuck
  assert ended and "step 7, phase step: for" in ended[0]


def test_rows_that_are_read_ahead_excuse_no_step(watch):
  made, ended = watch
  rows = []
  made.attend(lambda: len(rows))
  made.enter(3, "step")
  for i in range(12):
    rows.append(i)
    time.sleep(0.1)
  assert ended and "phase step: for" in ended[0]


def test_an_error_without_a_message_is_told_by_its_name(watch):
  made, ended = watch
  made.enter(5, "data")
  made._end_with(StopIteration())
  assert ended and ended[-1].endswith("step 5, phase data: StopIteration")

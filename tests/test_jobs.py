"""Tasks that need each other, several at a time."""

import os
import threading

import pytest

from locvlm_jax import jobs

NEEDS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_a_task_begins_after_what_it_needs_in_the_order_of_the_list():
  for number in (1, 2, 3):
    done = []
    jobs.run(NEEDS, lambda task, cores: None, jobs=number, after=done.append)
    assert done[0] == "a" and done[-1] == "d" and len(done) == 4
  done = []
  jobs.run(NEEDS, lambda task, cores: done.append(task))
  assert done == ["a", "b", "c", "d"]


def test_two_run_at_a_time_on_cores_of_their_own():
  both, cores_of = threading.Barrier(2, timeout=10), {}

  def work(task, cores):
    if task in "bc":
      both.wait()  # passes where b and c run at the same time
      cores_of[task] = cores

  jobs.run(NEEDS, work, jobs=2)
  everything = os.sched_getaffinity(0)
  if len(everything) > 1:
    assert not cores_of["b"] & cores_of["c"]
  assert cores_of["b"] | cores_of["c"] == everything


def test_a_task_that_fails_ends_all_after_those_that_had_begun():
  ended, c_began, b_failed = [], threading.Event(), threading.Event()

  def work(task, cores):
    if task == "b":
      assert c_began.wait(10)
      b_failed.set()
      raise ValueError("b failed")
    if task == "c":
      c_began.set()
      assert b_failed.wait(10)
    ended.append(task)

  with pytest.raises(ValueError, match="b failed"):
    jobs.run(NEEDS, work, jobs=2)
  assert ended == ["a", "c"]


def test_a_system_that_cannot_pin_processes_runs_them_all_the_same(monkeypatch):
  for name in ("sched_getaffinity", "sched_setaffinity"):
    monkeypatch.delattr(os, name, raising=False)
  done = []
  jobs.run(NEEDS, lambda task, cores: jobs.pin(0, cores), after=done.append)
  assert done == list(NEEDS)
  assert jobs.all_cores() == frozenset(range(os.cpu_count()))

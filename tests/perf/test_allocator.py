"""The memory of a step on a CPU is kept, unless the user says otherwise."""

import ctypes
import types

import jax
import pytest

from locvlm_jax.perf import allocator


@pytest.fixture
def calls(monkeypatch):
  """What mallopt is called with; this process's allocator stays as it is."""
  made = []

  def mallopt(number: int, value: int) -> int:
    made.append((number, value))
    return 1

  library = types.SimpleNamespace(mallopt=mallopt)
  monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
  for name, _ in allocator.SETTINGS.values():
    monkeypatch.delenv(name, raising=False)
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  return made


def test_on_a_cpu_freed_memory_is_kept(calls):
  assert allocator.keep_memory()
  assert (-4, 0) in calls and (-1, -1) in calls  # no mapping, no trimming


@pytest.mark.parametrize(
  "name, value",
  [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_an_allocator_that_the_user_has_set_stays(
  calls, monkeypatch, name, value
):
  monkeypatch.setenv(name, value)
  assert not allocator.keep_memory() and not calls


def test_on_accelerators_the_allocator_stays(calls, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not allocator.keep_memory() and not calls


def test_another_c_library_is_left_alone(calls, monkeypatch):
  monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
  assert not allocator.keep_memory() and not calls

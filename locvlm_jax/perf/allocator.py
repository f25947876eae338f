"""Keeps the memory of a step on a CPU from one step to the next.

By default glibc gives large blocks back to the system as soon as they are free,
and every page of them is faulted in again, and cleared, at the next step. On
accelerators the arrays of a step are not glibc's, and nothing is changed.
"""

import ctypes
import os

import jax

# mallopt's number of a setting (malloc.h) -> the variable by which a user sets
# it, and the value here: nothing is mapped on its own, nothing trimmed, and the
# heap grows by 256 MiB at a time, in one arena for all threads.
SETTINGS = {
  -4: ("MALLOC_MMAP_MAX_", 0),
  -1: ("MALLOC_TRIM_THRESHOLD_", -1),
  -2: ("MALLOC_TOP_PAD_", 1 << 28),
  -8: ("MALLOC_ARENA_MAX", 1),
}


def keep_memory() -> bool:
  """Sets glibc's allocator, on CPUs and where the user has not.

  Call it before the first large array. Says whether anything was set.
  """
  if jax.default_backend() != "cpu" or _is_set_by_user():
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):  # another C library
    return False
  return all(
    [mallopt(number, value) for number, (_, value) in SETTINGS.items()]
  )


def _is_set_by_user() -> bool:
  tunables = os.environ.get("GLIBC_TUNABLES", "")
  variables = [name for name, _ in SETTINGS.values()]
  return "glibc.malloc" in tunables or any(v in os.environ for v in variables)

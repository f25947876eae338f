"""Sets up a process for jax, before jax starts; the user's settings come first.

Vectors of 512 bits, on processors that have them: XLA takes half of it.

Memory that stays with the process, for training on a CPU. By default glibc
gives large blocks back to the system as soon as they are free, and every page
of them is faulted in again, and cleared, at the next step. Its pages are of 2
MiB: a step goes through gigabytes, and to look up pages of 4 KiB takes time.

Compiled programs that are kept for the next start of a command that asks a
model: in the user's cache directory, in a folder for this version of jax and
this kind of processor, since machine code of another may not run here.
JAX_COMPILATION_CACHE_DIR names another folder, and
JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.

Where jax has an accelerator, neither vectors nor memory are touched.
"""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import mmap
import os
import platform
import sys
from typing import Any

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ENABLED = "JAX_ENABLE_COMPILATION_CACHE"
_MAX_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"
_MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
MAX_BYTES = 2**30
# What jax finds accelerators by.
_PLUGINS = ("jax_plugins", "libtpu")
_WIDTH = "xla_cpu_prefer_vector_width"
# mallopt's number of a setting (malloc.h) -> the variable by which a user sets
# it, and the value here: nothing is mapped on its own, nothing trimmed, and the
# heap grows by 256 MiB at a time, in one arena for all threads.
SETTINGS = {
  -4: ("MALLOC_MMAP_MAX_", 0),
  -1: ("MALLOC_TRIM_THRESHOLD_", -1),
  -2: ("MALLOC_TOP_PAD_", 1 << 28),
  -8: ("MALLOC_ARENA_MAX", 1),
}
_HUGE_PAGE = 1 << 21
# Of address space, not of memory: what a small model's step needs.
_HEAP = 1 << 33


def widen_vectors() -> None:
  """Lets XLA use all of a CPU's vectors, where jax has nothing but the CPU."""
  flags = os.environ.get("XLA_FLAGS", "")
  if _has_only_a_cpu() and _WIDTH not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --{_WIDTH}=512".strip()


def keep_memory() -> bool:
  """Sets glibc's allocator; says whether it did.

  Call it before jax has started its threads, which would have arenas of their
  own.
  """
  if not _has_only_a_cpu() or _has_set_allocator():
    return False
  try:
    libc = ctypes.CDLL(None)
    done = [libc.mallopt(n, value) for n, (_, value) in SETTINGS.items()]
    _use_huge_pages(libc)
  except (AttributeError, OSError, TypeError):  # another C library
    return False
  return all(done)


def _use_huge_pages(libc: Any) -> None:
  """Lets the heap grow once, in address space, to mark it for huge pages."""
  libc.malloc.restype = ctypes.c_void_p
  block = libc.malloc(ctypes.c_size_t(_HEAP))
  if not block:  # the process may not have so much
    return
  start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
  size = ctypes.c_size_t(block + _HEAP - start - _HUGE_PAGE)
  libc.madvise(ctypes.c_void_p(start), size, mmap.MADV_HUGEPAGE)
  libc.free(ctypes.c_void_p(block))


def _has_only_a_cpu() -> bool:
  if os.environ.get("JAX_PLATFORMS"):
    return os.environ["JAX_PLATFORMS"] == "cpu"
  return not any(importlib.util.find_spec(name) for name in _PLUGINS)


def _has_set_allocator() -> bool:
  tunables = os.environ.get("GLIBC_TUNABLES", "")
  variables = [name for name, _ in SETTINGS.values()]
  return "glibc.malloc" in tunables or any(v in os.environ for v in variables)


def keep_compiled() -> None:
  """Sets JAX's variables, before jax is imported; says where a new folder is.

  Does nothing where the user has chosen otherwise, or where the folder can't be
  written.
  """
  is_off = os.environ.get(_ENABLED, "").lower() in ("false", "0", "no", "off")
  if is_off or _DIRECTORY in os.environ:
    return
  folder = _folder()
  is_new = not os.path.isdir(folder)
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return
  if not os.access(folder, os.W_OK):
    return
  os.environ[_DIRECTORY] = folder
  # An answer takes some dozens of programs, most of which compile in less than
  # the second from which JAX would keep them.
  os.environ.setdefault(_MIN_SECONDS, "0")
  if importlib.util.find_spec("filelock"):  # JAX's cache needs it for a limit
    os.environ.setdefault(_MAX_SIZE, str(MAX_BYTES))
  if is_new:
    print(
      f"compiled programs are kept in {folder}; {_ENABLED}=false keeps none",
      file=sys.stderr,
    )


def _folder() -> str:
  """Names the folder for this user, this version of jax and this processor."""
  cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  version = importlib.metadata.version("jaxlib")
  return os.path.join(cache, "locvlm_jax", f"compiled-{version}-{_processor()}")


def _processor() -> str:
  """Identifies what instructions this processor has."""
  known = platform.machine() + platform.processor()
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as f:
      words = ("flags", "Features", "model name")
      known += "".join(sorted({x for x in f if x.startswith(words)}))
  except OSError:  # not Linux
    pass
  return hashlib.sha256(known.encode()).hexdigest()[:8]

"""Sets what jax reads from the environment, before it is imported.

Two things of it are better than jax's defaults. Neither replaces what the user
has set.

Vectors of 512 bits on processors that have them, since XLA takes half of it.

Compiled programs are kept for the next start of a command that asks a model, in
the user's cache directory, in a folder for this version of jax and this kind of
processor: machine code of another may not run here. JAX_COMPILATION_CACHE_DIR
names another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ENABLED = "JAX_ENABLE_COMPILATION_CACHE"
_MAX_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"
_MIN_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
MAX_BYTES = 2**30


# What jax finds accelerators by; on a machine with one nothing is set.
_PLUGINS = ("jax_plugins", "libtpu")
_WIDTH = "xla_cpu_prefer_vector_width"


def widen_vectors() -> None:
  """Lets XLA use all of a CPU's vectors, where jax has nothing but the CPU."""
  flags = os.environ.get("XLA_FLAGS", "")
  is_alone = not any(importlib.util.find_spec(x) for x in _PLUGINS)
  if is_alone and _WIDTH not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --{_WIDTH}=512".strip()


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

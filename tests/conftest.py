"""Four simulated devices; shapes in signatures are checked."""

import atexit
import ctypes
import functools
import gc
import os
import shutil
import tempfile
from collections.abc import Callable

# Before anything imports jax.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=4",
    # Programs of a test run once: compiling them well takes longer than that.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",  # compiles a third faster
    # XLA's default: commands, which set another, share the cache of programs.
    "--xla_cpu_prefer_vector_width=256",
  )
)
# Many tests compile the same step; the cache is that of this run's processes.
# Only one with a largest size is locked while it is written.
if "PYTEST_XDIST_WORKER" not in os.environ:
  _CACHE = tempfile.mkdtemp(prefix="locvlm_jax_tests_")
  atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
  os.environ["XDG_CACHE_HOME"] = _CACHE
os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(8 << 30)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from jaxtyping import install_import_hook  # noqa: E402

# Checks the shapes and types of every signature, for as long as tests run.
install_import_hook("locvlm_jax", "beartype.beartype")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# How long an example takes says something about the machine's load alone.
hypothesis.settings.register_profile("any_load", deadline=None)
hypothesis.settings.load_profile("any_load")


_MUCH = 3 << 29  # bytes


def pytest_runtest_teardown(item, nextitem):
  """Gives memory back between files: compiled programs would fill it."""
  ends = nextitem is None or nextitem.path != item.path
  if ends and _resident() > _MUCH:
    import jax

    jax.clear_caches()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
  """Returns the bytes in memory; 0 where it can't be read so, as on macOS."""
  try:
    with open("/proc/self/statm", encoding="ascii") as f:
      return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  except OSError:
    return 0


@pytest.fixture(scope="session")
def microworld(tmp_path_factory) -> Callable[..., str]:
  """Writes a micro-world and returns its folder; each size once a session.

  Tests share the folders: a test that changes one has to copy it first.
  """
  from locvlm_jax.microworld import dataset

  @functools.cache
  def write(num_train: int = 1, num_val: int = 1, num_videos: int = 0) -> str:
    return dataset.write(
      str(tmp_path_factory.mktemp("world") / "w"),
      num_train=num_train,
      num_val=num_val,
      num_videos=num_videos,
      workers=0,
    )

  return write

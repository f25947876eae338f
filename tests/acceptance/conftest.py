"""One micro-world, and one store of compiled programs, for all cases."""

import os
import tempfile

import pytest

from locvlm_jax.microworld import dataset


@pytest.fixture(scope="session")
def world(tmp_path_factory):
  path = tmp_path_factory.mktemp("world") / "w"
  dataset.write(
    str(path),
    num_train=24,
    num_val=8,
    num_videos=0,
    workers=0,
    log=lambda line: None,
  )
  return str(path)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once():
  with tempfile.TemporaryDirectory() as folder:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    yield

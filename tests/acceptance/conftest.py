"""One micro-world, and one store of compiled programs, for all cases."""

import os
import tempfile

import pytest


@pytest.fixture(scope="session")
def world(microworld):
  return microworld(num_train=24, num_val=8)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once():
  with tempfile.TemporaryDirectory() as folder:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    yield

"""What the tests of training share."""

import pytest


@pytest.fixture(scope="module")
def root(microworld):
  """A micro-world of 24 training and 8 validation images."""
  return microworld(num_train=24, num_val=8)

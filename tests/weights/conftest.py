"""What the tests of weights share."""

import pytest

from locvlm_jax.text import bpe


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  """A tokenizer of exactly the toy model's size, less <image>."""
  directory = str(tmp_path_factory.mktemp("words"))
  bpe.train_bpe(["a red ball", "two cups"] * 4, 400).save(directory)
  return directory

"""A tokenizer of a few words, and a small COCO data set."""

import cups
import pytest

from locvlm_jax.text import bpe

_TEXTS = ["USER: Where is the cup? ASSISTANT: At [1,2,3,4].", "a red ball"] * 9


@pytest.fixture(scope="session")
def text():
  return bpe.train_bpe(_TEXTS, 400)


@pytest.fixture
def world(tmp_path):
  return cups.write(tmp_path)

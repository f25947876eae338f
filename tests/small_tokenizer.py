"""A tokenizer of a few words, and texts that try it."""

import os
import pathlib
import shutil

import pytest
from hypothesis import strategies as st

from locvlm_jax.text import prompts
from locvlm_jax.text.bpe import train_bpe
from locvlm_jax.text.tokenizer import Tokenizer

CORPUS = [
  *prompts.LOC_PRED["box"],
  *["USER: Where is the red cup? ASSISTANT: It is at [12,34,45,60]."] * 5,
  *["a dog and 2024 cups, 365 balls"] * 5,
]
TOKENIZER = train_bpe(CORPUS, 600)
# The tokenizer reads "▁" as a space, and one leading space is its own.
TEXT = st.text().map(lambda t: t.replace("\u2581", " ").lstrip(" "))
FORGED = st.lists(
  st.sampled_from(
    ["<s>", "</s>", "<unk>", "<image>", "<0x0A>", "</", "s>", " ", "cup", "-1"]
  )
).map(lambda parts: "".join(parts).lstrip(" "))

needs_llama = pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with tokenizers/",
)


def load_llama(directory: pathlib.Path) -> Tokenizer:
  """Opens LLaMA-2's tokenizer, from a directory with tokenizer.model."""
  pytest.importorskip("sentencepiece")
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"], "tokenizers")
  shutil.copy(folder / "llama2_tokenizer.model", directory / "tokenizer.model")
  return Tokenizer.load(directory)

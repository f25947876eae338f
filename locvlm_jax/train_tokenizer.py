"""Trains a BPE tokenizer: `python -m locvlm_jax.train_tokenizer --out DIR`.

Reads the captions, conversations and sentences of a micro-world and the
wordings of `prompts.py`; digits are always single tokens, as LLaMA's are.
"""

import itertools

from absl import flags

from locvlm_jax import command

_ROOT = flags.DEFINE_string(
  "root", "runs/microworld", "The folder of the micro-world."
)
_OUT = flags.DEFINE_string(
  "out", None, "The folder to write, in Hugging Face's layout."
)
_VOCAB = flags.DEFINE_integer(
  "vocab_size", 1024, "The number of pieces, bytes included.", 1
)


def main(argv: list[str]) -> None:
  """Trains the tokenizer, and prints how many pieces it has."""
  del argv
  from locvlm_jax.data import corpus
  from locvlm_jax.text import bpe

  texts = itertools.chain(corpus.texts(_ROOT.value), bpe.wordings())
  trained = bpe.train_bpe(texts, _VOCAB.value)
  trained.save(_OUT.value)
  print(f"{_OUT.value}: {trained.vocab_size} pieces")


if __name__ == "__main__":
  command.run(main, required=["out"])

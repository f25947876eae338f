"""Trains a BPE tokenizer: `python -m locvlm_jax.train_tokenizer --out DIR`.

Reads the captions, conversations and sentences of a micro-world and the
wordings of `prompts.py`; digits are always single tokens, as LLaMA's are.
"""

import itertools
import os

from absl import flags

from locvlm_jax import command

_ROOT = flags.DEFINE_string("root", "runs/microworld", "The micro-world.")
_OUT = flags.DEFINE_string("out", None, "Where tokenizer.json is written.")
_VOCAB = flags.DEFINE_integer("vocab_size", 1024, "Pieces, bytes included.")


def main(argv: list[str]) -> None:
  """Texts -> BPE -> Hugging Face layout."""
  del argv
  from locvlm_jax.data.sources import coco, conversations
  from locvlm_jax.text import bpe
  from locvlm_jax.text import prompts as prompts_lib

  notes = os.path.join(_ROOT.value, "annotations")
  images = os.path.join(_ROOT.value, "images")
  sources = (
    coco.Captions(os.path.join(notes, "captions_train.json"), images),
    conversations.Conversations(
      os.path.join(notes, "conversations_train.json"), images
    ),
    conversations.Conversations(os.path.join(notes, "text_train.json"), ""),
  )
  records = itertools.chain.from_iterable(
    map(source.__getitem__, range(len(source))) for source in sources
  )
  texts = (text for r in records for turn in r.turns for text in turn)
  trained = bpe.train_bpe(
    itertools.chain(texts, _wordings(prompts_lib)), _VOCAB.value
  )
  trained.save(_OUT.value)
  print(f"{_OUT.value}: {trained.vocab_size} pieces")


def _wordings(prompts) -> list[str]:
  """The templates, often enough to become whole words."""
  templates = [
    *prompts.LOC_PRED["box"],
    *prompts.LOC_PRED["point"],
    *prompts.LOC_PRED_ANSWERS,
    *prompts.NEG_PRED_ANSWERS,
    *prompts.REV_LOC["box"],
    *prompts.REV_LOC["point"],
    *prompts.HELD_OUT,
  ]
  lines = [prompts.fill(t, obj="ball", a="ball", b="cup") for t in templates]
  bare = prompts.FORMATS["bare"]
  return [f"{bare.start}{x}{bare.assistant} [ At" for x in lines] * 200


if __name__ == "__main__":
  command.run(main, required=["out"])

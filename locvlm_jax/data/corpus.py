"""The texts of a micro-world, which its tokenizer is trained on."""

import os
from collections.abc import Iterator

from locvlm_jax.data.sources import coco, conversations


def texts(root: str) -> Iterator[str]:
  """Yields the captions, conversations and sentences to train on.

  Args:
    root: the folder of a micro-world.

  Raises:
    DataError: a file is missing or malformed.
  """
  notes = os.path.join(root, "annotations")
  images = os.path.join(root, "images")
  for source in (
    coco.Captions(os.path.join(notes, "captions_train.json"), images),
    conversations.Conversations(
      os.path.join(notes, "conversations_train.json"), images
    ),
    conversations.Conversations(os.path.join(notes, "text_train.json"), ""),
  ):
    for i in range(len(source)):
      for turn in source[i].turns:
        yield from turn

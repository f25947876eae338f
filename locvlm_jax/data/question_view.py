"""How a model sees images, and what it may be asked about them."""

import dataclasses
from collections.abc import Sequence

from locvlm_jax.text.coords import Coords
from locvlm_jax.text.families import LOCVLM, Family


@dataclasses.dataclass(frozen=True)
class View:
  """What questions about a record depend on besides the record.

  Attributes:
    coords: how locations are written in questions and answers.
    geometry: how an image becomes the model's square, one of `geometry.KINDS`.
    image_size: the side of that square, in pixels.
    vocabulary: the categories that may be asked about.
    seed: of the order of the records, and of all that is drawn.
    family: the words that a benchmark's questions are put in.
    category_ids: what the file calls the vocabulary; empty: by its places.
  """

  coords: Coords
  geometry: str
  image_size: int
  vocabulary: Sequence[str]
  seed: int
  family: Family = LOCVLM
  category_ids: Sequence[int] = ()

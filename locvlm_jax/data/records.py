"""The contract between data and model: records in, batches out.

A `Source` gives records, `rows` turns a record into one row, and `stream` puts
rows into a *batch*, a dict of numpy arrays. With B rows on this host, K images
a row, N visual tokens an image, and a text budget of T tokens, S = K * N + T
and a batch holds

  images     uint8 [B, K, H, W, 3]  after the geometry, before normalization
  tokens     int32 [B, S]           IMAGE_TOKEN (-1) marks a visual position
  loss_mask  bool  [B, S]           True where the token is a target
  lengths    int32 [B]              tokens that are not padding
  segments   int32 [B, S]           with `data.pack` or `data.tree`, see below
  valid      bool  [B]              False: a placeholder for a bad record
  example    int32 [B]              index in the global stream of examples

Of a video, images are its frames, [B, K, F, H, W, 3], and there is also

  frames     int32 [B, K]           how many of the F are real

or images are what the vision tower made of them, float16 [B, K, N, D].

For N = 3 and T = 6, a row with one image and the answer "a cup":

  tokens     <s> -1 -1 -1 where ? a  cup </s>
  loss_mask   .   .  .  .   .   . x   x   x

Packed, a row holds `data.pack` conversations, and K is their number:

  tokens     <s> -1 -1 where ? a  cup </s> <s> -1 -1 what ? ...  .  .
  segments    1   1  1  1    1 1   1   1    2   2  2   2  2      0  0

As a tree, a row holds questions about one image, which share it (-1):

  tokens     <s> -1 -1 where ? a  cup </s> what ? ...  .  .
  segments   -1  -1 -1  1    1 1   1   1    2   2  2   0  0
"""

import abc
import dataclasses
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from locvlm_jax.text.coords import Box
from locvlm_jax.text.prompts import Turn

Batch = dict[str, np.ndarray]
# What an image or a video is known by, whatever its file is called: COCO's id,
# Visual Genome's, or the video's name (see `leakage`); None: by nothing.
ImageId = int | str | None


@dataclasses.dataclass(frozen=True)
class Object:
  """One annotated object.

  Attributes:
    category: its name, such as "wine glass".
    box: (x1, y1, x2, y2) in pixels of the original image.
    crowd: it stands for several objects, or moves in a video: it is present,
      and never asked for.
    id: of the annotation; 0 where the file has none.
    texts: expressions or captions of it alone, any of which stands for it in
      place of the category.
    also: the other categories that it is, or may be: a car is a vehicle, and
      what is called a vehicle may be a car.
    area: in pixels, of its mask where the file says so; 0: not known.
  """

  category: str
  box: Box
  crowd: bool = False
  id: int = 0
  texts: tuple[str, ...] = ()
  also: tuple[str, ...] = ()
  area: float = 0.0


@dataclasses.dataclass(frozen=True)
class Record:
  """What a source knows about one example.

  Attributes:
    id: of the record, as text.
    image: path of an image or a video; None for text alone.
    width: of the image in pixels, as the annotation has it; 0: not known.
    height: likewise.
    objects: what the three objectives are about.
    turns: questions and answers that the source brings itself.
    exhaustive: whatever is not among the objects is not in the image.
    absent: the only categories that are known not to be in the image; None:
      there is no such list.
    is_video: `image` is a video, and the objectives speak of one.
  """

  id: str
  image: str | None = None
  width: int = 0
  height: int = 0
  objects: tuple[Object, ...] = ()
  turns: tuple[Turn, ...] = ()
  exhaustive: bool = True
  absent: tuple[str, ...] | None = None
  is_video: bool = False


@runtime_checkable
class Records(Protocol):
  """Records by random access: all that an evaluation's task needs."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Record: ...


class Source(abc.ABC):
  """Records of one data set by random access, and what is known of them all.

  A source reads annotations when it is opened and opens no image. What a data
  set does not have keeps the values given here.

  Attributes:
    folder: of the images or videos; file names are relative to it.
    categories: the names that objects may have, in the order of the file.
    category_ids: what the file calls them; empty: their places, from 1 on.
    box_counts: how many boxes were "clipped" to the image, or are "empty".
    caption_counts: how many captions of objects were "used", and by reason how
      many were not.
    broader: categories that others are kinds of, as vehicle is of car. Beside
      one of these such a category is neither denied nor asked for.
    missing: questions that were left out because `folder` lacks the image or
      video that they are about.
    boxed: file and number of the first record whose text holds boxes; "": none.
  """

  folder: str
  categories: tuple[str, ...] = ()
  category_ids: tuple[int, ...] = ()
  box_counts: Mapping[str, int] = types.MappingProxyType({})
  caption_counts: Mapping[str, int] = types.MappingProxyType({})
  broader: tuple[str, ...] = ()
  missing: int = 0
  boxed: str = ""

  @abc.abstractmethod
  def __len__(self) -> int:
    """Counts the records."""

  @abc.abstractmethod
  def __getitem__(self, index: int) -> Record:
    """Reads a record; `index` is from 0 on."""

  def image_ids(self) -> list[ImageId]:
    """Lists what the image or video of each record is known by.

    A record of None cannot be left out of training where an evaluation uses
    its image; every source that is trained on says what it knows.
    """
    return [None] * len(self)

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' images or videos; None: no image."""
    return [self[i].image for i in indices]

  def object_captions(
    self, without: Collection[str] = ()
  ) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Collects the captions of objects that name their category.

    `neg_pred` denies them where there is no such object.

    Args:
      without: ids of the records whose captions are left out.

    Returns:
      {category: captions of an object, those of another, ...}; only
      categories that have some.
    """
    del without
    return {}

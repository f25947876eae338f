"""The contract between data and model: records in, batches out.

A `Source` gives records by random access. The
pipeline turns records into rows and rows into a *batch*, a dict of numpy
arrays. With B rows on this host, K images a row, N visual tokens an image, and
a text budget of T tokens, S = K * N + T and a batch holds

  images     uint8 [B, K, H, W, 3]  after the geometry, before normalisation
  tokens     int32 [B, S]           IMAGE_TOKEN (-1) marks a visual position
  loss_mask  bool  [B, S]           True where the token is a target
  lengths    int32 [B]              tokens that are not padding
  segments   int32 [B, S]           with `data.pack` alone, see below
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
"""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np

Turn = tuple[str, str]  # (question, answer)
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Object:
  """One annotated object; `box` in pixels of the original image.

  `texts` are expressions or captions of it alone, any of which stands for it in
  place of the category.
  """

  category: str
  box: Box
  crowd: bool = False
  id: int = 0
  texts: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Record:
  """What a source knows about one example.

  `image` is the path of an image or a video, or None for text alone; `width`
  and `height` are those the annotation names (0 where it names none).
  `objects` feed the three objectives; `turns` are questions and answers that
  the source brings itself.
  `exhaustive` says that whatever is not among the objects is not in the image;
  `absent`, that nothing else is known not to be (None: no such list);
  `is_video`, that the objectives speak of a video.
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
class Source(Protocol):
  """Records by random access; reads nothing but annotations."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Record: ...

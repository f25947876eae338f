"""Reads pictures as a model sees them, ahead of the batch that needs them."""

import collections
import concurrent.futures
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from locvlm_jax.data import geometry
from locvlm_jax.data.media import clips as clips_lib
from locvlm_jax.data.media import images, video
from locvlm_jax.inference.question import Picture


def fields(
  spec: Any, path: Picture, change: Callable | None, announced: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Reads what a batch holds of a picture.

  A model of images sees the frame in the middle of a video.

  Args:
    spec: how the model sees it.
    path: of an image or a video.
    change: is done to the picture first, if anything.
    announced: its width and height by the annotation; zeros: not known.

  Raises:
    BadImage: it can't be used, or has another size.
  """
  kind, side = spec.geometry, spec.image_size
  if not spec.clips and not video.is_video(path):
    image = images.load_image(path, announced)
    image = change(image) if change else image
    square = geometry.make(kind, *image.size, side).apply_image(image)
    return {"images": square[None]}
  clips = spec.clips or clips_lib.Clips(1, kind, side)
  fields, size = clips.fields(path, change) if change else clips.fields(path)
  if all(announced) and size != announced:
    raise images.BadImage(f"is {size}, the annotation says {announced}")
  return fields if spec.clips else {"images": fields["images"][0]}


_KEPT = 512 << 20  # bytes: 1,500 squares of 336 pixels


class ReadingAhead:
  """Reads what it is told of early, by several threads.

  What was read stays for a while: benchmarks ask several questions about a
  picture, POPE six and GQA thirty, and a photograph of twelve million pixels
  takes a tenth of a second to decode.

  Args:
    threads: that read.
    kept: bytes of what stays; the first to go is what was used longest ago.
  """

  def __init__(self, threads: int, kept: int = _KEPT):
    self._pool = concurrent.futures.ThreadPoolExecutor(max(threads, 1))
    self._begun: dict[Hashable, concurrent.futures.Future] = {}
    self._kept: collections.OrderedDict[Hashable, Any] = (
      collections.OrderedDict()
    )
    self._room = kept

  def begin(self, read: Callable, keys: Sequence[tuple]) -> None:
    """Begins to read what `take` will be asked for.

    Args:
      read: called with the parts of each key.
      keys: in the order in which they are needed.
    """
    for key in keys:
      if key not in self._begun and key not in self._kept:
        self._begun[key] = self._pool.submit(read, *key)

  def take(self, read: Callable, keys: Sequence[tuple]) -> dict[tuple, Any]:
    """Waits for what is begun, and reads the rest.

    Args:
      read: called with the parts of each key; the one that they were begun by.
        Returns {name: array}, or None.
      keys: what is wanted.

    Returns:
      {key: what `read` gave}.
    """
    self.begin(read, keys)
    found = {}
    for key in dict.fromkeys(keys):
      if key in self._begun:
        found[key] = self._begun.pop(key).result()
        self._room -= _bytes(found[key])
      else:
        found[key] = self._kept.pop(key)
    self._kept |= found
    while self._kept and self._room < 0:
      self._room += _bytes(self._kept.popitem(last=False)[1])
    return found

  def close(self) -> None:
    """Stops reading; what is not taken is forgotten."""
    self._pool.shutdown(cancel_futures=True)
    self._begun.clear()
    self._kept.clear()


def _bytes(read: Mapping[str, Any] | None) -> int:
  """Counts the bytes of what was read of a picture."""
  return sum(np.asarray(x).nbytes for x in (read or {}).values())

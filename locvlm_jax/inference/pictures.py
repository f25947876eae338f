"""Reads pictures as a model sees them, ahead of the batch that needs them."""

import concurrent.futures
from collections.abc import Callable, Hashable, Sequence
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


class ReadingAhead:
  """Reads what it is told of early, by several threads.

  Args:
    threads: that read.
  """

  def __init__(self, threads: int):
    self._pool = concurrent.futures.ThreadPoolExecutor(max(threads, 1))
    self._begun: dict[Hashable, concurrent.futures.Future] = {}

  def begin(self, read: Callable, keys: Sequence[tuple]) -> None:
    """Begins to read what `take` will be asked for.

    Args:
      read: called with the parts of each key.
      keys: in the order in which they are needed.
    """
    for key in keys:
      if key not in self._begun:
        self._begun[key] = self._pool.submit(read, *key)

  def take(self, read: Callable, keys: Sequence[tuple]) -> dict[tuple, Any]:
    """Waits for what is begun, and reads the rest; then forgets them.

    Args:
      read: called with the parts of each key; the one that they were begun by.
      keys: what is wanted.

    Returns:
      {key: what `read` gave}.
    """
    self.begin(read, keys)
    found = {key: self._begun[key].result() for key in keys}
    for key in found:
      del self._begun[key]
    return found

  def close(self) -> None:
    """Stops reading; what is not taken is forgotten."""
    self._pool.shutdown(cancel_futures=True)
    self._begun.clear()

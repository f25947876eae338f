"""Videos as a row holds them: sampled frames, or cached features."""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from locvlm_jax import files
from locvlm_jax.data import geometry
from locvlm_jax.data.media import video


@dataclasses.dataclass(frozen=True)
class Clips:
  """Reads videos as frames of the model's size.

  Attributes:
    frames: of a video at most, F.
    kind: the geometry, one of `geometry.KINDS`.
    size: side of the square, in pixels.
  """

  frames: int
  kind: str
  size: int

  def read(
    self, path: str | Image.Image, change: Callable = lambda frame: frame
  ) -> tuple[UInt8[np.ndarray, "F H W 3"], int, tuple[int, int]]:
    """Reads the frames of a video; those that it hasn't are black at the end.

    Args:
      path: a video, a folder of frames or a picture.
      change: is applied to each frame before the geometry.

    Returns:
      (frames, how many are real, width and height of the first in pixels).

    Raises:
      BadImage: it can't be used.
    """
    clip, num, size = self.black_frames(), 0, (0, 0)
    for num, frame in enumerate(video.sample(path, self.frames), 1):  # noqa: B007
      size = size if num > 1 else frame.size
      square = geometry.make(self.kind, *frame.size, self.size)
      clip[num - 1] = square.apply_image(change(frame))
    return clip, num, size

  def fields(
    self, path: str | Image.Image, change: Callable = lambda frame: frame
  ) -> tuple[dict, tuple[int, int]]:
    """Reads what a row holds of a video.

    Returns:
      ({"images": [1, F, H, W, 3], "frames": [1]}, width and height in pixels).

    Raises:
      BadImage: the video can't be used.
    """
    clip, num, size = self.read(path, change)
    return {"images": clip[None], "frames": np.array([num], np.int32)}, size

  def blank(self) -> dict:
    """Makes the fields of a row without a video."""
    images = self.black_frames()[None]
    return {"images": images, "frames": np.zeros(1, np.int32)}

  def black_frames(self) -> UInt8[np.ndarray, "F H W 3"]:
    """Makes black frames."""
    return np.zeros((self.frames, self.size, self.size, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Features:
  """Reads what a vision tower made of videos, in place of their frames.

  It is kept in a folder that several processes may share. An entry is known by
  the file (its path, size and time of change; of a folder, those of all in it),
  the sampling and the encoder; it appears whole or not at all.

    FOLDER/3f1c.../a9/a94a8fe5....npz    features float16 [N, D], size [2]

  Attributes:
    folder: of the cache.
    encoder: hash of the tower.
    clips: the sampling of frames.
    shape: (N, D), visual tokens of a video and width of the tower.
    failures: why there is no entry of a video, by its path.
  """

  folder: str
  encoder: str
  clips: Clips
  shape: tuple[int, int]
  failures: dict[str, str]

  def fields(self, path: str) -> tuple[dict, tuple[int, int]]:
    """Reads what a row holds of a video.

    Returns:
      ({"images": float16 [1, N, D]}, width and height in pixels).

    Raises:
      BadVideo: there is no such entry, or it is damaged: then it is removed, so
        that the next run makes it again.
    """
    entry = self._entry(path)
    if not os.path.exists(entry):
      reason = self.failures.get(path, f"no features of it in {self.folder}")
      raise video.BadVideo(reason)
    try:
      with open(entry, "rb") as f, np.load(f) as stored:
        found, size = stored["features"], stored["size"].tolist()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      os.remove(entry)
      raise video.BadVideo(f"its features, {entry}, are damaged") from None
    return {"images": found[None]}, tuple(size)

  def blank(self) -> dict:
    """Makes the fields of a row without a video."""
    return {"images": np.zeros((1, *self.shape), np.float16)}

  def has(self, path: str) -> bool:
    """Says whether there is an entry of this video as it is now."""
    return os.path.exists(self._entry(path))

  def put(
    self, path: str, features: Float16[np.ndarray, "N D"], size: tuple[int, int]
  ) -> None:
    """Writes the entry of a video; `size` is its width and height."""
    entry = self._entry(path)
    os.makedirs(os.path.dirname(entry), exist_ok=True)
    with files.replacing(entry, "wb") as f:
      np.savez(f, features=features, size=np.array(size, np.int32))

  def _entry(self, path: str) -> str:
    # The last word changes whenever frames are read in another way.
    sampled = hashlib.sha256(f"{self.encoder} {self.clips} upright".encode())
    name = hashlib.sha256(_identity(path).encode()).hexdigest()
    folder = os.path.join(self.folder, sampled.hexdigest()[:16], name[:2])
    return os.path.join(folder, f"{name}.npz")


def _identity(path: str) -> str:
  """Describes a file, or all of a folder of frames, so as to know changes."""
  path = os.path.realpath(path)
  parts = [path]
  if os.path.isdir(path):
    parts = sorted(os.scandir(path), key=lambda entry: entry.name)
  found = [path]
  for file in parts:
    try:
      stat = os.stat(file)
    except OSError:  # absent: it never has an entry
      continue
    found.append(f"{os.fspath(file)} {stat.st_size} {stat.st_mtime_ns}")
  return "\n".join(found)

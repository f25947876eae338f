"""Videos as a row holds them: sampled frames, or cached features."""

import dataclasses
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image

from locvlm_jax.data import geometry, video


@dataclasses.dataclass(frozen=True)
class Clips:
  """How a video becomes frames of the model's size.

  Attributes:
    frames: F, at most so many of a video.
    kind: the geometry, of `geometry.KINDS`.
    size: side of the square, in pixels.
  """

  frames: int
  kind: str
  size: int

  def read(
    self, path: str | Image.Image, change: Callable = lambda frame: frame
  ) -> tuple[UInt8[np.ndarray, "F H W 3"], int, tuple[int, int]]:
    """(frames, how many of them there are, width and height of the first).

    Those that the video hasn't are black at the end.

    Args:
      path: a video, a folder of frames or a picture.
      change: of each frame before the geometry.

    Raises:
      BadImage: it can't be used.
    """
    clip, num, size = self.nothing(), 0, (0, 0)
    for num, frame in enumerate(video.sample(path, self.frames), 1):  # noqa: B007
      size = size if num > 1 else frame.size
      square = geometry.make(self.kind, *frame.size, self.size)
      clip[num - 1] = square.apply_image(change(frame))
    return clip, num, size

  def fields(
    self, path: str | Image.Image, change: Callable = lambda frame: frame
  ) -> tuple[dict, tuple[int, int]]:
    """(a row's images [1, F, H, W, 3] and frames [1], width and height).

    Raises:
      BadImage: the video can't be used.
    """
    clip, num, size = self.read(path, change)
    return {"images": clip[None], "frames": np.array([num], np.int32)}, size

  def blank(self) -> dict:
    """The fields of a row without a video."""
    return {"images": self.nothing()[None], "frames": np.zeros(1, np.int32)}

  def nothing(self) -> UInt8[np.ndarray, "F H W 3"]:
    """Black frames."""
    return np.zeros((self.frames, self.size, self.size, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Features:
  """A folder of what a vision tower made of videos, in place of the frames.

  An entry is known by the file (its path, size and time of change; of a folder,
  those of all in it), the sampling and the encoder. Entries appear whole or not
  at all, and several processes may share the folder.

    FOLDER/3f1c.../a9/a94a8fe5....npz    features float16 [N, D], size [2]

  Attributes:
    folder: of the cache.
    encoder: hash of the tower.
    clips: the sampling.
    shape: (N, D), visual tokens of a video and width of the tower.
    bad: why there is none of a video, by its path.
  """

  folder: str
  encoder: str
  clips: Clips
  shape: tuple[int, int]
  bad: dict[str, str]

  def fields(self, path: str) -> tuple[dict, tuple[int, int]]:
    """(a row's images float16 [1, N, D], width and height of the video).

    Raises:
      BadVideo: there is no such entry, or it is damaged: then it is removed, so
        that the next run makes it again.
    """
    entry = self._entry(path)
    if not os.path.exists(entry):
      raise video.BadVideo(
        self.bad.get(path, f"no features of it in {self.folder}")
      )
    try:
      with open(entry, "rb") as f, np.load(f) as stored:
        found, size = stored["features"], stored["size"].tolist()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      os.remove(entry)
      raise video.BadVideo(f"its features, {entry}, are damaged") from None
    return {"images": found[None]}, tuple(size)

  def blank(self) -> dict:
    """The fields of a row without a video."""
    return {"images": np.zeros((1, *self.shape), np.float16)}

  def has(self, path: str) -> bool:
    """Whether there is an entry of this video as it is now."""
    return os.path.exists(self._entry(path))

  def put(
    self, path: str, features: Float16[np.ndarray, "N D"], size: tuple[int, int]
  ) -> None:
    """Writes an entry."""
    entry = self._entry(path)
    os.makedirs(os.path.dirname(entry), exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(entry))
    try:
      with os.fdopen(handle, "wb") as f:
        np.savez(f, features=features, size=np.array(size, np.int32))
      os.replace(partial, entry)
    except BaseException:
      os.remove(partial)
      raise

  def _entry(self, path: str) -> str:
    sampled = hashlib.sha256(f"{self.encoder} {self.clips}".encode())
    name = hashlib.sha256(_identity(path).encode()).hexdigest()
    folder = os.path.join(self.folder, sampled.hexdigest()[:16], name[:2])
    return os.path.join(folder, f"{name}.npz")


def _identity(path: str) -> str:
  """What changes when the file does, or any of a folder of frames."""
  path = os.path.realpath(path)
  files = (
    sorted(os.scandir(path), key=lambda e: e.name)
    if (os.path.isdir(path))
    else [path]
  )
  found = [path]
  for file in files:
    try:
      stat = os.stat(file)
    except OSError:  # absent: it never has an entry
      continue
    found.append(f"{os.fspath(file)} {stat.st_size} {stat.st_mtime_ns}")
  return "\n".join(found)

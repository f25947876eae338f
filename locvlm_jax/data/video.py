"""Frames of videos: files that PyAV decodes, GIF, folders of pictures.

Frames are counted by decoding them: what a container says of itself can be
wrong, and some say 0. A video is decoded twice, to count and to pick, so that
no more than one frame of it lies in memory at a time. Frames are taken as they
come, whatever their time stamps, and as they are stored, without the rotation
that a phone notes beside them.
"""

import collections
import dataclasses
import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float16, Int, UInt8
from PIL import Image

from locvlm_jax import geometry
from locvlm_jax.data import preprocess

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")  # of a folder
FILMS = (
  ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
  ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
SUFFIXES = (*FILMS, ".gif")

# Gives a frame's picture, or what is wrong with it.
_Frames = Iterator[Callable[[], Image.Image]]


class BadVideo(preprocess.BadImage):
  """A video that can't be used, as a whole; the message says why."""


def is_video(path: str) -> bool:
  """Whether it is one by its name, or a folder of frames."""
  return path.lower().endswith(SUFFIXES) or os.path.isdir(path)


def sample_indices(num: int, most: int) -> Int[np.ndarray, " n"]:
  """Which of `num` frames are taken: n = min(num, most), evenly.

  The middles of n equal parts, as Video-ChatGPT has them
  (mbzuai-oryx/Video-ChatGPT:video_chatgpt/eval/model_utils.py): a frame may
  come twice where there are hardly more than `most`.

  >>> sample_indices(10, 4)
  array([1, 3, 5, 8])

  Raises:
    ValueError: no frame, or none asked for.
  """
  if num < 1 or most < 1:
    raise ValueError(f"{most} of {num} frames: both have to be at least 1.")
  n = min(num, most)
  edges = np.round((num - 1) / n * np.arange(n + 1)).astype(int)
  return (edges[:-1] + edges[1:]) // 2


def sample(path: str, most: int) -> Iterator[Image.Image]:
  """RGB pictures of at most `most` frames, one after the other.

  A picture, which is whatever `is_video` denies, is a video of one frame.

  Raises:
    BadVideo: not a video, without any frame, or damaged; before the first
      frame is given, so that no part of such a video is used.
    ValueError: it takes PyAV, which is not installed.
  """
  num = sum(1 for _ in _frames(path))
  if not num:
    raise BadVideo("it holds no frame")
  wanted = collections.Counter(sample_indices(num, most).tolist())
  for i, picture in zip(range(max(wanted) + 1), _frames(path), strict=False):
    if i in wanted:
      frame = picture()
      yield from (frame for _ in range(wanted[i]))


def _frames(path: str) -> _Frames:
  lower = path.lower()
  if os.path.isdir(path):
    return _folder(path)
  if not lower.endswith(SUFFIXES):
    return iter([lambda: preprocess.load_image(path)])
  if not os.path.isfile(path):
    raise BadVideo("no such file")
  return _gif(path) if lower.endswith(".gif") else _film(path)


def _folder(path: str) -> _Frames:
  """Pictures in the order of their names, 2.jpg before 10.jpg."""
  names = [n for n in os.listdir(path) if n.lower().endswith(PICTURES)]
  for name in sorted(names, key=_natural):
    frame = preprocess.load_image(os.path.join(path, name))
    yield lambda frame=frame: frame


def _natural(name: str) -> list:
  """Digits count as a number."""
  parts = re.split(r"(\d+)", name)
  return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)]


def _gif(path: str) -> _Frames:
  try:
    with Image.open(path) as image:
      if image.format == "GIF":
        _check_trailer(path)
      for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        image.load()
        yield lambda: image.convert("RGB")
  except (OSError, EOFError, ValueError, SyntaxError) as e:
    raise BadVideo(str(e)) from None


def _check_trailer(path: str) -> None:
  """Refuses a GIF without its last byte: Pillow takes the end for the end.

  Blocks start with "!" (extension), "," (frame) or ";" (the end); the data of
  the first two are chains of up to 255 bytes, each after its length.
  """
  with open(path, "rb") as f:
    f.seek(10)
    f.seek(2 + _palette(f.read(1)), os.SEEK_CUR)
    while (kind := f.read(1)) != b";":
      if kind == b",":
        f.seek(8, os.SEEK_CUR)
        f.seek(_palette(f.read(1)), os.SEEK_CUR)
      if kind not in (b",", b"!"):
        raise BadVideo("it is cut off or damaged")
      f.seek(1, os.SEEK_CUR)
      while (length := f.read(1)) not in (b"", b"\0"):
        f.seek(length[0], os.SEEK_CUR)


def _palette(flags: bytes) -> int:
  """Bytes of the color table that these flags announce."""
  return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _film(path: str) -> _Frames:
  av = _pyav()
  try:
    # A playlist under a video's name could ask for other hosts.
    options = {"protocol_whitelist": "file"}
    with av.open(os.path.abspath(path), options=options) as container:
      if not container.streams.video:
        raise BadVideo("it holds no video stream")
      _check_whole(path, container.streams.video[0])
      for i, frame in enumerate(container.decode(video=0)):
        if frame.is_corrupt:
          raise BadVideo(f"frame {i} is damaged")
        yield frame.to_image
  except (av.FFmpegError, OSError, ValueError) as e:
    raise BadVideo(str(e)) from None


def _pyav():
  """The module; late, for most users have no videos."""
  try:
    import av
  except ImportError:
    raise ValueError(
      "videos are decoded by PyAV, which is not installed: pip install"
      " 'locvlm_jax[video]' (or: pip install av). GIFs and folders of frames"
      " need nothing."
    ) from None
  return av


def _check_whole(path: str, stream) -> None:
  """Refuses a file that was cut off, which FFmpeg decodes as far as it goes."""
  ends = [e.pos + e.size for e in stream.index_entries or ()]
  end, size = max([_segment_end(path), *ends]), os.path.getsize(path)
  if end > size:
    raise BadVideo(f"it is cut off: {size} bytes of {end}")


# Matroska's segment, which holds everything after a short header.
_SEGMENT = bytes.fromhex("18538067")


def _segment_end(path: str) -> int:
  """Where a Matroska file says that it ends; 0 if it doesn't say."""
  with open(path, "rb") as f:
    head = f.read(4096)
  at = head.find(_SEGMENT) + len(_SEGMENT)
  if not head.startswith(b"\x1aE\xdf\xa3") or at < len(_SEGMENT):
    return 0
  length = 9 - head[at].bit_length()  # leading zeros of the first byte
  unknown = (1 << 7 * length) - 1
  value = int.from_bytes(head[at : at + length], "big") & unknown
  return 0 if value == unknown else at + length + value


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
    self, path: str, change: Callable = lambda frame: frame
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
    for num, frame in enumerate(sample(path, self.frames), 1):  # noqa: B007
      size = size if num > 1 else frame.size
      square = geometry.make(self.kind, *frame.size, self.size)
      clip[num - 1] = square.apply_image(change(frame))
    return clip, num, size

  def fields(
    self, path: str, change: Callable = lambda frame: frame
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
      raise BadVideo(self.bad.get(path, f"no features of it in {self.folder}"))
    try:
      with open(entry, "rb") as f, np.load(f) as stored:
        found, size = stored["features"], stored["size"].tolist()
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      os.remove(entry)
      raise BadVideo(f"its features, {entry}, are damaged") from None
    return {"images": found[None]}, tuple(size)

  def blank(self) -> dict:
    """The fields of a row without a video."""
    return {"images": np.zeros((1, *self.shape), np.float16)}

  def has(self, path: str) -> bool:
    """Whether there is an entry of this video as it is now."""
    return os.path.exists(self._entry(path))

  def put(self, path: str, features: Float16[np.ndarray, "N D"],
          size: tuple[int, int]) -> None:  # fmt: skip
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
  files = sorted(os.scandir(path), key=lambda e: e.name) if (
    os.path.isdir(path)) else [path]  # fmt: skip
  found = [path]
  for file in files:
    try:
      stat = os.stat(file)
    except OSError:  # absent: it never has an entry
      continue
    found.append(f"{os.fspath(file)} {stat.st_size} {stat.st_mtime_ns}")
  return "\n".join(found)

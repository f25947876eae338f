"""Frames of videos: files that PyAV decodes, GIF, folders of pictures.

Frames are counted by decoding them: what a container says of itself can be
wrong, and some say 0. A video is decoded twice, to count and to pick, so that
no more than one frame of it lies in memory at a time. Frames are taken as they
come, whatever their time stamps, and turned as the container says: phones store
films on their side. What is no frame is passed over: the cover picture of a
container, and in a folder hidden files and pictures without a number.
"""

import collections
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int
from PIL import Image

from locvlm_jax.data.media import images

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")  # of a folder
FILMS = (
  ".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
  ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
SUFFIXES = (*FILMS, ".gif")

# Gives a frame's picture, or what is wrong with it.
_Frames = Iterator[Callable[[], Image.Image]]


class BadVideo(images.BadImage):
  """A video that can't be used, as a whole; the message says why."""


def is_video(path: str | Image.Image) -> bool:
  """Says whether it is a video by its name, or a folder of frames."""
  if isinstance(path, Image.Image):
    return False
  return path.lower().endswith(SUFFIXES) or os.path.isdir(path)


def sample_indices(num: int, most: int) -> Int[np.ndarray, " n"]:
  """Chooses n = min(num, most) of `num` frames, evenly.

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


def sample(path: str | Image.Image, most: int) -> Iterator[Image.Image]:
  """Yields RGB pictures of at most `most` frames, one after the other.

  A picture, which is whatever `is_video` denies, is a video of one frame.

  Raises:
    BadVideo: not a video, without any frame, or damaged; before the first
      frame is given, so that no part of such a video is used.
    ValueError: it takes PyAV, which is not installed.
  """
  if isinstance(path, Image.Image):
    yield images.load_image(path)
    return
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
    return iter([lambda: images.load_image(path)])
  if not os.path.isfile(path):
    raise BadVideo("no such file")
  return _gif(path) if lower.endswith(".gif") else _film(path)


def _folder(path: str) -> _Frames:
  """Yields pictures in the order of their names, 2.jpg before 10.jpg."""
  for name in sorted(_frame_names(path), key=_natural):
    frame = images.load_image(os.path.join(path, name))
    yield lambda frame=frame: frame


def _frame_names(folder: str) -> list[str]:
  """Lists the pictures of a folder that are frames, in no order.

  Raises:
    BadVideo: their numbers begin after different words, as of two films.
  """
  pictures = [n for n in listed(folder) if n.lower().endswith(PICTURES)]
  numbered = [n for n in pictures if re.search(r"\d", n)]
  words = {re.split(r"\d", n)[0].lower(): n for n in numbered}
  if len(words) > 1:
    some = " and ".join(list(words.values())[:2])
    raise BadVideo(f"its frames are of more than one kind: {some}")
  if numbered and len(numbered) < len(pictures):
    _tell_once(folder, ", ".join(sorted(set(pictures) - set(numbered))))
  return numbered or pictures


@functools.cache
def _tell_once(folder: str, names: str) -> None:
  logging.warning("%s: no frame, since it has no number: %s", folder, names)


def listed(folder: str) -> list[str]:
  """Lists a folder without hidden files, such as macOS leaves beside others."""
  return [name for name in os.listdir(folder) if not name.startswith(".")]


def _natural(name: str) -> list:
  """Makes a key that sorts digits as numbers."""
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
  except (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
  ) as e:
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
      if kind == b"\0":  # between blocks; Pillow passes over it too
        continue
      if kind == b",":
        f.seek(8, os.SEEK_CUR)
        f.seek(_palette(f.read(1)), os.SEEK_CUR)
      if kind not in (b",", b"!"):
        raise BadVideo("it is cut off or damaged")
      f.seek(1, os.SEEK_CUR)
      while (length := f.read(1)) not in (b"", b"\0"):
        f.seek(length[0], os.SEEK_CUR)


def _palette(flags: bytes) -> int:
  """Computes the bytes of the color table that these flags announce."""
  return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _film(path: str) -> _Frames:
  av = _pyav()
  try:
    # A playlist under a video's name could ask for other hosts.
    options = {"protocol_whitelist": "file"}
    with av.open(os.path.abspath(path), options=options) as container:
      stream = _film_stream(container)
      _check_whole(path, stream)
      for i, frame in enumerate(container.decode(stream)):
        if frame.is_corrupt:
          raise BadVideo(f"frame {i} is damaged")
        yield functools.partial(_picture, frame)
  except (av.FFmpegError, OSError, ValueError) as e:
    raise BadVideo(str(e)) from None


def _film_stream(container):
  """Finds the first stream that is a film and no cover picture."""
  covers = _pyav().stream.Disposition
  covers = covers.attached_pic | covers.timed_thumbnails
  films = [s for s in container.streams.video if not s.disposition & covers]
  if not films:
    raise BadVideo("it holds no video stream")
  return films[0]


def _picture(frame) -> Image.Image:
  try:
    turn, picture = _turn(frame), frame.to_image()
  except (OSError, ValueError) as e:  # both of them PyAV's too
    raise BadVideo(str(e)) from None
  return picture if turn is None else picture.transpose(turn)


# The pixel at (x, y) is shown at (a x + c y, b x + d y) of the middle, where
# (a, b, c, d) are from the display matrix of FFmpeg (libavutil/display.h).
_TURNS = {
  (1, 0, 0, 1): None,
  (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
  (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
  (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
  (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
  (0, 1, -1, 0): Image.Transpose.ROTATE_270,
  (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
  (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


def _turn(frame) -> Image.Transpose | None:
  """Says how a frame has to be turned to be shown as it was filmed."""
  kind = _pyav().sidedata.sidedata.Type.DISPLAYMATRIX
  if (found := frame.side_data.get(kind)) is None:
    return None
  matrix = np.frombuffer(bytes(found), np.int32)[[0, 1, 3, 4]]
  scaled = matrix / max(1, np.abs(matrix).max())
  turn = tuple(np.round(scaled).astype(int).tolist())
  if turn not in _TURNS or np.abs(scaled - turn).max() > 0.02:
    raise BadVideo("it is to be shown turned by an angle that is no quarter")
  return _TURNS[turn]


def _pyav():
  """Imports PyAV, late, for most users have no videos."""
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
  """Reads where a Matroska file says that it ends; 0 if it doesn't say."""
  with open(path, "rb") as f:
    head = f.read(4096)
  at = head.find(_SEGMENT) + len(_SEGMENT)
  if not head.startswith(b"\x1aE\xdf\xa3") or at < len(_SEGMENT):
    return 0
  length = 9 - head[at].bit_length()  # leading zeros of the first byte
  unknown = (1 << 7 * length) - 1
  value = int.from_bytes(head[at : at + length], "big") & unknown
  return 0 if value == unknown else at + length + value

"""Finds the pictures that annotations name, below one folder and nowhere else.

Annotations often name a picture as it was called on somebody's machine, such as
C:\\data\\a.jpg, or without its suffix. What is below the folder is listed once,
and a name is looked up there, so that none can lead out of it.
"""

import collections
import ntpath
import os
from collections.abc import Iterator

from locvlm_jax.data.cache import sizes
from locvlm_jax.data.formats import annotated
from locvlm_jax.data.media import images

SUFFIXES = (
  ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif",
)  # fmt: skip


def is_picture(name: str) -> bool:
  """Says whether a file's name is that of a picture."""
  return name.lower().endswith(SUFFIXES)


def below(folder: str) -> Iterator[str]:
  """Yields the files below a folder, relative to it, in order.

  Links are followed, though no folder is entered twice. What is hidden is left
  out, and so is what Macs add to a zip.
  """
  seen = set()
  for root, folders, names in os.walk(folder, followlinks=True):
    folders[:] = sorted(f for f in folders if f[0] != "." and f != "__MACOSX")
    if (real := os.path.realpath(root)) in seen:
      folders.clear()
      continue
    seen.add(real)
    for name in sorted(n for n in names if n[0] != "."):
      yield os.path.relpath(os.path.join(root, name), folder)


class Pictures:
  """The pictures below a folder, found by path, by name or without suffix.

  Attributes:
    folder: of the pictures.
    files: their paths, relative to it.
  """

  def __init__(self, folder: str):
    self.folder = folder
    self.files = [name for name in below(folder) if is_picture(name)]
    self._known = set(self.files)
    self._by_name = collections.defaultdict(list)
    for file in self.files:
      name = os.path.basename(file)
      self._by_name[name].append(file)
      self._by_name[os.path.splitext(name)[0]].append(file)

  def find(self, name: object, origin: str, beside: str = "") -> str:
    """Finds the picture that annotations name, relative to the folder.

    Args:
      name: as the annotations have it.
      origin: their file and record.
      beside: the folder, relative to `folder`, that is looked in first.

    Raises:
      DataError: it is no name, or none or several pictures may be meant.
    """
    if not isinstance(name, str) or not name.strip():
      annotated.refuse(origin, f"picture {name!r:.50} is no name.")
    plain = name.strip().replace("\\", "/")
    for folder in (beside, ""):
      path = os.path.normpath(os.path.join(folder, plain))
      if path in self._known:
        return path
    base = ntpath.basename(plain)
    stem = os.path.splitext(base)[0]
    found = self._by_name.get(base) or self._by_name.get(stem, [])
    if len(found) != 1:
      several = " and ".join(found[:2]) or "none"
      annotated.refuse(
        origin,
        f"picture {name!r:.80}: of that name there is {several} below"
        f" {self.folder}. Set --config.data.images if they are elsewhere.",
      )
    return found[0]

  def size(self, file: str, origin: str) -> tuple[int, int]:
    """Reads width and height of a picture, as it is upright.

    Raises:
      DataError: it can't be read.
    """
    path = os.path.join(self.folder, file)
    if found := sizes.read(path):
      return found
    try:
      return images.read_size(path)
    except images.BadImage as e:
      annotated.refuse(origin, f"picture {file}: {e}.")

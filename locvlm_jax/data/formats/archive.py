"""Unpacks a zip of annotations and pictures, safely and once.

The folder beside it, NAME.zip.unpacked-DIGEST, is named by what is inside, so
that a changed zip is unpacked anew. It appears only when all is in it.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Sequence

from locvlm_jax import errors
from locvlm_jax.data.formats import annotated

_MOST_FILES = 2_000_000
_MOST_BYTES = 500 << 30
# Pictures hardly shrink and texts by ten times or so; a bomb by a thousand.
_MOST_RATIO = 100
_FREE = 64 << 20  # bytes that are too few to care for a ratio


def is_archive(path: str) -> bool:
  """Says whether a path is that of a zip."""
  return path.lower().endswith(".zip")


def unpacked(path: str) -> str:
  """Unpacks a zip, if that was not done before.

  Returns:
    The folder; where a zip holds but one folder, that one.

  Raises:
    DataError: the file is missing, damaged or too large, is locked by a
      password, or has a name that leads out of the folder; names the member.
  """
  try:
    with zipfile.ZipFile(path) as file:
      members = _checked(file.infolist(), path)
      folder = f"{path}.unpacked-{_digest(members)}"
      if not os.path.isdir(folder):
        _extract(file, members, folder, path)
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
    raise errors.DataError(
      f"{path}: not a zip that can be read ({e}). Copy it again."
    ) from None
  return _only_folder(folder)


def _checked(
  members: Sequence[zipfile.ZipInfo], path: str
) -> list[zipfile.ZipInfo]:
  """Refuses what must not be unpacked, before anything is."""
  if len(members) > _MOST_FILES:
    annotated.refuse(path, f"{len(members):,} files are too many.")
  names = set()
  for member in members:
    _check(member, f"{path}: {member.filename!r:.80}")
    if member.filename in names:
      annotated.refuse(path, f"{member.filename!r:.80} is there twice.")
    names.add(member.filename)
  total = sum(m.file_size for m in members)
  packed = sum(m.compress_size for m in members)
  if total > _MOST_BYTES or total > max(_FREE, _MOST_RATIO * packed):
    annotated.refuse(
      path, f"{packed:,} bytes would become {total:,}; unpack it yourself."
    )
  return [m for m in members if not m.is_dir()]


def _check(member: zipfile.ZipInfo, origin: str) -> None:
  name = member.filename
  parts = name.replace("\\", "/").split("/")
  if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
    annotated.refuse(origin, "leads out of the folder.")
  if stat.S_ISLNK(member.external_attr >> 16):
    annotated.refuse(origin, "is a link.")
  if member.flag_bits & 1:
    annotated.refuse(origin, "is locked by a password.")


def _digest(members: Sequence[zipfile.ZipInfo]) -> str:
  listing = [(m.filename, m.CRC, m.file_size) for m in members]
  return hashlib.sha256(repr(listing).encode()).hexdigest()[:12]


def _extract(file: zipfile.ZipFile, members, folder: str, path: str) -> None:
  """Unpacks into a folder of another name, and renames it."""
  partial = f"{folder}.{uuid.uuid4().hex}.partial"
  room = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
  if (total := sum(m.file_size for m in members)) > room:
    annotated.refuse(
      path, f"it needs {total:,} bytes of {room:,} that are free."
    )
  try:
    file.extractall(partial, members)
    with contextlib.suppress(OSError):  # another process was faster
      os.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _only_folder(folder: str) -> str:
  names = [n for n in os.listdir(folder) if n not in ("__MACOSX", ".DS_Store")]
  below = os.path.join(folder, names[0]) if len(names) == 1 else ""
  return below if os.path.isdir(below) else folder

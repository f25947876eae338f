"""Finds files of the same content under other names."""

import collections
import concurrent.futures
import functools
import hashlib
import os
from collections.abc import Iterable, Sequence

_THREADS = 16  # that wait for a disk or a network


class Contents:
  """The contents of some files, by which a copy of one is known.

  Few files are read: only those of which the size is that of another one.

  Args:
    paths: of the files; those that are not there are left out.
  """

  def __init__(self, paths: Iterable[str]):
    paths = list(dict.fromkeys(paths))
    self._by_size = collections.defaultdict(list)
    for path, size in zip(paths, _sizes(paths), strict=True):
      if size:
        self._by_size[size].append(path)

  def __len__(self) -> int:
    return sum(map(len, self._by_size.values()))

  def find(self, paths: Sequence[str]) -> list[str | None]:
    """Finds for each path the file that has the same content, if any."""
    return [
      self._same(path, size)
      for path, size in zip(paths, _sizes(paths), strict=True)
    ]

  def _same(self, path: str, size: int) -> str | None:
    others = self._by_size.get(size, ())
    if not others:
      return None
    digest = _digest(path)
    return next((other for other in others if _digest(other) == digest), None)


def _sizes(paths: Sequence[str]) -> list[int]:
  """Tells the bytes of each file; 0 where there is none."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(_size, paths, chunksize=256))


def _size(path: str) -> int:
  try:
    return os.path.getsize(path) if os.path.isfile(path) else 0
  except OSError:
    return 0


@functools.cache
def _digest(path: str) -> str:
  """Hashes a file; one that can't be read is like none."""
  try:
    with open(path, "rb") as f:
      return hashlib.file_digest(f, "sha256").hexdigest()
  except OSError:
    return path

"""Keeps the sizes of images that are read from their headers.

They lie in one table in the user's cache (see `entries`), for other processes
and later starts: to open a million images again takes hours on some storage.
A size counts for as long as the file has the length and the time that it had.
"""

import functools
import logging
import os
import sqlite3
import threading

from locvlm_jax.data.cache import entries
from locvlm_jax.data.media import images

_PATIENCE = 10.0  # seconds to wait for other processes that write
_MAKE = """create table if not exists sizes
  (path text primary key, bytes int, modified int, width int, height int)"""
_FIND = "select width, height from sizes where (path, bytes, modified)=(?,?,?)"
_KEEP = "insert or replace into sizes values (?, ?, ?, ?, ?)"


@functools.lru_cache(maxsize=1 << 20)
def read(path: str) -> tuple[int, int] | None:
  """Tells the width and height of an image in its upright frame.

  Returns:
    They, in pixels; None: the image is broken or missing.
  """
  table, now = _table(entries.root()), _identity(path)
  if now and (size := table.find(*now)):
    return size
  try:
    size = images.read_size(path)
  except images.BadImage:
    return None
  if now:
    table.keep(*now, *size)
  return size


def _identity(path: str) -> tuple[str, int, int] | None:
  """Tells path, length and time of a file; None: it is no file of its own."""
  try:
    found = os.stat(path)
  except (OSError, ValueError):  # such as a picture within a record file
    return None
  return os.path.abspath(path), found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=1)
def _table(folder: str) -> "_Table":
  return _Table(folder)


class _Table:
  """The sizes on disk; where there is no room for them they are not kept."""

  def __init__(self, folder: str):
    self._lock, self._connection = threading.Lock(), None
    try:
      os.makedirs(folder, exist_ok=True)
      self._connection = sqlite3.connect(
        os.path.join(folder, "image_sizes.sqlite"),
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
      )
      self._connection.execute("pragma synchronous = off")
      self._connection.execute(_MAKE)
    except (OSError, sqlite3.Error) as e:
      self._give_up(folder, e)

  def _give_up(self, folder: str, error: Exception) -> None:
    self._connection = None
    logging.warning(
      "%s: the sizes of images cannot be kept there (%s): every process reads"
      " them from the images again.",
      folder,
      error,
    )

  def find(self, *now: str | int) -> tuple[int, int] | None:
    """Finds the size of an image that is as it was."""
    found = self._ask(_FIND, now)
    return tuple(found[0]) if found else None

  def keep(self, *row: str | int) -> None:
    """Keeps the size of an image."""
    self._ask(_KEEP, row)

  def _ask(self, what: str, values: tuple) -> list:
    try:
      with self._lock:
        if self._connection is not None:
          return self._connection.execute(what, values).fetchall()
    except sqlite3.OperationalError:  # others write, for long
      pass
    except sqlite3.Error as e:
      self._give_up(entries.root(), e)
    return []

"""Keeps what is made of a large file, for other processes and later starts.

An entry is a folder below `locvlm_jax` in the user's cache (`XDG_CACHE_HOME`,
else `~/.cache`). Its name says what it depends on: the content of the file,
what made it, and the code of this package that reads data. Whatever changes,
another entry is made, so that none is ever out of date. Any of them may be
removed at any time.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

# Smaller files are read in less time than it takes to look for an entry.
LARGE = 16 << 20  # bytes
_CODE = ("data", "text")  # folders of the package whose code reads records


def root() -> str:
  """Names the folder of this package in the user's cache."""
  cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.path.join(cache, "locvlm_jax")


def find_or_make(
  path: str, maker: str, make: Callable[[str], None]
) -> str | None:
  """Finds the entry of a file, or makes it; one process for all of a machine.

  Args:
    path: of the file.
    maker: names what reads it, as two readers of one file keep different
      things.
    make: is given a folder to write the entry to.

  Returns:
    The folder of the entry; None: the file is small, or nothing can be
    written in the cache.
  """
  if not os.path.isfile(path) or os.path.getsize(path) < LARGE:
    return None
  folder = os.path.join(root(), f"{file_hash(path)}-{maker}-{_code_hash()}")
  if os.path.isdir(folder):
    return folder
  try:
    os.makedirs(root(), exist_ok=True)
    with _locked(f"{folder}.lock"):
      return folder if os.path.isdir(folder) else _made(folder, make)
  except OSError as e:
    logging.warning(
      "%s: cannot be kept in %s (%s): it is read again by every process and"
      " at every start. XDG_CACHE_HOME names another folder.",
      path,
      root(),
      e.strerror,
    )
    return None


def file_hash(path: str) -> str:
  """Hashes a file, once a process: the first 16 digits of a SHA-256."""
  found = os.stat(path)
  return _file_hash(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _file_hash(path: str, size: int, modified: int) -> str:
  del size, modified  # they tell when the file has changed
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()[:16]


def _made(folder: str, make: Callable[[str], None]) -> str:
  """Makes an entry, which has its name once it is whole."""
  partial = tempfile.mkdtemp(dir=root(), suffix=".partial")
  try:
    make(partial)
    if not os.path.isdir(folder):
      os.rename(partial, folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return folder


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
  """Waits for other processes that make the same entry.

  Where the storage knows no locks each of them makes it, and one is kept.
  """
  with open(path, "a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as e:
      if e.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        raise
    yield


@functools.cache
def _code_hash() -> str:
  """Hashes the code that reads records, and Python's version."""
  package = pathlib.Path(__file__).parents[2]
  code = hashlib.sha256(sys.version.encode())
  for name in _CODE:
    for path in sorted((package / name).rglob("*.py")):
      code.update(path.read_bytes())
  return code.hexdigest()[:16]

"""Writes files atomically: a kill leaves the old content or the new.

And tells why a file that others wrote can't be read.
"""

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import IO

from locvlm_jax import errors

_LFS_POINTER = b"version https://git-lfs"  # how one begins


@contextlib.contextmanager
def replacing(path: str, mode: str = "w") -> Iterator[IO]:
  """Opens a file that takes the place of `path` once it is written.

  Until the block ends, `path` stays as it was; where the block raises, it
  stays for good, and nothing is left beside it. Several processes may write
  the same path: the last one to finish wins.

  Args:
    path: what is replaced, or made.
    mode: "w" for text in UTF-8, "wb" for bytes.
  """
  partial = f"{path}.{uuid.uuid4().hex}.partial"
  encoding = None if "b" in mode else "utf-8"
  try:
    with open(partial, mode, encoding=encoding) as f:
      yield f
    os.replace(partial, path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      os.remove(partial)


def check_writable(folder: str, flag: str) -> None:
  """Makes a folder where there is none, and writes and removes a file in it.

  Called before anything takes long, so that the answers of hours find a place.

  Args:
    folder: where something will be written.
    flag: of the command that can name another one, such as "--out".

  Raises:
    DataError: nothing can be written there; says why.
  """
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable") as file:
      file.write(b"0" * 4096)
  except OSError as e:
    raise errors.DataError(
      f"{folder}: nothing can be written there ({e.strerror}). Make room or"
      f" name another folder by {flag}."
    ) from None


def check_parent(path: str, flag: str) -> None:
  """Checks that the folder of a file that will be written is there.

  Args:
    path: of the file.
    flag: of the command that names it.

  Raises:
    DataError: it is not, or nothing can be written there.
  """
  folder = os.path.dirname(os.path.abspath(path))
  if not os.path.isdir(folder):
    raise errors.DataError(
      f"{path}: no such folder as {folder}. Make it first, or name another"
      f" file by {flag}."
    )
  check_writable(folder, flag)


def write_json(path: str, value: object) -> None:
  """Writes a value as json, its keys sorted, in lines that are indented."""
  with replacing(path) as f:
    json.dump(value, f, indent=2, sort_keys=True)


def write_lines(path: str, lines: Iterable[str]) -> None:
  """Writes lines, each of which brings its own line break."""
  with replacing(path) as f:
    f.writelines(lines)


def damaged(path: str | os.PathLike, reason: object) -> errors.DataError:
  """Makes the error of a file that is there and can't be parsed.

  A pointer of git-lfs in the place of the file is named as such: what a parser
  says of it helps nobody.

  Args:
    path: of the file.
    reason: what the parser said, or a sentence as in "is not a tokenizer".
  """
  with contextlib.suppress(OSError), open(path, "rb") as f:
    if f.read(len(_LFS_POINTER)) == _LFS_POINTER:
      reason = (
        "is a git-lfs pointer, not the file itself: run `git lfs pull` in the"
        " clone that it is from."
      )
  between = " " if str(reason).startswith("is ") else ": "
  return errors.DataError(f"{path}{between}{reason}")

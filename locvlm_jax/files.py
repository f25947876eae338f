"""Writes files atomically: a kill leaves the old content or the new."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import IO


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


def write_json(path: str, value: object) -> None:
  """Writes a value as json, its keys sorted, in lines that are indented."""
  with replacing(path) as f:
    json.dump(value, f, indent=2, sort_keys=True)


def write_lines(path: str, lines: Iterable[str]) -> None:
  """Writes lines, each of which brings its own line break."""
  with replacing(path) as f:
    f.writelines(lines)

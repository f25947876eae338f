"""Writes files atomically: a kill leaves the old content or the new."""

import json
import os
from collections.abc import Iterable


def write_json(path: str, value: object) -> None:
  """Writes atomically, sorted and indented."""
  with open(path + ".tmp", "w", encoding="utf-8") as f:
    json.dump(value, f, indent=2, sort_keys=True)
  os.replace(path + ".tmp", path)


def write_lines(path: str, lines: Iterable[str]) -> None:
  """Replaces a file at once: a kill leaves the old lines or the new ones."""
  with open(path + ".tmp", "w", encoding="utf-8") as f:
    f.writelines(lines)
  os.replace(path + ".tmp", path)

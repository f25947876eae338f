"""Reads other people's json, jsonl and pickle files, and checks what they say.

Every error names the file and the record.
"""

import json
import os
import pickle
from collections.abc import Iterable

from locvlm_jax import errors


def read_json(path: str) -> object:
  """The parsed file; DataError names the file and what is wrong with it."""
  try:
    with open(path, encoding="utf-8") as f:
      return json.load(f)
  except OSError as e:
    raise _unreadable(path, e) from None
  except (ValueError, RecursionError) as e:  # also a number of 5,000 digits
    raise errors.DataError(f"{path}: not valid json ({e}).") from None


def _unreadable(path: str, error: OSError) -> errors.DataError:
  what = "no such file" if isinstance(error, FileNotFoundError) else error
  return errors.DataError(f"{path}: {what}. Check the config's data paths.")


def read_jsonl(path: str) -> list:
  """The records of a file with one a line; DataError names a bad line."""
  rows = []
  try:
    with open(path, encoding="utf-8") as f:
      for line in f:
        rows.append(json.loads(line))
  except OSError as e:
    raise _unreadable(path, e) from None
  except (ValueError, RecursionError) as e:
    raise errors.DataError(
      f"{path}: line {len(rows) + 1}: not json ({e})."
    ) from None
  return rows


class _Plain(pickle.Unpickler):
  """Lists, dicts, strings and numbers; whatever needs a name is refused."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(
      f"it asks for {module}.{name}; only lists, dicts, strings and numbers"
      " are read from a pickle"
    )


def read_pickle(path: str) -> object:
  """The content of a pickle that holds nothing but plain values."""
  try:
    with open(path, "rb") as f:  # written by Python 2: its strings are bytes
      return _Plain(f, encoding="utf-8", errors="replace").load()
  except OSError as e:
    raise _unreadable(path, e) from None
  except Exception as e:  # a broken pickle can raise anything
    raise errors.DataError(f"{path}: not a plain pickle ({e}).") from None


def image_path(directory: str, file_name: object, origin: str) -> str:
  """`directory/file_name`, refused when it leads out of `directory`."""
  root = os.path.realpath(directory)
  if not isinstance(file_name, str) or not file_name:
    raise errors.DataError(f"{origin}: file name {file_name!r} is no name.")
  try:
    path = os.path.realpath(os.path.join(root, file_name))
  except ValueError as e:  # an embedded NUL
    raise errors.DataError(f"{origin}: file name {file_name!r}: {e}.") from None
  if os.path.commonpath([root, path]) != root:
    raise errors.DataError(
      f"{origin}: file name {file_name!r} leads outside {directory}."
    )
  return path


def check_names(rows: Iterable[object], directory: str, what: str) -> None:
  """That no file name of `rows` leads out of `directory`, at a glance.

  Links are not followed here: `image_path` does, before a file is opened.

  Args:
    rows: records with a "file_name".
    directory: that the names are relative to.
    what: file and kind of the records, for the message.

  Raises:
    DataError: a name is missing, is no text, or leads outside.
  """
  for i, row in enumerate(rows):
    if not is_plain(row.get("file_name")):
      origin = f"{what} {row.get('id', i)}"
      image_path(directory, field(row, "file_name", origin), origin)


def is_plain(name: object) -> bool:
  """Whether a file name stays below its folder, but for links in there."""
  if type(name) is not str or not name or "\0" in name:
    return False
  return os.path.normpath(name)[0] not in "./"


def check_directory(directory: str, field: str = "images") -> None:
  """That it is there; `field` of `config.data` names it."""
  if not os.path.isdir(directory):
    raise errors.DataError(
      f"{directory}: no such {field} directory. Set --config.data.{field}."
    )


def field(row: object, key: str, origin: str):
  """row[key]; DataError says where it is missing."""
  try:
    return row[key]
  except (KeyError, TypeError):
    raise errors.DataError(f"{origin}: field {key!r} is missing.") from None


def integer(row: object, key: str, origin: str) -> int:
  """row[key], which has to be an integer: "42" and 42.0 are none."""
  value = field(row, key, origin)
  if type(value) is not int:
    raise errors.DataError(f"{origin}: {key} {value!r} is not an integer.")
  return value


def words(row: object, key: str, origin: str) -> str:
  """row[key], which has to be a text of some words."""
  value = field(row, key, origin)
  if not isinstance(value, str) or not value.strip():
    raise errors.DataError(f"{origin}: {key} {value!r} is no text.")
  return value


def section(content: object, key: str, path: str) -> list[dict]:
  """The list of objects that the file keeps under `key`."""
  rows = field(content, key, path)
  if not isinstance(rows, list):
    raise errors.DataError(f"{path}: {key!r} is not a list.")
  for i, row in enumerate(rows):
    if not isinstance(row, dict):
      raise errors.DataError(f"{path}: {key} {i}: {row!r:.50} is no object.")
  return rows


def by_id(rows: list[dict], what: str, path: str) -> dict[int, dict]:
  """Rows by their ids; DataError where one is missing or comes twice."""
  found = {}
  for i, row in enumerate(rows):
    number = integer(row, "id", f"{path}: {what} {i}")
    if number in found:
      raise errors.DataError(
        f"{path}: two of {what} have the same id {number}."
      )
    found[number] = row
  return found

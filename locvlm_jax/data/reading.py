"""Reads other people's json, jsonl, csv and pickle files, and checks them.

Every error is a `DataError` that names the file, the record and what is wrong
with it. `origin` is always the first part of such a message, as in
"instances.json: image 42".
"""

import csv
import gc
import gzip
import json
import logging
import os
import pickle
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from locvlm_jax import errors, files
from locvlm_jax.text import surrogates


def read_json(path: str) -> object:
  """Parses a json file, which gzip may have compressed (".gz").

  Half of a surrogate pair in a text becomes U+FFFD, and is told.

  Raises:
    DataError: the file is missing, or is not valid json.
  """
  source = read_text(path)
  try:
    value, repaired = parse(source)
  except (ValueError, RecursionError) as e:  # also a number of 5,000 digits
    raise files.damaged(path, f"not valid json ({e}).") from None
  _tell(path, repaired)
  return value


def read_jsonl(path: str) -> list:
  """Parses a file that has one json value a line; see `read_json`.

  Raises:
    DataError: the file is missing, or a line is not json; names the line.
  """
  rows, repaired = [], 0
  source = read_text(path).removesuffix("\n")
  for line in source.split("\n") if source else ():
    try:
      row, number = parse(line)
    except (ValueError, RecursionError) as e:
      line = f"line {len(rows) + 1}: not json ({e})."
      raise files.damaged(path, line) from None
    rows.append(row)
    repaired += number
  _tell(path, repaired)
  return rows


def each(path: str, what: str, key: str = "") -> Iterator[Any]:
  """Yields the values of a json list, or of jsonl, one after the other.

  Of a list only the file's text and the value at hand are in memory.

  Args:
    path: of the file.
    what: the values, for a message.
    key: under which an object may keep the list; "": it may not.

  Raises:
    DataError: as `read_json` and `read_jsonl`; or there is no list.
  """
  if path.removesuffix(".gz").endswith(".jsonl"):
    yield from read_jsonl(path)
    return
  source, repaired, end = read_text(path), 0, 0
  if not (begin := _LIST.match(source)):
    yield from _listed(read_json(path), path, what, key)
    return
  try:
    while begin:
      value, end = _ELEMENTS.raw_decode(source, begin.end())
      if surrogates.may_be_in(source, begin.end(), end):
        value, number = surrogates.replaced(value)
        repaired += number
      yield value
      begin = _COMMA.match(source, end)
  except (ValueError, RecursionError) as e:
    raise files.damaged(path, f"not valid json ({e}).") from None
  if not _END.match(source, end):
    read_json(path)  # says what is wrong there
  _tell(path, repaired)


def _listed(value: object, path: str, what: str, key: str) -> list:
  """Returns a list, or the one that an object keeps under `key`."""
  if key and isinstance(value, dict):
    return section(value, key, path)
  if not isinstance(value, list):
    raise errors.DataError(f"{path}: not a list of {what}.")
  return value


_LIST = re.compile(r"\s*\[\s*(?!\])")  # of one value at least
_COMMA, _END = re.compile(r"\s*,\s*"), re.compile(r"\s*\]\s*\Z")
_ELEMENTS = json.JSONDecoder()


def read_table(path: str, delimiter: str) -> list[dict[str, str]]:
  """Reads a file of lines whose fields a delimiter separates.

  The first line names the columns.

  Raises:
    DataError: the file is missing or no such table, or a line has more or
      fewer fields than the first one; names the line.
  """
  lines = csv.reader(read_text(path).splitlines(True), delimiter=delimiter)
  try:
    names = next(lines, [])
    rows = [(lines.line_num, line) for line in lines if line]
  except csv.Error as e:
    raise errors.DataError(f"{path}: line {lines.line_num}: {e}.") from None
  for number, line in rows:
    if len(line) != len(names):
      raise errors.DataError(
        f"{path}: line {number}: {len(line)} fields, the first line has"
        f" {len(names)}."
      )
  return [dict(zip(names, line, strict=True)) for _, line in rows]


def read_text(path: str) -> str:
  """Reads a file of UTF-8, which gzip may have compressed (".gz").

  Raises:
    DataError: the file is missing or damaged, or is not UTF-8.
  """
  opened = gzip.open if path.endswith(".gz") else open
  try:  # some programs begin a file with a mark of its byte order
    with opened(path, "rt", encoding="utf-8-sig", newline="") as f:
      return f.read()
  except UnicodeDecodeError as e:
    raise files.damaged(path, f"not valid json or text ({e}).") from None
  except (OSError, EOFError, ValueError, zlib.error) as e:
    raise _unreadable(path, e) from None


def parse(source: str) -> tuple[Any, int]:
  """Parses json; other threads run meanwhile, as a large file takes long.

  The parser itself would not let them. To collect garbage among objects that
  are all in use would double the time.

  Returns:
    (the value, how many of its texts had half of a surrogate pair).
  """
  collects = gc.isenabled()
  gc.disable()
  try:
    value = _DECODER.decode(source)
  finally:
    if collects:
      gc.enable()
  return (
    surrogates.replaced(value) if surrogates.may_be_in(source) else (value, 0)
  )


def _unchanged(row: dict) -> dict:
  """Returns a row: the interpreter changes threads where it calls Python."""
  return row


_DECODER = json.JSONDecoder(object_hook=_unchanged)


def _tell(path: str, repaired: int) -> None:
  """Tells how many texts were cut within a character."""
  if repaired:
    logging.warning(
      "%s: %d texts have half of a surrogate pair, an emoji that was cut in"
      " two; U+FFFD takes its place.",
      path,
      repaired,
    )


def read_pickle(path: str) -> object:
  """Reads a pickle that holds nothing but lists, dicts, text and numbers.

  Raises:
    DataError: the file is missing or damaged, or holds anything else; nothing
      that it names is imported or run.
  """
  try:
    with open(path, "rb") as f:  # written by Python 2: its strings are bytes
      value = _PlainUnpickler(f, encoding="utf-8", errors="replace").load()
      return surrogates.replaced(value)[0]
  except OSError as e:
    raise _unreadable(path, e) from None
  except Exception as e:  # a broken pickle can raise anything
    raise files.damaged(path, f"not a plain pickle ({e}).") from None


class _PlainUnpickler(pickle.Unpickler):
  """Refuses every class and function, which a pickle has to ask for by name."""

  def find_class(self, module, name):
    raise pickle.UnpicklingError(
      f"it asks for {module}.{name}; only lists, dicts, strings and numbers"
      " are read from a pickle"
    )


def _unreadable(path: str, error: Exception) -> errors.DataError:
  what = "no such file" if isinstance(error, FileNotFoundError) else error
  return errors.DataError(f"{path}: {what}. Check the config's data paths.")


# ---------------------------------------------------------- folders and names


def check_directory(directory: str, field: str = "images") -> None:
  """Checks that a folder exists; `field` of `config.data` names it.

  Raises:
    DataError: it does not.
  """
  if not os.path.isdir(directory):
    raise errors.DataError(
      f"{directory}: no such {field} directory. Set --config.data.{field}."
    )


def image_path(directory: str, file_name: object, origin: str) -> str:
  """Joins a folder and a file name that has to stay below it.

  Where links in the folder lead is the user's own affair: data sets are often
  staged by them.

  Returns:
    The absolute path.

  Raises:
    DataError: it is no name, or leads out of the folder.
  """
  root = os.path.abspath(directory)
  if not isinstance(file_name, str) or not file_name:
    raise errors.DataError(f"{origin}: file name {file_name!r} is no name.")
  path = os.path.normpath(os.path.join(root, file_name))
  if "\0" in path or not path.startswith(os.path.join(root, "")):
    raise errors.DataError(
      f"{origin}: file name {file_name!r} leads outside {directory}."
    )
  return path


def check_file_names(rows: Iterable[object], directory: str, what: str) -> None:
  """Checks that no file name of `rows` leads out of `directory`.

  Args:
    rows: records with a "file_name".
    directory: that the names are relative to.
    what: file and kind of the records, for the message.

  Raises:
    DataError: a name is missing, is no text, or leads outside.
  """
  for i, row in enumerate(rows):
    if not stays_inside(row.get("file_name")):
      origin = f"{what} {row.get('id', i)}"
      image_path(directory, field(row, "file_name", origin), origin)


def stays_inside(name: object) -> bool:
  """Says whether a relative file name stays below its folder, links aside."""
  if type(name) is not str or not name or "\0" in name:
    return False
  first = os.path.normpath(name).split(os.sep)[0]
  return first not in ("", ".", "..")


# --------------------------------------------------------- fields of a record


def field(row: object, key: str, origin: str) -> Any:
  """Reads row[key].

  Raises:
    DataError: it is missing.
  """
  try:
    return row[key]
  except (KeyError, TypeError):
    raise errors.DataError(f"{origin}: field {key!r} is missing.") from None


def integer(row: object, key: str, origin: str) -> int:
  """Reads row[key], which has to be an integer: "42" and 42.0 are none.

  Raises:
    DataError: it is missing, or of another type.
  """
  value = field(row, key, origin)
  if type(value) is not int:
    raise errors.DataError(f"{origin}: {key} {value!r} is not an integer.")
  return value


def text(row: object, key: str, origin: str) -> str:
  """Reads row[key], which has to be a text that is not blank.

  Raises:
    DataError: it is missing, of another type or blank.
  """
  value = field(row, key, origin)
  if not isinstance(value, str) or not value.strip():
    raise errors.DataError(f"{origin}: {key} {value!r} is no text.")
  return value


def word(row: object, key: str, origin: str) -> str:
  """Reads row[key], a text or a number, as text.

  Raises:
    DataError: it is missing, or of another type.
  """
  value = field(row, key, origin)
  if type(value) not in (str, int, float):
    raise errors.DataError(
      f"{origin}: {key} {value!r:.50} is neither text nor a number."
    )
  return str(value)


def size(row: object, origin: str) -> tuple[int, int]:
  """Reads the width and height of an image or video, in pixels.

  Raises:
    DataError: one is missing, is no integer, or is below 1.
  """
  found = integer(row, "width", origin), integer(row, "height", origin)
  if min(found) < 1:
    raise errors.DataError(f"{origin}: size {found} is not positive.")
  return found


# ------------------------------------------------------------ lists of records


def section(content: object, key: str, path: str) -> list[dict]:
  """Reads the list of json objects that a file keeps under `key`.

  Raises:
    DataError: there is no such list, or something else is in it.
  """
  rows = field(content, key, path)
  if not isinstance(rows, list):
    raise errors.DataError(f"{path}: {key!r} is not a list.")
  for i, row in enumerate(rows):
    if not isinstance(row, dict):
      raise errors.DataError(f"{path}: {key} {i}: {row!r:.50} is no object.")
  return rows


def by_id(rows: list[dict], what: str, path: str) -> dict[int, dict]:
  """Indexes records by their "id".

  Raises:
    DataError: an id is missing, is no integer, or comes twice.
  """
  found = {}
  for i, row in enumerate(rows):
    number = integer(row, "id", f"{path}: {what} {i}")
    if number in found:
      raise errors.DataError(
        f"{path}: two of {what} have the same id {number}."
      )
    found[number] = row
  return found


def category_names(content: object, path: str) -> dict[int, str]:
  """Reads {id: name} of the "categories" of a file in COCO's format.

  Raises:
    DataError: a category has no id or name, or the id of another one.
  """
  rows = by_id(section(content, "categories", path), "categories", path)
  return {
    i: text(row, "name", f"{path}: category {i}") for i, row in rows.items()
  }

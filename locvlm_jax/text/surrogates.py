r"""Halves of surrogate pairs in json, which are no text.

Json may escape a character outside of Unicode's basic plane as two \u escapes,
a surrogate pair. Where a program has cut a text between them, half of one is
left: valid json, and yet no tokenizer takes it and no file can hold it.

  "a cup \ud83d\ude00"    a cup and an emoji
  "a cup \ud83d"          a cup and half of one; U+FFFD takes its place
"""

import re
import sys
from typing import Any

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F]"
# Finds escapes in the file's text that have no other half; it may also find
# some that are none, such as an escaped backslash before "ud83d".
_ESCAPED = re.compile(
  rf"{_HIGH}(?!{_LOW})|(?<!\\u[dD][89abAB][0-9a-fA-F]{{2}}){_LOW}"
)
_HALF = re.compile("[\ud800-\udfff]")


def may_be_in(source: str, begin: int = 0, end: int = sys.maxsize) -> bool:
  """Says whether the json in source[begin:end] can have such halves."""
  # A text is found much sooner than a pattern, and most files have none.
  starts = (source.find(start, begin, end) for start in ("\\ud", "\\uD"))
  first = min((at for at in starts if at >= 0), default=None)
  return first is not None and bool(_ESCAPED.search(source, first, end))


def replaced(value: Any) -> tuple[Any, int]:
  """Replaces the halves in all texts of a value, also in its keys.

  Args:
    value: what json can hold.

  Returns:
    (the value with U+FFFD in their places, how many texts had some).
  """
  if isinstance(value, str):
    text, number = _HALF.subn("\N{REPLACEMENT CHARACTER}", value)
    return text, bool(number)
  if isinstance(value, list):
    parts = [replaced(part) for part in value]
    return [part for part, _ in parts], sum(n for _, n in parts)
  if isinstance(value, dict):
    keys, values = (replaced(list(part)) for part in (value, value.values()))
    found = dict(zip(keys[0], values[0], strict=True))
    return found, keys[1] + values[1]
  return value, 0

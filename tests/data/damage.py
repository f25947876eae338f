"""Damages the structure of json: fields that are missing, or of another type.

`damaged(value)` draws one to three changes, each at a place of its own: a field
or an item is left out, renamed, doubled, or is something else.
"""

import copy
import json

from hypothesis import strategies as st

# What programs and people put in the place of something else.
_ODD = st.one_of(
  st.sampled_from(
    [None, True, False, 0, -1, 1, 0.5, 10**30, float("nan"), float("inf"), "",
     " ", "x", "42", "../x", "/x", "\0", "<image>", "\ud83d", [], {}, [None],
     [[]], {"": None}, ["x"], [0, 0, 1, 1]]
  ),
  st.integers(),
  st.floats(),
  st.text(max_size=5),
)  # fmt: skip
_CHANGES = ("other", "left out", "doubled", "renamed", "in a list")


@st.composite
def damaged(draw, value):
  """Draws a damaged copy of `value`."""
  value = copy.deepcopy(value)
  for _ in range(draw(st.integers(1, 3))):
    value = _changed(draw, value)
  return value


def _changed(draw, value):
  """Changes one place of `value`, which is at any depth."""
  keys = list(value) if isinstance(value, dict) else []
  places = keys or (range(len(value)) if isinstance(value, list) else ())
  if not places or draw(st.integers(0, 9)) == 0:
    return copy.deepcopy(draw(_ODD))
  place = draw(st.sampled_from(list(places)))
  if draw(st.integers(0, 2)):
    value[place] = _changed(draw, value[place])
    return value
  return _at(value, place, draw(st.sampled_from(_CHANGES)), draw)


def _at(value, place, change: str, draw):
  if change == "other":
    value[place] = copy.deepcopy(draw(_ODD))
  elif change == "in a list":
    value[place] = [value[place]]
  elif change == "left out":
    del value[place]
  elif isinstance(value, list):
    value.append(copy.deepcopy(value[place]))
  else:
    value[draw(st.text(max_size=3))] = value.pop(place)
  return value


def text(value, as_lines: bool) -> str:
  """Writes a value as json, or each of its items in a line."""
  if as_lines and isinstance(value, list):
    return "".join(json.dumps(row) + "\n" for row in value)
  return json.dumps(value)

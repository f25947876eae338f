"""Boxes and points as plain text, and back (paper section 3.2).

A location is written in one of three forms, without spaces, as in the paper's
figure 1. The box (0.30, 0.40, 0.55, 0.80), in fractions of the square that the
model sees, reads

  nfp   [0.3000,0.4000,0.5500,0.8000]   normalized floating point, 4 decimals
  ivb   [28,38,52,76]                   integer bin of 96 along each side
  diga  [35:-14,-16,10,22]              anchor 35 of 64, then deviations in bins

and as a point, which is the box's center,

  nfp   [0.4250,0.6000]
  ivb   [40,57]
  diga  [35:-2,3]

The paper leaves the text of `diga` to its appendix; this one is ours. The
anchors are the cells of a grid, counted along the rows:

   0  1  2 ..  7      the anchor is the cell that holds the center; its own
   8  9 10 .. 15      center, here (3.5, 4.5) / 8, lies in bins 42 and 54; a
  16 17 18 .. 23      deviation is a coordinate's bin minus that bin, so diga
                      is exactly as precise as ivb
"""

import dataclasses
import math
import re
from typing import NamedTuple

# LLaVA-1.5 writes fractions of the padded square with two decimals at most, as
# in [0.3, 0.4, 0.55, 0.8]: for questions to it (haotian-liu/LLaVA issue 606).
LLAVA15 = "llava15"
FORMS = ("nfp", "ivb", "diga")
LOCATIONS = ("box", "point")

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

# A bracket that holds numbers and nothing else, and the same left open at the
# end of the text (an answer that was cut short).
_NUMBERS = r"[\[(]([0-9+\-.,:;\s]+)"
_CLOSED = re.compile(_NUMBERS + r"[\])]")
_OPEN = re.compile(_NUMBERS + r"\Z")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")  # int() refuses endless digits


class Parsed(NamedTuple):
  """What `Coords.parse` found: a value, or the reason why there is none."""

  value: tuple[float, ...] | None
  error: str = ""


class Placed(NamedTuple):
  """What `Coords.parse_all` found: a location, or why it is none, and where.

  Attributes:
    value: as of `Parsed`.
    error: likewise.
    start: of its bracket in the text.
    end: behind its bracket.
  """

  value: tuple[float, ...] | None
  error: str
  start: int
  end: int


class _Unreadable(Exception):
  """Why a text isn't a location; never leaves this module."""


@dataclasses.dataclass(frozen=True)
class Coords:
  """One way to write locations.

  >>> Coords("ivb", 96, "box").encode((0.30, 0.40, 0.55, 0.80))
  '[28,38,52,76]'
  >>> Coords("ivb", 96, "point").parse("It is at [40, 57].").value
  (0.421875, 0.5989583333333334)

  Attributes:
    form: "nfp", "ivb" or "diga", or LLAVA15.
    num_bins: n_b, the bins along each side of the image, for ivb and diga
      (paper: 224 for LocVLM-B, 336 for LocVLM-L).
    location: "box" or "point", what `encode` writes and `parse` expects.
    grid: anchors along each side for diga; n_a = grid * grid.
    fixed_width: ivb writes leading zeros, so that every number has as many
      digits and each digit a place: [028,038,052,076] of 224 bins. Numbers
      without them are read all the same.

  Raises:
    ValueError: an unknown form or location, no bins, or a fixed width of
      another form than ivb.
  """

  form: str = "ivb"
  num_bins: int = 224
  location: str = "box"
  grid: int = 8
  fixed_width: bool = False

  def __post_init__(self):
    for name, value, allowed in (
      ("form", self.form, (*FORMS, LLAVA15)),
      ("location", self.location, LOCATIONS),
    ):
      if value not in allowed:
        raise ValueError(
          f"coords {name} {value!r} is unknown; choose one of {allowed}"
        )
    if self.grid < 1 or self.num_bins < self.grid:
      raise ValueError(
        f"coords num_bins {self.num_bins} and grid {self.grid}: give at least"
        " one anchor a side and no more anchors than bins"
      )

    if self.fixed_width and self.form != "ivb":
      raise ValueError(
        f"coords fixed_width with form {self.form!r}: only ivb has it"
      )

  def encode(self, box: Box) -> str:
    """Writes `box`, xyxy in [0, 1]; for points, its center.

    Raises:
      ValueError: a coordinate outside [0, 1], or x2 < x1, or y2 < y1.
    """
    x1, y1, x2, y2 = box
    _check(box)
    if x2 < x1 or y2 < y1:
      raise ValueError(f"box {box} has x2 < x1 or y2 < y1; order its corners")
    if self.location == "point":
      return self._write(((x1 + x2) / 2, (y1 + y2) / 2))
    return self._write(box)

  def encode_point(self, cx: float, cy: float) -> str:
    """Writes the point (cx, cy) in [0, 1], whatever `location` is.

    Raises:
      ValueError: a coordinate outside [0, 1].
    """
    _check((cx, cy))
    return self._write((cx, cy))

  def parse(self, text: str) -> Parsed:
    """Reads the first location in free text; never raises.

    Spaces and round brackets are accepted. A bracket with another count of
    numbers is passed over if a complete one follows. ivb and diga give the
    center of the bin, so encode(parse(encode(x)).value) == encode(x).

    Returns:
      xyxy (or cx, cy for points) in [0, 1], or None and the reason, such as
      "no location", "3 numbers, 4 wanted", "out of range: 97 > 95".
    """
    try:
      return Parsed(self._read(self._find(text)))
    except _Unreadable as e:
      return Parsed(None, str(e))

  def parse_all(self, text: str) -> list[Placed]:
    """Reads every location in free text; never raises.

    Each bracket of numbers is one, or says why it is none. A bracket that is
    left open at the end of the text is cut off, and counts as none.
    """
    found = []
    for match in (*_CLOSED.finditer(text), *_OPEN.finditer(text)):
      words = _split(match[1])
      if any(map(_has_digit, words)):
        closed = match.re is _CLOSED
        found.append(Placed(*self._parsed(words, closed), *match.span()))
    return found

  def numbers(self, text: str) -> tuple[float, ...]:
    """Returns the numbers of a location as `encode` wrote it.

    >>> Coords("diga", 96).numbers("[35:-14,-16,10,22]")
    (35.0, -14.0, -16.0, 10.0, 22.0)
    """
    return tuple(map(float, _split(text.strip("[]"))))

  def _parsed(self, words: list[str], closed: bool) -> Parsed:
    """Reads the numbers of one bracket."""
    try:
      if not closed:
        raise _Unreadable("bracket not closed")
      if len(words) != self._wanted:
        raise _Unreadable(f"{len(words)} numbers, {self._wanted} wanted")
      return Parsed(self._read(words))
    except _Unreadable as e:
      return Parsed(None, str(e))

  @property
  def _wanted(self) -> int:
    """How many numbers a location has."""
    return (2 if self.location == "point" else 4) + (self.form == "diga")

  def _write(self, values: tuple[float, ...]) -> str:
    if self.form == LLAVA15:
      return "[" + ", ".join(str(round(v, 2) + 0.0) for v in values) + "]"
    if self.form == "nfp":
      return "[" + ",".join(f"{v + 0.0:.4f}" for v in values) + "]"
    bins = [self._bin(v) for v in values]
    if self.form == "ivb":
      return "[" + ",".join(map(self.bin_text, bins)) + "]"
    anchor = self._anchor(bins)
    centers = self.anchor_bins(anchor) * (len(bins) // 2)
    deviations = [b - c for b, c in zip(bins, centers, strict=True)]
    return f"[{anchor}:" + ",".join(map(str, deviations)) + "]"

  def bin_text(self, number: int) -> str:
    """Writes the number of a bin."""
    width = len(str(self.num_bins - 1)) if self.fixed_width else 1
    return f"{number:0{width}}"

  def _bin(self, value: float) -> int:
    return min(int(value * self.num_bins), self.num_bins - 1)

  def _anchor(self, bins: list[int]) -> int:
    """Finds the grid cell that holds the center of a point or box of bins.

    From bins, not from the exact box, so that reading and writing a location
    again gives the same text. Integers only: no rounding at a cell's edge.
    """
    n = len(bins) // 2
    twice = (2 * sum(bins[i::2]) + n for i in (0, 1))  # center * 2n, in bins
    column, row = (t * self.grid // (2 * n * self.num_bins) for t in twice)
    return row * self.grid + column

  def anchor_bins(self, anchor: int) -> list[int]:
    """Computes the bins (x, y) of the center of one of diga's anchors."""
    row, column = divmod(anchor, self.grid)
    return [self._bin((i + 0.5) / self.grid) for i in (column, row)]

  def _find(self, text: str) -> list[str]:
    """Finds the numbers of the first bracket that could be a location."""
    groups = [_split(m.group(1)) for m in _CLOSED.finditer(text)]
    groups = [group for group in groups if any(map(_has_digit, group))]
    if not groups:
      cut = _OPEN.search(text)
      cut = cut and _has_digit(cut.group(1))
      raise _Unreadable("bracket not closed" if cut else "no location")
    complete = [group for group in groups if len(group) == self._wanted]
    if not complete:
      raise _Unreadable(f"{len(groups[0])} numbers, {self._wanted} wanted")
    return complete[0]

  def _read(self, words: list[str]) -> tuple[float, ...]:
    if self.form in ("nfp", LLAVA15):
      values = [_limited(_float(w), 1.0, w) for w in words]
      return _ordered(values)
    bins = [_integer(w) for w in words]
    if self.form == "diga":
      anchor = _limited(bins[0], self.grid**2 - 1, words[0])
      centers = self.anchor_bins(anchor) * (len(bins) // 2)
      bins = [b + c for b, c in zip(bins[1:], centers, strict=True)]
    bins = [_limited(b, self.num_bins - 1, str(b)) for b in bins]
    return _ordered([(b + 0.5) / self.num_bins for b in bins])


def _check(values: tuple[float, ...]) -> None:
  if not all(math.isfinite(v) and 0 <= v <= 1 for v in values):
    raise ValueError(
      f"location {tuple(values)} leaves [0, 1]; divide pixels by the size of"
      " the square and clip them (geometry.Transform.apply_box does both)"
    )


def _split(numbers: str) -> list[str]:
  return [word for word in re.split(r"[,:;\s]+", numbers) if word]


def _has_digit(word: str) -> bool:
  return any(c.isdigit() for c in word)


def _float(word: str) -> float:
  if not _FLOAT.fullmatch(word):
    raise _Unreadable(f"not a number: {word[:20]}")
  return float(word)


def _integer(word: str) -> int:
  if not _INTEGER.fullmatch(word):
    raise _Unreadable(f"not a bin: {word[:20]}")
  return int(word)


def _limited(value, top, word: str):
  if value < 0:
    raise _Unreadable(f"out of range: {word[:20]} < 0")
  if value > top:
    raise _Unreadable(f"out of range: {word[:20]} > {top:g}")
  return value


def _ordered(values: list[float]) -> tuple[float, ...]:
  for name, low, high in zip("xy", values[:2], values[2:], strict=False):
    if high < low:
      raise _Unreadable(f"{name}2 < {name}1")
  return tuple(values)

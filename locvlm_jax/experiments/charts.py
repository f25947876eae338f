"""Charts of arms: lines over a common axis, with the spread of their seeds."""

import dataclasses

from locvlm_jax.reports import curves

_LETTER = 7  # width of one in the legend
_TOP, _BOTTOM, _LEFT, _RIGHT = 34, 246, 44, 430


@dataclasses.dataclass(frozen=True)
class Value:
  """A point: mean, lowest and highest of the seeds."""

  x: float
  mean: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Line:
  """One arm.

  Attributes:
    label: in the legend.
    values: from left to right.
    color: number of its color, 0 to 7.
    dashed: beside the line that it explains.
  """

  label: str
  values: tuple[Value, ...]
  color: int
  dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
  """Percent over something.

  Attributes:
    title: what is drawn.
    x_label: what the horizontal axis is.
    lines: the arms.
    ticks: of the horizontal axis, (value, label).
    low: where the vertical axis, which ends at 100, begins.
    half: what 50 percent means; "": nothing.
  """

  title: str
  x_label: str
  lines: tuple[Line, ...]
  ticks: tuple[tuple[float, str], ...]
  low: float = 40.0
  half: str = "chance"

  left, right, top, bottom = _LEFT, _RIGHT, _TOP, _BOTTOM
  width, height = _RIGHT + 10, _BOTTOM + 44

  def x(self, value: float) -> float:
    """Returns the place of a value on the horizontal axis."""
    first, last = self.ticks[0][0], self.ticks[-1][0]
    share = (value - first) / ((last - first) or 1.0)
    return round(self.left + 8 + share * (self.right - self.left - 16), 1)

  def y(self, value: float) -> float:
    """Returns the place of a percentage on the vertical axis."""
    share = (max(value, self.low) - self.low) / (100.0 - self.low)
    return round(self.bottom - share * (self.bottom - self.top), 1)

  def points(self, line: Line) -> str:
    """Returns the line through the means, as `points` of a polyline."""
    return " ".join(f"{self.x(v.x)},{self.y(v.mean)}" for v in line.values)

  def spread(self, line: Line) -> str:
    """Returns the outline of what lies between lowest and highest."""
    lower = [f"{self.x(v.x)},{self.y(v.low)}" for v in line.values]
    upper = [f"{self.x(v.x)},{self.y(v.high)}" for v in line.values]
    return " ".join([*lower, *reversed(upper)])

  @property
  def rows(self) -> list[float]:
    """Lists the percentages that have a line across the chart."""
    return curves.round_numbers(self.low, 100.0, 5)

  @property
  def legend(self) -> list[tuple[int, Line]]:
    """Returns the lines that are drawn, each with its place below the chart."""
    found, x = [], self.left
    for line in self.lines:
      if line.values:
        found.append((x, line))
        x += 50 + _LETTER * len(line.label)
    return found

"""Medians of rounds that take turns, so that a noisy machine is fair."""

import statistics
from collections.abc import Callable, Mapping


def rounds(
  contestants: Mapping[str, Callable[[], float]], number: int
) -> dict[str, dict[str, float]]:
  """Rates of each contestant, called in turn `number` times.

  Args:
    contestants: name -> measures itself once and returns a rate.
    number: of rounds.

  Returns:
    By name: the median, lowest and highest rate.
  """
  rates = {name: [] for name in contestants}
  for _ in range(number):
    for name, measured in contestants.items():
      rates[name].append(measured())
  return {name: spread(r) for name, r in rates.items()}


def spread(values: list[float]) -> dict[str, float]:
  """The median, lowest and highest of `values`."""
  return {
    "median": statistics.median(values),
    "lowest": min(values),
    "highest": max(values),
  }

"""Means that say nothing where there is nothing to average."""

from collections.abc import Sequence


def mean(values: Sequence[float | bool]) -> float | None:
  """The mean, or None where there is nothing to average."""
  return sum(values) / len(values) if values else None


def known(metrics: dict[str, float | int | None]) -> dict[str, float]:
  """Without the metrics that no example speaks for: absent is not zero."""
  return {k: float(v) for k, v in metrics.items() if v is not None}

"""Notices steps that were skipped, and losses that jump."""

import collections
import math
import statistics
from collections.abc import Mapping
from typing import Any

from locvlm_jax import errors

_WINDOW = 50  # losses that a spike is compared with
_ENOUGH = 10  # losses without which nothing is called a spike


class Guard:
  """Judges every step by its scalars, which are alike on all hosts.

  Args:
    limits: `config.faults`.
  """

  def __init__(self, limits: Any):
    self._limits, self._skipped = limits, 0
    self._losses = collections.deque(maxlen=_WINDOW)

  def reason(self, scalars: Mapping[str, float]) -> str:
    """Says what is wrong with a step; "" if nothing is.

    Args:
      scalars: of the step; call it for each, in order.
    """
    if scalars["skipped"]:
      self._skipped += 1
      return "not finite"
    self._skipped = 0
    usual = statistics.median(self._losses) if self._losses else math.inf
    enough = len(self._losses) >= _ENOUGH
    self._losses.append(scalars["loss"])
    if enough and scalars["loss"] > self._limits.spike_factor * usual:
      return f"spike: the usual loss is {usual:.4f}"
    return ""

  def check(self, step: int) -> None:
    """Stops a run that skips one step after the other.

    Raises:
      NotFinite: `max_skipped` steps in a row.
    """
    if self._skipped >= self._limits.max_skipped:
      raise errors.NotFinite(
        f"step {step}: loss or gradient not finite {self._skipped} times in a "
        "row (faults.max_skipped). incidents.jsonl names the examples. Lower "
        "optim.lr, or resume from the last checkpoint without them."
      )

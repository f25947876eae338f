"""Which checkpoints of a run stay."""

import dataclasses
import math
from collections.abc import Mapping

from orbax.checkpoint import checkpoint_managers as policies


@dataclasses.dataclass(frozen=True)
class Retention:
  """Which checkpoints stay; what no rule keeps is deleted.

  Attributes:
    latest: how many of the newest.
    best: how many of the best by `metric`.
    metric: a scalar that `save` is given; less is better, or more if its
      name begins with "-", as in "-accuracy".
    pinned: steps that are never deleted.
  """

  latest: int = 2
  best: int = 0
  metric: str = "loss"
  pinned: tuple[int, ...] = ()

  def policy(self) -> policies.AnyPreservationPolicy:
    """Returns the same rules for Orbax."""
    rules = [policies.LatestN(self.latest), policies.CustomSteps(self.pinned)]
    if self.best:
      rules.append(
        policies.BestN(
          get_metric_fn=self.goodness,
          n=self.best,
          keep_checkpoints_without_metrics=False,
        )
      )
    return policies.AnyPreservationPolicy(rules)

  def goodness(self, metrics: Mapping[str, float]) -> float:
    """Scores a checkpoint: the higher, the better."""
    name = self.metric.removeprefix("-")
    if name.startswith("val.") and name not in metrics:
      return -math.inf  # saved before the first validation
    return metrics[name] if self.metric.startswith("-") else -metrics[name]

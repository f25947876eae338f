"""How a training step is laid out on devices."""

import dataclasses
from collections.abc import Mapping

from locvlm_jax import assemble
from locvlm_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a search varies.

  Attributes:
    mesh: size of each axis; -1: all devices that are left.
    accumulate: microbatches a step.
    remat: what the backward pass computes again.
  """

  mesh: Mapping[str, int]
  accumulate: int
  remat: str

  @classmethod
  def of(cls, config: Config) -> "Layout":
    """Reads the config's own layout."""
    return cls(
      assemble.mesh_sizes(config), config.accumulate, config.model.remat
    )

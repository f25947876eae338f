"""LoRA: low-rank updates of frozen kernels (arXiv:2106.09685).

  y = x W + (alpha / rank) (x A) B     A random, B zero: no change at first

Letters: D contracted dims, F result dims, R rank.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from locvlm_jax.models.layers import linear

TARGETS = ("q", "k", "v", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Which kernels of the language model have an update, and how large.

  rank 0: none of them.
  """

  rank: int = 0
  alpha: float = 16.0
  targets: tuple[str, ...] = TARGETS

  def __post_init__(self) -> None:
    unknown = [t for t in self.targets if t not in TARGETS]
    if unknown:
      raise ValueError(f"lora.targets {unknown[0]!r} is not one of {TARGETS}")
    if self.rank < 0 or not self.alpha > 0:
      raise ValueError(
        f"lora.rank {self.rank}, lora.alpha {self.alpha}: give a rank of 0 or"
        " more and a positive alpha"
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


def adapted(
  module: nn.Module,
  name: str,
  x: Float[Array, "..."],
  kernel: Float[Array, "..."],
  lora: LoraConfig,
  num_contracted: int = 1,
) -> Float[Array, "..."]:
  """`linear`, with the update of the kernel `name` where it has one.

  Its parameters are the module's, `{name}_lora_a` [*D, R] and
  `{name}_lora_b` [R, *F].
  """
  y = linear(x, kernel, num_contracted)
  if not lora.rank or name not in lora.targets:
    return y
  dims, features = kernel.shape[:num_contracted], kernel.shape[num_contracted:]
  init = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=tuple(range(num_contracted))
  )
  a = module.param(f"{name}_lora_a", init, (*dims, lora.rank))
  zeros = nn.initializers.zeros
  b = module.param(f"{name}_lora_b", zeros, (lora.rank, *features))
  low = linear(x, a, num_contracted)
  return y + jnp.asarray(lora.scale, x.dtype) * linear(low, b)

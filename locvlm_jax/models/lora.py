"""LoRA: low-rank updates of frozen kernels (arXiv:2106.09685).

  y = x W + (alpha / rank) (x A) B     A is random and B zero at first

In training a share of the x that goes into A may be dropped.

Letters: D contracted dims, F result dims, R rank.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from locvlm_jax.models import quantized
from locvlm_jax.models.layers import linear

TARGETS = ("q", "k", "v", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Which kernels of the language model have an update, and how large.

  Attributes:
    rank: R; 0: no kernel has an update.
    alpha: the updates are multiplied by alpha / rank.
    targets: names of the kernels that have one.
    dropout: share of the inputs of every update that is dropped, where the
      model is applied with a key for "dropout", as in training.
  """

  rank: int = 0
  alpha: float = 16.0
  targets: tuple[str, ...] = TARGETS
  dropout: float = 0.0

  def __post_init__(self) -> None:
    unknown = [t for t in self.targets if t not in TARGETS]
    if unknown:
      raise ValueError(f"lora.targets {unknown[0]!r} is not one of {TARGETS}")
    if self.rank < 0 or not self.alpha > 0:
      raise ValueError(
        f"lora.rank {self.rank}, lora.alpha {self.alpha}: give a rank of 0 or"
        " more and a positive alpha"
      )
    if not 0 <= self.dropout < 1:
      raise ValueError(f"lora.dropout {self.dropout} is not within [0, 1)")

  @property
  def scale(self) -> float:
    """The factor of every update."""
    return self.alpha / self.rank


def lora_linear(
  module: nn.Module,
  name: str,
  x: Float[Array, "..."],
  kernel: quantized.Kernel,
  lora: LoraConfig,
  num_contracted: int = 1,
) -> Float[Array, "..."]:
  """Multiplies x by a kernel and adds the kernel's update, if it has one.

  Args:
    module: the module that the kernel belongs to; it also gets the update's
      parameters, `{name}_lora_a` [*D, R] and `{name}_lora_b` [R, *F].
    name: the kernel's, one of TARGETS.
    x: [..., *D].
    kernel: [*D, *F], quantized or not.
    lora: which kernels have an update.
    num_contracted: the number of dims D.

  Returns:
    [..., *F], in x's dtype.
  """
  y = quantized.multiply(x, kernel, num_contracted)
  if not lora.rank or name not in lora.targets:
    return y
  dims, features = kernel.shape[:num_contracted], kernel.shape[num_contracted:]
  init = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=tuple(range(num_contracted))
  )
  a = module.param(f"{name}_lora_a", init, (*dims, lora.rank))
  zeros = nn.initializers.zeros
  b = module.param(f"{name}_lora_b", zeros, (lora.rank, *features))
  low = linear(_dropped(module, x, lora.dropout), a, num_contracted)
  return y + jnp.asarray(lora.scale, x.dtype) * linear(low, b)


def _dropped(
  module: nn.Module, x: Float[Array, "..."], share: float
) -> Float[Array, "..."]:
  """Sets a share of x to zero and scales the rest, where there is a key."""
  if not share or not module.has_rng("dropout"):
    return x
  kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - share, x.shape)
  return jnp.where(kept, x / jnp.asarray(1 - share, x.dtype), 0)

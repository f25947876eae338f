"""The adapter: projects visual features to the language model's width.

Letters: B rows, N visual tokens, D visual width, E language-model width.
"""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from locvlm_jax.models.layers import linear

ADAPTERS = ("linear", "mlp")


class Adapter(nn.Module):
  """One linear layer (LocVLM-B), or two with an exact GELU between (LocVLM-L).

  The MLP is LLaVA-1.5's mlp2x_gelu
  (LLaVA:llava/model/multimodal_projector/builder.py).

  Attributes:
    kind: one of ADAPTERS.
    width: E.
  """

  kind: str
  width: int

  @nn.compact
  def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N E"]:
    """Projects each visual token.

    Raises:
      ValueError: an unknown kind.
    """
    if self.kind not in ADAPTERS:
      raise ValueError(f"adapter {self.kind!r} is not one of {ADAPTERS}")
    x = self._linear("linear_1", x)
    if self.kind == "mlp":
      x = self._linear("linear_2", jax.nn.gelu(x, approximate=False))
    return x

  def _linear(
    self, name: str, x: Float[Array, "B N D"]
  ) -> Float[Array, "B N E"]:
    init = nn.initializers.lecun_normal()
    kernel = self.param(name, init, (x.shape[-1], self.width))
    bias = self.param(f"{name}_bias", nn.initializers.zeros, (self.width,))
    return linear(x, kernel) + bias.astype(x.dtype)

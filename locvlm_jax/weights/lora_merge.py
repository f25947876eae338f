"""A LoRA run's parameters, merged: what a model without LoRA computes alike."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from locvlm_jax.weights import frozen, quantizing, stored

_UPDATE = re.compile(r"(.*)_lora_[ab]")


@dataclasses.dataclass(frozen=True)
class Merged:
  """A kernel with its update, float32; computed when it is read.

  Attributes:
    kernel: the kernel.
    a, b: of the update.
    scale: alpha / rank.
  """

  kernel: stored.StoredArray | frozen.Referred | quantizing.Dequantized
  a: stored.StoredArray
  b: stored.StoredArray
  scale: float

  @property
  def shape(self) -> tuple[int, ...]:
    return self.kernel.shape

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(np.float32)

  def read(self) -> np.ndarray:
    """Computes W + scale A B, layer by layer."""
    a, b = (np.asarray(x.read(), np.float32) for x in (self.a, self.b))
    kernel = np.asarray(self.kernel.read(), np.float32)
    return np.stack(
      [
        w + self.scale * np.tensordot(one, other, 1)
        for w, one, other in zip(kernel, a, b, strict=True)
      ]
    )


def merge(flat: Mapping[str, Any], scale: float) -> dict[str, Any]:
  """Adds each update in `flat` to the kernel that it belongs to.

  Args:
    flat: parameters on disk.
    scale: alpha / rank.
  """
  updated = {m[1] for path in flat if (m := _UPDATE.fullmatch(path))}

  def one(path: str, kernel: Any) -> Any:
    if path not in updated:
      return kernel
    a, b = (flat[f"{path}_lora_{x}"] for x in "ab")
    return Merged(kernel, a, b, scale)

  return {p: one(p, x) for p, x in flat.items() if not _UPDATE.fullmatch(p)}

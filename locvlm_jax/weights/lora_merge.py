"""A LoRA run's parameters, merged: what a model without LoRA computes alike."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from locvlm_jax.weights import stored

_UPDATE = re.compile(r"(.*)_lora_[ab]")


@dataclasses.dataclass(frozen=True)
class MergedArray(stored.StoredArray):
  """A kernel with its update, float32; computed when it is read.

  Attributes:
    a, b: of the update.
    scale: alpha / rank.
  """

  a: stored.StoredArray
  b: stored.StoredArray
  scale: float

  def read(self) -> np.ndarray:
    """Computes W + scale A B, layer by layer."""
    a, b = (np.asarray(x.read(), np.float32) for x in (self.a, self.b))
    kernel = np.asarray(super().read(), np.float32)
    return np.stack(
      [
        w + self.scale * np.tensordot(one, other, 1)
        for w, one, other in zip(kernel, a, b, strict=True)
      ]
    )


def merge(
  flat: Mapping[str, stored.StoredArray], scale: float
) -> dict[str, Any]:
  """Adds each update in `flat` to the kernel that it belongs to.

  Args:
    flat: parameters on disk.
    scale: alpha / rank.
  """
  updated = {m[1] for path in flat if (m := _UPDATE.fullmatch(path))}

  def one(path: str, kernel: stored.StoredArray) -> stored.StoredArray:
    if path not in updated:
      return kernel
    a, b = (flat[f"{path}_lora_{x}"] for x in "ab")
    fields = {**vars(kernel), "dtype": np.dtype(np.float32)}
    return MergedArray(**fields, a=a, b=b, scale=scale)

  return {p: one(p, x) for p, x in flat.items() if not _UPDATE.fullmatch(p)}

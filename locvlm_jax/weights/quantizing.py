"""Stored kernels in another precision than they are stored in.

A quantized kernel of the model is two parameters, its codes and its scales
(`models/quantized.py`). Files of others hold the kernel, a run with a
quantized base holds the parts. Here each is read as the other: a kernel is
quantized layer by layer while its file is read, so that a large model is never
whole in memory, and the parts are dequantized for an export.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from locvlm_jax.models import quantized
from locvlm_jax.weights import placement

_PARTS = (quantized.CODES, quantized.SCALES)


@dataclasses.dataclass(frozen=True)
class Part:
  """The codes, or the scales, of a kernel that is quantized when it is read.

  Attributes:
    kernel: on disk.
    precision: "int8" or "nf4".
    name: "codes" or "scales".
  """

  kernel: Any
  precision: str
  name: str

  @property
  def shape(self) -> tuple[int, ...]:
    return self._abstract.shape

  @property
  def dtype(self) -> np.dtype:
    return self._abstract.dtype

  @property
  def _abstract(self) -> jax.ShapeDtypeStruct:
    kernel = jax.ShapeDtypeStruct(self.kernel.shape, jnp.float32)
    return jax.eval_shape(_cutter(self.precision, self.name), kernel)

  def read(self) -> np.ndarray:
    """Quantizes all of the kernel, in host memory."""
    return np.asarray(_cutter(self.precision, self.name)(self.kernel.read()))

  def place(self, dtype: Any, where: Sharding) -> jax.Array:
    """Reads and quantizes the kernel onto one device or a mesh.

    Of a tensor in a file, one layer is on the devices at a time.

    Args:
      dtype: of the result; its own is the only one that means something.
      where: the sharding, of the kernel as of its parts.
    """
    assert dtype == self.dtype, (dtype, self.dtype)
    cut = _cutter(self.precision, self.name, where)
    out = jnp.zeros(self.shape, dtype, device=where)
    for first, piece in self._pieces(where):
      out = placement.inserter(where)(out, cut(piece), first)
      out.block_until_ready()  # or else pieces pile up
    return out

  def _pieces(self, where: Sharding) -> Iterator[tuple[int, jax.Array]]:
    """Gives (the first layer, layers of the kernel) in turn."""
    kernel = self.kernel
    if not isinstance(kernel, placement.Tensor):
      yield 0, kernel.place(kernel.dtype, where)
      return
    for layer in range(len(kernel.parts)):
      yield layer, kernel.piece(layer, 1, kernel.dtype, where)


@functools.cache
def _cutter(
  precision: str, name: str, where: Sharding | None = None
) -> Callable[[Any], jax.Array]:
  """Makes the program: kernel -> its codes, or its scales."""

  def cut(kernel):
    return getattr(quantized.quantize(kernel, precision), name)

  return jax.jit(cut, out_shardings=where)


@dataclasses.dataclass(frozen=True)
class Dequantized:
  """A kernel whose codes and scales are stored; computed when it is read.

  Attributes:
    codes, scales: on disk.
  """

  codes: Any
  scales: Any

  @property
  def shape(self) -> tuple[int, ...]:
    each = quantized.values_per_code(self.codes.dtype)
    return (*self.codes.shape[:-1], self.codes.shape[-1] * each)

  @property
  def dtype(self) -> np.dtype:
    return np.dtype(np.float32)

  def read(self) -> np.ndarray:
    """Computes the kernel, in host memory."""
    parts = quantized.Quantized(self.codes.read(), self.scales.read())
    return np.asarray(_joiner(np.dtype(np.float32))(parts))

  def place(self, dtype: Any, where: Sharding) -> jax.Array:
    """Computes the kernel, as `dtype`, onto one device or a mesh."""
    codes = self.codes.place(self.codes.dtype, where)
    # The dims of few scales may not be divisible as the kernel's are.
    parts = quantized.Quantized(codes, self.scales.read())
    return _joiner(np.dtype(dtype), where)(parts)


@functools.cache
def _joiner(
  dtype: np.dtype, where: Sharding | None = None
) -> Callable[[quantized.Quantized], jax.Array]:
  """Makes the program: codes and scales -> the kernel, as `dtype`."""
  join = functools.partial(quantized.dequantize, dtype=dtype)
  return jax.jit(join, out_shardings=where)


def in_precision(flat: Mapping[str, Any], precision: str) -> dict[str, Any]:
  """Gives stored parameters as a model of this `base_weights` has them.

  Args:
    flat: {path: parameter on disk}; kernels, or the parts of them.
    precision: "float", "int8" or "nf4".
  """
  found = {}
  for path, value in _kernels(flat).items():
    if precision == "float" or path not in quantized.LAYER_KERNELS:
      found[path] = value
    elif _is_stored(value, precision):
      found |= {f"{path}/{name}": getattr(value, name) for name in _PARTS}
    else:
      found |= {f"{path}/{n}": Part(value, precision, n) for n in _PARTS}
  return found


def _kernels(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Joins the parts of each kernel."""
  found = {p: x for p, x in flat.items() if not quantized.is_part(p)}
  for path, codes in flat.items():
    if path.endswith(f"/{quantized.CODES}"):
      kernel = path.removesuffix(f"/{quantized.CODES}")
      scales = flat[f"{kernel}/{quantized.SCALES}"]
      found[kernel] = Dequantized(codes, scales)
  return found


def _is_stored(kernel: Any, precision: str) -> bool:
  """Says whether a kernel is stored in just this precision."""
  dtype = {"int8": jnp.int8, "nf4": jnp.uint8}[precision]
  return isinstance(kernel, Dequantized) and kernel.codes.dtype == dtype

"""Stored tensors as our parameters, read in slices onto a mesh."""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from locvlm_jax.weights.layouts import tables, tensor_files
from locvlm_jax.weights.layouts.tables import Leaf

RUN_BYTES = 1 << 30  # of a parameter, in host memory on its way to a device
_THREADS = concurrent.futures.ThreadPoolExecutor(8, "read")


@dataclasses.dataclass(frozen=True)
class Part:
  """A stored tensor: all of a parameter, or one of its layers."""

  leaf: Leaf
  file: tensor_files.File
  name: str  # in the file

  def read(self, index: tuple[slice, ...]) -> np.ndarray:
    """In the stored layout. The file may have more rows than the leaf."""
    sizes = self.leaf.stored_shape
    bounds = (s.indices(n) for s, n in zip(index, sizes, strict=True))
    return self.file.read(self.name, tuple(slice(a, b) for a, b, _ in bounds))

  def whole(self) -> np.ndarray:
    """Reads all of it, in our layout."""
    everything = (slice(None),) * len(self.leaf.stored_shape)
    return self.leaf.ours(self.read(everything))

  def fill(self, out: np.ndarray, index: tuple[slice, ...]) -> None:
    """Reads what `index` selects in our layout into `out`, in its dtype."""
    stored = self.read(self.leaf.stored_index(index))
    if self.leaf.layout in ("linear", "merge"):
      _transpose(stored, out.reshape(stored.shape[::-1]))
    else:
      out[...] = tables.to_ours(stored, self.leaf.layout, out.shape)


def _transpose(stored: np.ndarray, out: np.ndarray) -> None:
  """out = stored.T, in strips that stay in the cache: 5 times as fast."""
  if stored.dtype == out.dtype and out.itemsize == 2:
    stored, out = stored.view(np.uint16), out.view(np.uint16)
  for i in range(0, len(stored), 16):
    out[:, i : i + 16] = stored[i : i + 16].T


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One of our parameters, on disk.

  Attributes:
    parts: one for each layer, or a single one.
    dtype: as stored.
  """

  parts: tuple[Part, ...]
  dtype: np.dtype

  @property
  def shape(self) -> tuple[int, ...]:
    leaf = self.parts[0].leaf
    layers = () if leaf.layer is None else (len(self.parts),)
    return (*layers, *leaf.shape)

  def cropped(self, shape: tuple[int, ...]) -> "Tensor":
    """Its first rows (columns, ...) only."""
    (part,) = self.parts
    part = dataclasses.replace(part, leaf=part.leaf._replace(shape=shape))
    return dataclasses.replace(self, parts=(part,))

  def read(self) -> np.ndarray:
    """All of it, in its stored dtype."""
    if self.parts[0].leaf.layer is None:
      return np.ascontiguousarray(self.parts[0].whole())
    out = np.empty(self.shape, self.dtype)
    for layer, part in enumerate(self.parts):
      out[layer] = part.whole()
    return out

  def place(self, dtype: Any, where: Sharding) -> jax.Array:
    """Reads all of it, as `dtype`, onto one device or a mesh.

    Every process reads the slices of its own devices, each once, as many
    layers at a time as fit into `RUN_BYTES`.
    """
    layers = self._layers_at_a_time(dtype, where)
    pieces = (
      self.piece(first, layers, dtype, where)
      for first in range(0, len(self.parts), layers)
    )
    if layers == len(self.parts):
      return next(pieces)
    out = jnp.zeros(self.shape, dtype, device=where)
    for i, piece in enumerate(pieces):
      out = inserter(where)(out, piece, i * layers)
      out.block_until_ready()  # or else pieces pile up
    return out

  def _layers_at_a_time(self, dtype, where: Sharding) -> int:
    if all(d.platform == "cpu" for d in where.addressable_devices):
      return len(self.parts)  # what is read is the result itself
    local = set(map(str, where.addressable_devices_indices_map(self.shape)))
    share = math.prod(where.shard_shape(self.shape)) * len(local)
    one = share * np.dtype(dtype).itemsize // len(self.parts)
    return min(max(RUN_BYTES // one, 1), len(self.parts))

  def piece(
    self, first: int, layers: int, dtype: Any, where: Sharding
  ) -> jax.Array:
    """Reads some layers of it, or all of a parameter without layers."""
    parts, dims = self.parts[first : first + layers], self.shape
    stacked = parts[0].leaf.layer is not None
    shape = (len(parts), *dims[1:]) if stacked else dims
    devices = where.addressable_devices_indices_map(shape)
    shards = {str(index): index for index in devices.values()}
    buffers = {
      name: _aligned(_sizes(index, shape), np.dtype(dtype))
      for name, index in shards.items()
    }
    jobs = [
      (part, buffers[name][i] if stacked else buffers[name], index[stacked:])
      for i, part in enumerate(parts)
      for name, index in shards.items()
    ]
    list(_THREADS.map(lambda job: job[0].fill(*job[1:]), jobs))
    return jax.make_array_from_single_device_arrays(
      shape,
      where,
      [jax.device_put(buffers[str(i)], d) for d, i in devices.items()],
    )


def _sizes(index: tuple[slice, ...], shape: tuple[int, ...]) -> list[int]:
  bounds = (s.indices(n) for s, n in zip(index, shape, strict=True))
  return [b - a for a, b, _ in bounds]


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
  """An empty array that a CPU device can take as it is, without a copy."""
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + 64, np.uint8)
  start = -raw.ctypes.data % 64
  return raw[start : start + size].view(dtype).reshape(shape)


@functools.cache
def inserter(where: Sharding) -> Callable:
  """Makes (whole, some layers, number of the first) -> whole with these set."""
  insert = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
  return jax.jit(insert, donate_argnums=0, out_shardings=where)

"""Estimates the memory of a training step at once, without a compiler.

The step is traced, not compiled. What its backward pass keeps of the forward
pass is counted in the trace; the rest follows from the parameters. Against what
XLA's compilers plan it is within a tenth (tests/training/room/test_memory.py,
benchmarks/results/plan.md).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from locvlm_jax import assemble
from locvlm_jax.config import Config
from locvlm_jax.data import packing
from locvlm_jax.models import locvlm, params
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.room.layout import Layout

# What cuDNN and cuBLAS take beside XLA's own buffers.
_GPU_WORKSPACE = 1 << 29
ONE_DEVICE = {"data": 1, "fsdp": 1, "tensor": 1}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of a device that a training step takes, by part.

  Attributes:
    weights: trainable masters and frozen parameters.
    gradients: of what trains; twice where microbatches are added up.
    optimizer: its moments, and what an update in few bytes unpacks at a time.
    activations: what the backward pass keeps or computes again, and the batch.
    workspace: an allowance for libraries.
  """

  weights: int
  gradients: int
  optimizer: int
  activations: int
  workspace: int

  @property
  def total(self) -> int:
    """All parts together."""
    return sum(dataclasses.astuple(self))

  def table(self, has: int) -> str:
    """Writes the parts in GiB, beside what the device has."""
    parts = dataclasses.asdict(self).items()
    lines = [f"  {name:12s} {size / 2**30:8.2f} GiB" for name, size in parts]
    fits = "fits" if self.total <= has else "TOO MUCH"
    whole = f"{self.total / 2**30:8.2f} GiB of {has / 2**30:.2f}: {fits}"
    return "\n".join([*lines, f"  {'together':12s} {whole} (an estimate)"])


def memory(
  config: Config,
  layout: Layout,
  device_kind: str = "",
  shards: Mapping[str, int] | None = None,
) -> Memory:
  """Estimates the memory that one device needs.

  Args:
    config: all of it.
    layout: how the step is laid out.
    device_kind: as jax names it; "": of the devices here.
    shards: size of each mesh axis; None: a single device.
  """
  shards = dict(shards or ONE_DEVICE)
  held = state(config, layout, device_kind, shards)
  model = assemble.model(config, device_kind, layout.remat)
  rows = shards["data"] * shards["fsdp"]
  activations = _activations(config, device_kind, layout, rows)
  gathered = _layer(config, model) if _split(shards) > 1 else 0
  return dataclasses.replace(held, activations=activations + 2 * gathered)


def state(
  config: Config,
  layout: Layout,
  device_kind: str = "",
  shards: Mapping[str, int] | None = None,
) -> Memory:
  """Estimates the same without activations, and so without a trace."""
  split = _split(shards or ONE_DEVICE)
  model = assemble.model(config, device_kind, layout.remat)
  trainable, frozen = _parameters(config, model)
  moments = jax.eval_shape(
    optimizer.make(config.optim, config.steps).init, trainable
  )
  return Memory(
    weights=(_bytes(trainable) + _bytes(frozen)) // split,
    gradients=_bytes(trainable) // split * (1 + (layout.accumulate > 1)),
    optimizer=(_bytes(moments) + _unpacked(config, trainable)) // split,
    activations=0,
    workspace=_GPU_WORKSPACE if _is_gpu(device_kind) else 0,
  )


def _split(shards: Mapping[str, int]) -> int:
  """Counts the devices that a parameter is split over."""
  return shards["fsdp"] * shards["tensor"]


def _unpacked(config: Config, trainable: Mapping) -> int:
  """Counts the float32 update of the largest parameter, where it is made apart.

  Moments in 8 bits and split masters are unpacked for a parameter at a time.
  """
  if config.optim.moments == "float" and config.optim.masters == "float32":
    return 0
  return max(4 * math.prod(x.shape) for x in trainable.values())


def batch(config: Config, model: locvlm.LocVLM) -> dict:
  """Returns the shapes of the longest batch, packed as the config says."""
  pack = config.data.pack
  rows, length = config.batch_size // pack, row_length(config, pack)
  shapes = locvlm.batch_shapes(model.config, rows, length)
  if pack == 1 and not config.data.tree:
    return shapes
  shapes["segments"] = shapes["tokens"]
  for name in shapes.keys() & {"images", "frames"}:
    x = shapes[name]
    shapes[name] = _shape((rows, pack, *x.shape[2:]), x.dtype)
  return shapes


def row_length(config: Config, pack: int = 1) -> int:
  """Counts positions of the longest row, to a multiple of 64.

  Args:
    config: all of it.
    pack: conversations of the row.
  """
  length = pack * assemble.row_length(config)
  return length + -length % packing.LENGTH_MULTIPLE


def _activations(config: Config, kind: str, layout: Layout, split: int) -> int:
  """Estimates what a microbatch of one device needs beside the state.

  To what is kept comes the larger of two: the gradient of the logits, and what
  is computed again of one layer.
  """
  model = assemble.model(config, kind, layout.remat)
  pack, whole = config.data.pack, batch(config, model)
  rows = max(1, config.batch_size // (pack * layout.accumulate * split))
  remat, layers = model.config.remat, model.config.llm.num_layers
  kept = again = _rows_keep(config, kind, remat, rows)
  if _is_gpu(kind) or kind.startswith("TPU"):
    # XLA itself computes again what is cheap. Of unrolled layers it keeps the
    # products, and the kernels as they are multiplied; of a loop's, all but
    # the latter.
    kernels = layers * _layer(config, model)
    again = _rows_keep(config, kind, "dots", rows) + kernels
    if remat == "none":
      loop = kept - _rows_keep(config, kind, remat, 0)
      kept = again if model.config.unroll > 1 else loop
  else:
    # The SwiGLU of a layer is computed again in any case: there are then its
    # product and the gradients of both factors, beside all else.
    wide = rows * row_length(config, pack) * model.config.llm.mlp_width
    kept += 3 * jnp.dtype(config.model.dtype).itemsize * wide
    if remat != "none":
      again = _rows_keep(config, kind, "none", rows)
  text = row_length(config, pack) - pack * model.config.num_visual
  logits = 4 * rows * text * model.config.llm.vocab_size
  again = max(0, again - kept) // layers
  return kept + max(again, logits) + _bytes(whole) // split


def _rows_keep(config: Config, kind: str, remat: str, rows: int) -> int:
  """Counts what is kept of some rows: each further one keeps the same."""
  one, two = _one_and_two(config, kind, remat)
  return one + (rows - 1) * (two - one)


@functools.lru_cache(maxsize=64)
def _one_and_two(config: Config, kind: str, remat: str) -> tuple[int, int]:
  """Counts what the backward pass keeps of one row, and of two."""
  shape = assemble.training_model(config, kind, remat).config
  attention = shape.attention
  if attention == "splash" or (attention == "auto" and _is_gpu(kind)):
    shape = dataclasses.replace(shape, attention="fused")
  elif attention == "auto":
    shape = dataclasses.replace(shape, attention="xla")
  model = locvlm.LocVLM(shape)
  parts, whole = _parameters(config, model), batch(config, model)
  return tuple(
    _kept(
      model,
      *parts,
      {k: _shape((n, *x.shape[1:]), x.dtype) for k, x in whole.items()},
    )
    for n in (1, 2)
  )


def _is_gpu(kind: str) -> bool:
  return kind.startswith(("NVIDIA", "Tesla"))


def _parameters(config: Config, model: locvlm.LocVLM) -> tuple[dict, dict]:
  """(trainable, frozen) shapes, in the dtypes that they are kept in."""
  shapes = params.param_shapes(model)
  kept = params.kept_dtypes(
    shapes, config.trainable, config.model.dtype, config.optim.masters
  )
  placed = {p: _shape(x.shape, kept[p]) for p, x in shapes.items()}
  return params.split(placed, config.trainable)


def _kept(model, trainable: Mapping, frozen: Mapping, rows: Mapping) -> int:
  """Counts the bytes that the backward pass keeps of the forward pass."""

  def residuals(trainable, frozen, rows):
    def loss(own):
      nested = params.unflatten({**frozen, **own})
      return step_lib.loss_sums(model, nested, rows)[0]

    return jax.vjp(loss, trainable)[1]

  jaxpr = jax.make_jaxpr(residuals)(trainable, frozen, rows).jaxpr
  given = {id(v) for v in jaxpr.invars}  # parameters are counted elsewhere
  made = {id(v): v.aval for v in jaxpr.outvars if not _is_literal(v)}
  return sum(_size(x) for i, x in made.items() if i not in given)


def _layer(config: Config, model: locvlm.LocVLM) -> int:
  """Counts the bytes of one LLM layer, as the computation has them."""
  width = jnp.dtype(config.model.dtype).itemsize
  shapes = params.param_shapes(model)
  sizes = [math.prod(x.shape) for p, x in shapes.items() if "llm/layers/" in p]
  return width * sum(sizes) // model.config.llm.num_layers


def _shape(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


def _bytes(tree) -> int:
  return sum(map(_size, jax.tree.leaves(tree)))


def _size(x) -> int:
  return math.prod(x.shape) * jnp.dtype(x.dtype).itemsize


def _is_literal(value) -> bool:
  return hasattr(value, "val")

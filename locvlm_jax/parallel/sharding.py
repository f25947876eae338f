"""The mesh of devices, the sharding of each parameter, batches on devices.

Mesh axes:

  data     replicas of the parameters; between nodes and slices
  fsdp     splits batch and parameters; parameters are gathered when used
  tensor   splits heads and hidden units within a layer

Axis letters of the parameters, as in `models`: L layers, D width, H query
heads, G key/value heads, K head width, F hidden width, V vocabulary.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
FSDP = "fsdp"
TENSOR = "tensor"

_LAYER = r"(vision(/unused)?|llm)/layers"
_PARTS = r"(/(codes|scales))?"  # of a quantized kernel, whose dims they have
# The end of a parameter's path -> one mesh axis (or None) for each dim; dims
# left out are not split. Optimizer moments have longer paths with the same end,
# so they use their parameter's sharding.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
  (r"vision/patch", (None, None, None, "fsdp")),
  (r"vision/((class|position)_embedding|patch_bias)", ()),
  (r"vision/(pre_layernorm|unused/post_layernorm)/(scale|bias)", ()),
  (rf"{_LAYER}/(attention|mlp)_norm/(scale|bias)", ()),
  (rf"{_LAYER}/attention/[qkv]{_PARTS}",
   (None, "fsdp", "tensor")),  # [L, D, H|G, K]
  (rf"{_LAYER}/attention/[qkv]_bias", (None, "tensor")),  # [L, H|G, K]
  (rf"{_LAYER}/attention/out{_PARTS}",
   (None, "tensor", None, "fsdp")),  # [L, H, K, D]
  (rf"{_LAYER}/(attention/out|mlp/down)_bias", ()),
  (rf"{_LAYER}/mlp/(gate|up){_PARTS}", (None, "fsdp", "tensor")),  # [L, D, F]
  (rf"{_LAYER}/mlp/up_bias", (None, "tensor")),
  (rf"{_LAYER}/mlp/down{_PARTS}", (None, "tensor", "fsdp")),  # [L, F, D]
  # LoRA's: [L, D, R] and [L, R, H|G, K], [L, H, K, R] and [L, R, D], ...
  (r"llm/layers/(attention/[qkv]|mlp/(gate|up))_lora_a", (None, "fsdp")),
  (r"llm/layers/(attention/[qkv]|mlp/(gate|up))_lora_b",
   (None, None, "tensor")),
  (r"llm/layers/(attention/out|mlp/down)_lora_a", (None, "tensor")),
  (r"llm/layers/(attention/out|mlp/down)_lora_b", (None, None, "fsdp")),
  (r"adapter/linear_1", ("fsdp", "tensor")),
  (r"adapter/linear_1_bias", ("tensor",)),
  (r"adapter/linear_2", ("tensor", "fsdp")),
  (r"adapter/linear_2_bias", ()),
  (r"llm/embedding", ("tensor", "fsdp")),  # [V, D]
  (r"llm/final_norm/scale", ()),
  (r"llm/head", ("fsdp", "tensor")),  # [D, V]
)  # fmt: skip
# Parameters of a language model that each device rather holds whole: with
# gradients and two moments they are 1 GiB of float32.
WHOLE = 2**26
_COMPILED = tuple((re.compile(rf"(?:.*/)?{p}"), spec) for p, spec in RULES)


def make_mesh(
  shape: Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
  """Arranges devices as a mesh of `AXES`; axes that are left out have size 1.

  Args:
    shape: size of each axis; one may be -1: all devices that are left.
    devices: which to use, to compile for another machine; None: all devices
      of this one.

  Raises:
    ValueError: an unknown axis, a size that is neither -1 nor positive, two
      sizes of -1, or sizes that do not multiply to the number of devices.
  """
  sizes = dict.fromkeys(AXES, 1) | dict(shape)
  unknown = sorted(sizes.keys() - set(AXES))
  if unknown:
    raise ValueError(f"mesh: unknown axis {unknown[0]!r}; the axes are {AXES}")
  for axis, size in sizes.items():
    if size < 1 and size != -1:
      raise ValueError(f"mesh.{axis}={size}: give a positive size, or -1")
  devices = jax.devices() if devices is None else devices
  sizes = _resolve_sizes(sizes, len(devices))
  return jax.make_mesh(
    tuple(sizes[axis] for axis in AXES),
    AXES,
    # Stated, since the default of make_mesh is Explicit, which Linen's lifted
    # transforms do not support.
    axis_types=(AxisType.Auto,) * len(AXES),
    devices=devices,
  )


def sizes_for(shape: Mapping[str, int], num_parameters: int) -> dict[str, int]:
  """Leaves to the model's size which axis takes all devices that are left.

  Where data and fsdp are both -1, data takes them if the model is small. Its
  steps are short then, and to gather each layer's kernels over fsdp takes
  longer than to compute with them: two processes of the micro model are twice
  as fast by data.

  Args:
    shape: size of each axis, as in the config.
    num_parameters: of the language model.

  Returns:
    The sizes, with at most one -1 of these two.
  """
  sizes = dict(shape)
  if sizes.get("data") == sizes.get("fsdp") == -1:
    sizes["fsdp" if num_parameters <= WHOLE else "data"] = 1
  return sizes


def _resolve_sizes(sizes: dict[str, int], num_devices: int) -> dict[str, int]:
  """Replaces -1 by the devices that are left, and checks the product."""
  free = [axis for axis, size in sizes.items() if size == -1]
  if len(free) > 1:
    raise ValueError(f"mesh: only one axis may be -1, not {free}")
  fixed = math.prod(size for size in sizes.values() if size != -1)
  text = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
  if num_devices % fixed or (not free and fixed != num_devices):
    raise ValueError(
      f"mesh {text}: its sizes multiply to {fixed}, but there are"
      f" {num_devices} devices. Change a size, or set one axis to -1"
    )
  return sizes | {axis: num_devices // fixed for axis in free}


def param_spec(path: str) -> PartitionSpec:
  """Finds the one rule for a parameter, by the end of its "a/b/c" path.

  Raises:
    ValueError: no rule matches, or more than one.
  """
  found = [spec for pattern, spec in _COMPILED if pattern.fullmatch(path)]
  if len(found) != 1:
    raise ValueError(
      f"parameter {path} matches {len(found)} sharding rules; it has to match"
      " exactly one: see RULES in locvlm_jax/parallel/sharding.py"
    )
  return PartitionSpec(*found[0])


def param_shardings(params: Any, mesh: jax.sharding.Mesh) -> Any:
  """Returns the sharding of each parameter, in the structure of `params`.

  Args:
    params: arrays or shapes; a nested dict, or flat with "a/b/c" keys.
    mesh: of `make_mesh`.

  Raises:
    ValueError: a parameter does not match exactly one rule, or a mesh axis does
      not divide the dim that it splits.
  """
  return jax.tree_util.tree_map_with_path(
    lambda keys, x: _param_sharding(_path(keys), x.shape, mesh), params
  )


def _path(keys: tuple) -> str:
  """Joins the keys of a leaf of a pytree: "a/b/c"."""
  return "/".join(str(getattr(k, "key", getattr(k, "name", k))) for k in keys)


def _param_sharding(
  path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh
) -> NamedSharding:
  """Returns the sharding of one parameter, checked against its shape."""
  spec = param_spec(path)
  if path.endswith("/scales"):  # where few, they are whole on all devices
    spec = PartitionSpec(
      *(
        a if a and not shape[i] % mesh.shape[a] else None
        for i, a in enumerate(spec)
      )
    )
  for dim, axis in enumerate(spec):
    if axis is not None and shape[dim] % mesh.shape[axis]:
      raise ValueError(
        f"mesh.{axis}={mesh.shape[axis]} does not divide dim {dim} of {path},"
        f" which has shape {shape}: choose a mesh.{axis} that divides"
        f" {shape[dim]}, or change the model's size"
      )
  return NamedSharding(mesh, spec)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding of a batch: rows split over data and fsdp."""
  return NamedSharding(mesh, PartitionSpec(BATCH))


def put_batch(
  batch: Mapping[str, np.ndarray | None],
  mesh: jax.sharding.Mesh,
  global_batch_size: int,
) -> dict[str, Array | None]:
  """Puts the rows of this process on its devices, as parts of global arrays.

  Process i of n holds rows [i B/n, (i+1) B/n) of a global batch of B.

  Args:
    batch: arrays of B/n rows; None stays None.
    mesh: of `make_mesh`.
    global_batch_size: B.

  Raises:
    ValueError: B does not divide over the devices, or an array does not have
      B/n rows.
  """
  shards = math.prod(mesh.shape[axis] for axis in BATCH)
  if global_batch_size % shards:
    raise ValueError(
      f"a batch of {global_batch_size} rows does not divide over mesh.data="
      f"{mesh.shape['data']} x mesh.fsdp={mesh.shape['fsdp']}: use a multiple"
      f" of {shards}"
    )
  rows = global_batch_size // jax.process_count()
  sharding = batch_sharding(mesh)

  def put(name: str, x: np.ndarray) -> Array:
    if len(x) != rows:
      raise ValueError(
        f"batch[{name!r}] has {len(x)} rows; each of {jax.process_count()}"
        f" processes gives {rows} of {global_batch_size}"
      )
    # Without the global shape, each process would infer it from its own part.
    shape = (global_batch_size, *x.shape[1:])
    return jax.make_array_from_process_local_data(sharding, x, shape)

  return {k: None if x is None else put(k, x) for k, x in batch.items()}


def host_rows(global_batch_size: int) -> slice:
  """Returns the rows of a global batch that this process gives `put_batch`.

  Raises:
    ValueError: the processes do not divide it.
  """
  count = jax.process_count()
  if global_batch_size % count:
    raise ValueError(
      f"a batch of {global_batch_size} rows does not divide over {count} "
      f"processes: use a multiple of {count}"
    )
  rows = global_batch_size // count
  return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def fetch(x: Array | np.ndarray) -> np.ndarray:
  """Gathers all rows on every process.

  Args:
    x: a global array, or the part of each process.
  """
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def broadcast_text(text: str) -> str:
  """Returns the text of the first process on every process."""
  data = np.frombuffer(text.encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  data = np.resize(data, size) if len(data) else np.zeros(size, np.uint8)
  return bytes(multihost_utils.broadcast_one_to_all(data)).decode()


def constrain(x: Array, spec: tuple) -> Array:
  """Fixes the sharding of x inside a mesh; does nothing outside of one.

  Args:
    x: any array of a jitted function.
    spec: a mesh axis, several of them, or None, for each dim.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather(kernel: Array, whole: tuple, parts: tuple) -> Array:
  """Gathers a kernel that is sharded by `parts` to the sharding `whole`.

  Its gradient is sharded by `parts` again. `constrain` alone would give the
  gradient the sharding `whole` too: every device would receive the whole sum
  and throw most of it away, which moves twice as much as a sum that is
  scattered into parts. It would also allow a kernel to be gathered before it is
  cast to the lower dtype of the computation, which moves twice as much.
  """
  return constrain(constrain(kernel, parts), whole)


def _gather_forward(kernel, whole, parts):
  return gather(kernel, whole, parts), None


def _gather_backward(whole, parts, _, gradient):
  return (constrain(gradient, parts),)


gather.defvjp(_gather_forward, _gather_backward)


def num_batch_shards() -> int:
  """Returns how many parts the mesh splits a batch into; 1 without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH)

"""A Hugging Face directory -> our parameters, read only where they are used.

A directory holds config.json and model.safetensors or pytorch_model.bin, or
the parts of either and their index. `open_*` checks every key and shape and
reads no tensor; what it returns is read by `Tensor.place`, onto a mesh, layer
by layer and each device's slice alone, or by `Tensor.read`, as numpy. `load_*`
do the latter for all.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
from flax import traverse_util
from jax.sharding import Sharding

from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.weights import config_json, pickles, tables
from locvlm_jax.weights.tables import Leaf

Params = dict[str, Any]
Flat = dict[str, Any]

# In order of preference; each may be in parts, with an index beside them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
RUN_BYTES = 1 << 30  # of a parameter, in host memory on its way to a device
_THREADS = concurrent.futures.ThreadPoolExecutor(8, "read")
_DTYPES = {
  "F64": np.float64, "F32": np.float32, "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
}  # fmt: skip


@runtime_checkable
class File(Protocol):
  """Tensors by name; nothing is read but what `read` returns."""

  path: str

  def keys(self) -> list[str]: ...

  def shape(self, key: str) -> tuple[int, ...]: ...

  def dtype(self, key: str) -> np.dtype: ...

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray: ...


class _Safetensors:
  """One safetensors file; its numbers are mapped, not copied."""

  def __init__(self, path: str):
    try:
      with safetensors.safe_open(path, framework="numpy"):
        pass  # the library checks that nothing is missing or overlaps
      with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        self._header = json.loads(f.read(size))
    except (OSError, safetensors.SafetensorError) as error:
      raise ValueError(f"{path}: {error}") from error
    self._header.pop("__metadata__", None)
    self._bytes = np.memmap(path, np.uint8, "r")[8 + size :]
    self.path = path

  def keys(self) -> list[str]:
    return list(self._header)

  def shape(self, key: str) -> tuple[int, ...]:
    return tuple(self._header[key]["shape"])

  def dtype(self, key: str) -> np.dtype:
    name = self._header[key]["dtype"]
    if name not in _DTYPES:
      raise ValueError(f"{self.path}: {key} is {name}; not one of {[*_DTYPES]}")
    return np.dtype(_DTYPES[name])

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
    first, last = self._header[key]["data_offsets"]
    whole = self._bytes[first:last].view(self.dtype(key))
    return np.asarray(whole.reshape(self.shape(key))[index])


@dataclasses.dataclass(frozen=True)
class Part:
  """A stored tensor: all of a parameter, or one of its layers."""

  leaf: Leaf
  file: File
  name: str  # in the file

  def read(self, index: tuple[slice, ...]) -> np.ndarray:
    """In the stored layout. The file may have more rows than the leaf."""
    sizes = self.leaf.stored_shape
    bounds = (s.indices(n) for s, n in zip(index, sizes, strict=True))
    return self.file.read(self.name, tuple(slice(a, b) for a, b, _ in bounds))

  def whole(self) -> np.ndarray:
    """In our layout."""
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
    """All of it, as `dtype`, on one device or on a mesh.

    Every process reads the slices of its own devices, each once, as many
    layers at a time as fit into `RUN_BYTES`.
    """
    layers = self._layers_at_a_time(dtype, where)
    pieces = (
      self._piece(first, layers, dtype, where)
      for first in range(0, len(self.parts), layers)
    )
    if layers == len(self.parts):
      return next(pieces)
    out = jnp.zeros(self.shape, dtype, device=where)
    for i, piece in enumerate(pieces):
      out = _inserter(where)(out, piece, i * layers)
      out.block_until_ready()  # or else pieces pile up
    return out

  def _layers_at_a_time(self, dtype, where: Sharding) -> int:
    if all(d.platform == "cpu" for d in where.addressable_devices):
      return len(self.parts)  # what is read is the result itself
    local = set(map(str, where.addressable_devices_indices_map(self.shape)))
    share = math.prod(where.shard_shape(self.shape)) * len(local)
    one = share * np.dtype(dtype).itemsize // len(self.parts)
    return min(max(RUN_BYTES // one, 1), len(self.parts))

  def _piece(self, first: int, layers: int, dtype, where) -> jax.Array:
    """Some layers of it, or all of a parameter without layers."""
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
      shape, where,
      [jax.device_put(buffers[str(i)], d) for d, i in devices.items()],
    )  # fmt: skip


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
def _inserter(where: Sharding):
  """(whole, some layers, number of the first) -> whole with these set."""
  insert = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
  return jax.jit(insert, donate_argnums=0, out_shardings=where)


def open_clip_vision(
  directory: str, feature_layer: int | None = None
) -> tuple[dict[str, Tensor], clip_vit.VisionConfig]:
  """A CLIPVisionModel, or the vision tower of a CLIPModel or a Llava.

  Args:
    directory: with config.json and weights.
    feature_layer: see VisionConfig; None: as stored there, else -2.

  Returns:
    The parameters by path, still on disk, and the tower's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = read_json(directory, "config.json")
  config = config_json.vision_config(raw.get("vision_config", raw))
  if feature_layer is not None:
    raw = raw | {"vision_feature_layer": feature_layer}
  config = config_json.with_feature_layer(config, raw)
  leaves = tables.clip_leaves(config)
  renames, ignored = tables.CLIP_RENAMES, tables.CLIP_IGNORED
  return open_tensors(
    directory, files(directory), leaves, renames, ignored
  ), config


def open_llama(
  directory: str,
) -> tuple[dict[str, Tensor], llama.LlamaConfig]:
  """A LlamaForCausalLM, or the LLM of a Llava.

  A Qwen2ForCausalLM is the same with biases, and is read too.

  Args:
    directory: with config.json and weights.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = read_json(directory, "config.json")
  if is_llava(directory):
    flat, whole = open_llava(directory)
    return _below(flat, "llm/"), whole.llm
  config = config_json.llama_config(raw, directory)
  ignored = tables.LLAMA_IGNORED
  if config.tie_embeddings:
    ignored += r"|lm_head\.weight"
  leaves = tables.llama_leaves(config)
  return open_tensors(directory, files(directory), leaves, (), ignored), config


def is_llava(directory: str) -> bool:
  """Whether it is a Hugging Face Llava; else perhaps `original`."""
  return "text_config" in read_json(directory, "config.json")


def open_llava(
  directory: str,
) -> tuple[dict[str, Tensor], locvlm.LocVLMConfig]:
  """A LlavaForConditionalGeneration.

  Rows of the vocabulary that `write.save_llava` added are dropped again, and
  so is the identity that stands for the second layer of a linear adapter.

  Args:
    directory: with config.json and weights.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = read_json(directory, "config.json")
  stored = config_json.llava_config(raw, directory)
  ignored = tables.LLAVA_IGNORED
  if stored.llm.tie_embeddings:
    ignored += r"|language_model\.lm_head\.weight"
  leaves = tables.llava_leaves(stored)
  flat = open_tensors(
    directory, files(directory), leaves, tables.LLAVA_RENAMES, ignored
  )
  config = _drop_identity(flat, stored, raw, directory)
  _drop_rows(flat, raw)
  return flat, config_json.with_vocabulary(config, raw)


def load_clip_vision(
  directory: str, feature_layer: int | None = None
) -> tuple[Params, clip_vit.VisionConfig]:
  """`open_clip_vision`, read: nested numpy arrays in their stored dtype."""
  flat, config = open_clip_vision(directory, feature_layer)
  return _loaded(flat), config


def load_llama(directory: str) -> tuple[Params, llama.LlamaConfig]:
  """`open_llama`, read: nested numpy arrays in their stored dtype."""
  flat, config = open_llama(directory)
  return _loaded(flat), config


def load_llava(directory: str) -> tuple[Params, locvlm.LocVLMConfig]:
  """`open_llava`, read: nested numpy arrays in their stored dtype."""
  flat, config = open_llava(directory)
  return _loaded(flat), config


def _loaded(flat: Mapping[str, Tensor]) -> Params:
  arrays = {path: tensor.read() for path, tensor in flat.items()}
  return traverse_util.unflatten_dict(arrays, sep="/")


def _below(flat: Flat, prefix: str) -> Flat:
  return {
    path.removeprefix(prefix): tensor
    for path, tensor in flat.items()
    if path.startswith(prefix)
  }


def _drop_identity(flat, config, raw, directory) -> locvlm.LocVLMConfig:
  act = raw.get("projector_hidden_act", "gelu")
  if act == "gelu":
    return config
  kernel = flat.pop("adapter/linear_2").read()
  bias = flat.pop("adapter/linear_2_bias").read()
  identity = (kernel == np.eye(len(kernel))).all() and not bias.any()
  if act != "linear" or not identity:
    raise ValueError(
      f"{directory}: projector_hidden_act {act!r}; wanted 'gelu', or 'linear'"
      " with an identity as linear_2 (which is a linear adapter)"
    )
  return dataclasses.replace(config, adapter="linear")


def _drop_rows(flat: Flat, raw: Mapping) -> None:
  size = raw.get("locvlm_vocab_size")
  if size is None:
    return
  table = flat["llm/embedding"]
  flat["llm/embedding"] = table.cropped((size, table.shape[1]))
  if "llm/head" in flat:
    head = flat["llm/head"]
    flat["llm/head"] = head.cropped((head.shape[0], size))


def read_json(directory: str, name: str) -> dict:
  """A json file of `directory`; ValueError names what is wrong with it."""
  path = os.path.join(directory, name)
  try:
    with open(path, encoding="utf-8") as f:
      return json.load(f)
  except (OSError, json.JSONDecodeError) as error:
    raise ValueError(f"{path}: {error}") from error


def has_weights(directory: str) -> bool:
  """Whether `files` finds any."""
  return bool(_names(directory))


def files(directory: str) -> list[File]:
  """The files of a directory that hold its weights, opened, in order.

  Raises:
    ValueError: there are none, or one can't be read.
  """
  names = _names(directory)
  if not names:
    raise ValueError(
      f"{directory}: no weights there: neither {' nor '.join(WEIGHTS)}, nor an"
      " index of their parts"
    )
  return [open_file(os.path.join(directory, name)) for name in names]


def _names(directory: str) -> list[str]:
  there = set(os.listdir(directory))
  for name in WEIGHTS:
    if (index := f"{name}.index.json") in there:
      return _indexed(directory, index)
    if name in there:
      return [name]
  return []


def _indexed(directory: str, index: str) -> list[str]:
  names = sorted(set(read_json(directory, index)["weight_map"].values()))
  for name in names:
    if os.path.basename(name) != name:
      raise ValueError(f"{directory}: {index} names {name!r}, outside of it")
  return names


def open_file(path: str) -> File:
  """One file of weights, as its name ends: safetensors or PyTorch's .bin.

  Raises:
    ValueError: it is missing, truncated or not such a file.
  """
  return (pickles.File if path.endswith(".bin") else _Safetensors)(path)


def rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
  for pattern, replacement in renames:
    key = re.sub(pattern, replacement, key)
  return key


def open_tensors(
  directory: str,
  files: list[File],
  leaves: list[Leaf],
  renames: Iterable[tuple[str, str]],
  ignored: str,
) -> dict[str, Tensor]:
  """The parameters of a key table by path, checked against the files.

  Args:
    directory: for messages.
    files: of `files` or `open_file`.
    leaves: the key table.
    renames: patterns and replacements that make a file's keys the table's.
    ignored: a pattern of (renamed) keys that are no parameters.

  Raises:
    ValueError: keys that are missing, unknown or there twice; a wrong shape.
  """
  stored = [
    (rename(key, renames), file, key)
    for file in files
    for key in file.keys()  # noqa: SIM118 (not a dict)
  ]
  stored = [s for s in stored if not re.fullmatch(ignored, s[0])]
  _check_keys(directory, leaves, [key for key, _, _ in stored])
  places = {key: (file, name) for key, file, name in stored}
  parts = collections.defaultdict(list)
  for leaf in leaves:
    part = Part(leaf, *places[leaf.key])
    _check_shape(directory, part)
    parts[leaf.path].append(part)
  return {path: _tensor(found) for path, found in parts.items()}


def _tensor(parts: list[Part]) -> Tensor:
  dtypes = [part.file.dtype(part.name) for part in parts]
  return Tensor(tuple(parts), functools.reduce(np.promote_types, dtypes))


def _check_keys(directory: str, leaves: list[Leaf], found: list[str]) -> None:
  """Exactly the table's keys, each once."""
  wanted, counts = {leaf.key for leaf in leaves}, collections.Counter(found)
  problems = {
    "missing": sorted(wanted - counts.keys()),
    "unknown": sorted(counts.keys() - wanted),
    "duplicate": sorted(key for key, n in counts.items() if n > 1),
  }
  text = "; ".join(
    f"{len(keys)} {what}, as {', '.join(keys[:3])}"
    for what, keys in problems.items()
    if keys
  )
  if text:
    raise ValueError(
      f"{directory}: the weights do not match config.json: {text}"
    )


def _check_shape(directory: str, part: Part) -> None:
  shape = part.file.shape(part.name)
  if shape != part.leaf.stored_shape:
    raise ValueError(
      f"{directory}: {part.name} has shape {shape}; config.json asks for"
      f" {part.leaf.stored_shape}"
    )

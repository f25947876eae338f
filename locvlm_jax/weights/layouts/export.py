"""Our parameters -> a Hugging Face directory that transformers loads.

Parameters are arrays (of numpy or on devices), `read.Tensor`s or a run's
`checkpoint.Saved`. A tensor is made when the file that holds it is written,
files are at most 1 GiB, or one tensor, and all layers of a parameter follow
each other: more than one file and one parameter is never in memory.
"""

import dataclasses
import errno
import functools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from locvlm_jax import errors
from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.text import tokenizer
from locvlm_jax.weights import frozen, lora_merge, placement, quantizing, stored
from locvlm_jax.weights.layouts import config_json, processor_json, tables
from locvlm_jax.weights.layouts.tables import Leaf

Params = dict[str, Any]
Flat = dict[str, Any]

FILE_BYTES = 1 << 30
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNKNOWN = processor_json.Usage()
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")


@dataclasses.dataclass(frozen=True)
class _Stored:
  """A tensor of the directory: `make` gives it, in any dtype."""

  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[], np.ndarray]

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize

  def array(self) -> np.ndarray:
    return np.ascontiguousarray(self.make(), self.dtype)


def save_clip_vision(
  directory: str,
  params: Params,
  config: clip_vit.VisionConfig,
  dtype: Any = None,
) -> None:
  """Writes a CLIPVisionModel that transformers loads.

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested.
    config: the tower's shape.
    dtype: as stored; None: that of each parameter.

  Raises:
    ValueError: params do not fit config.
  """
  tensors = _tensors(_flat(params), tables.clip_leaves(config), dtype)
  _write(directory, tensors, config_json.vision_json(config))


def save_llama(
  directory: str,
  params: Params,
  config: llama.LlamaConfig,
  dtype: Any = None,
  tokenizer_dir: str | None = None,
) -> None:
  """Writes a LlamaForCausalLM (with biases: a Qwen2ForCausalLM).

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested.
    config: the model's shape.
    dtype: as stored; None: that of each parameter.
    tokenizer_dir: whose tokenizer is copied, truncation and padding aside.

  Raises:
    ValueError: params do not fit config.
  """
  tensors = _tensors(_flat(params), tables.llama_leaves(config), dtype)
  raw = config_json.llama_json(config)
  if tokenizer_dir:
    text = tokenizer.Tokenizer.load(tokenizer_dir)
    raw |= processor_json.token_ids(text)

  def add(folder: str) -> None:
    if tokenizer_dir:
      tokenizer.copy_files(tokenizer_dir, folder)

  _write(directory, tensors, raw, add)


def save_llava(
  directory: str,
  params: Params,
  config: locvlm.LocVLMConfig,
  tokenizer_dir: str | None = None,
  dtype: Any = None,
  usage: processor_json.Usage = _UNKNOWN,
) -> None:
  """Writes a LlavaForConditionalGeneration that transformers loads.

  transformers marks visual tokens by an id of the vocabulary: the first one
  that the tokenizer leaves free ("<image>", added to the tokenizer's copy),
  for which the embedding and the head grow if they must. A linear adapter
  becomes linear_1, activation "linear" and an identity as linear_2, because
  transformers always has both.

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested.
    config: the model's shape.
    tokenizer_dir: of a tokenizer (`tokenizer.open_files`), to be copied.
    dtype: as stored; None: that of each parameter.
    usage: how pictures and conversations are put to it, for the files that
      transformers' AutoProcessor reads.

  Raises:
    ValueError: params do not fit config.
  """
  flat, size = _flat(params), config.llm.vocab_size
  tensors = _tensors(flat, tables.llava_leaves(config), dtype)
  if config.adapter == "linear":
    tensors |= _identity(tensors["multi_modal_projector.linear_1.bias"])
  text, image_id = None, size
  if tokenizer_dir:
    text = tokenizer.Tokenizer.load(tokenizer_dir)
    backend = tokenizer.with_image(tokenizer.open_files(tokenizer_dir)[0])
    image_id = backend.token_to_id(tokenizer.IMAGE)
  rows = max(size, image_id + 1)
  tensors |= _grown(tensors, rows - size)
  raw = config_json.llava_json(config, rows, image_id, usage.program)
  if text:
    raw["text_config"] |= processor_json.token_ids(text)
    raw["pad_token_id"] = text.pad_id

  def add(folder: str) -> None:
    if tokenizer_dir:
      _write_tokenizer(folder, tokenizer_dir)
    strategy = raw["vision_feature_select_strategy"]
    processor_json.write_files(folder, config, strategy, usage, text)

  _write(directory, tensors, raw, add)


def _identity(bias: _Stored) -> dict[str, _Stored]:
  """A second linear layer that changes nothing."""
  (width,) = bias.shape
  prefix = "multi_modal_projector.linear_2"
  return {
    f"{prefix}.weight": dataclasses.replace(
      bias, shape=(width, width), make=lambda: np.eye(width)
    ),
    f"{prefix}.bias": dataclasses.replace(bias, make=lambda: np.zeros(width)),
  }


def _grown(tensors: Mapping[str, _Stored], more: int) -> dict[str, _Stored]:
  """Embedding and head with `more` rows.

  A new embedding is never read: visual tokens replace it. A new row of the
  head repeats that of id 0 (<unk>), so that it wins as rarely.
  """
  keys = (
    "language_model.model.embed_tokens.weight",
    "language_model.lm_head.weight",
  )

  def grow(old: _Stored, factor: int) -> np.ndarray:
    rows = old.array()
    return np.concatenate([rows, np.repeat(rows[:1] * factor, more, axis=0)])

  return {
    key: dataclasses.replace(
      old,
      shape=(old.shape[0] + more, *old.shape[1:]),
      make=functools.partial(grow, old, factor),
    )
    for key, factor in zip(keys, (0, 1), strict=True)
    if more and (old := tensors.get(key))
  }


def _write_tokenizer(folder: str, source: str) -> None:
  """Writes the tokenizer of `source` with <image> added."""
  backend, specials = tokenizer.open_files(source)
  tokenizer.write_files(folder, tokenizer.with_image(backend), specials)
  # What a directory says itself about its tokenizer.json stays.
  if os.path.exists(os.path.join(source, "tokenizer.json")):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
      if os.path.exists(path := os.path.join(source, name)):
        shutil.copyfile(path, os.path.join(folder, name))
  # transformers continues rows of a batch, so that they have to end alike.
  path = os.path.join(folder, "tokenizer_config.json")
  if os.path.exists(path):
    with open(path, encoding="utf-8") as f:
      content = json.load(f)
    _write_json(
      folder, "tokenizer_config.json", content | {"padding_side": "left"}
    )


def _flat(params: Params) -> Flat:
  return traverse_util.flatten_dict(params, sep="/")


def _tensors(flat: Flat, leaves: list[Leaf], dtype: Any) -> dict[str, _Stored]:
  """Stored key -> what will be written, for all leaves.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  _check(flat, leaves)
  newest = functools.lru_cache(1)(lambda path: _read(flat[path]))
  return {
    leaf.key: _Stored(
      leaf.stored_shape,
      np.dtype(dtype or flat[leaf.path].dtype),
      functools.partial(_made, leaf, newest),
    )
    for leaf in sorted(leaves, key=lambda leaf: leaf.path)  # layers in order
  }


def _check(flat: Flat, leaves: list[Leaf]) -> None:
  paths = {leaf.path for leaf in leaves}
  if wrong := sorted(paths ^ flat.keys()):
    raise ValueError(f"parameters do not match the config: {wrong[:3]}")
  for leaf in leaves:
    shape = flat[leaf.path].shape
    shape = shape if leaf.layer is None else shape[1:]
    if shape != leaf.shape:
      raise ValueError(
        f"{leaf.path} has shape {shape}; the config asks for {leaf.shape}"
      )


def _read(value: Any) -> Any:
  """A run's parameter into memory; the others are there, or read in parts."""
  whole = (
    stored.StoredArray,
    lora_merge.Merged,
    frozen.Referred,
    quantizing.Dequantized,
  )
  return value.read() if isinstance(value, whole) else value


def _made(leaf: Leaf, newest: Callable[[str], Any]) -> np.ndarray:
  """One layer of a parameter (or all of it) as it is stored."""
  value = newest(leaf.path)
  if isinstance(value, placement.Tensor):
    return leaf.stored(value.parts[leaf.layer or 0].whole())
  return leaf.stored(
    np.asarray(value if leaf.layer is None else value[leaf.layer])
  )


def _write(
  directory: str,
  tensors: Mapping[str, _Stored],
  config: dict,
  add: Callable[[str], None] = lambda folder: None,
) -> None:
  """Writes a directory so that no half-written file is ever seen.

  Everything is written beside it and then moved: at once where the directory
  is new, else file by file, config.json last, so that other files in it stay.

  Raises:
    SaveFailed: the disk is too small.
  """
  parent = os.path.dirname(os.path.abspath(directory))
  os.makedirs(parent, exist_ok=True)
  size = sum(tensor.nbytes for tensor in tensors.values())
  if shutil.disk_usage(parent).free < size:
    raise _too_small(directory, parent, f"{size:,} bytes do not fit")
  temporary = tempfile.mkdtemp(prefix=".partial-", dir=parent)
  try:
    _write_weights(temporary, tensors)
    dtype = str(next(iter(tensors.values())).dtype)
    _write_json(temporary, "config.json", config | {"dtype": dtype})
    add(temporary)
    for name in os.listdir(temporary):
      os.chmod(os.path.join(temporary, name), 0o644)
    os.chmod(temporary, 0o755)
    _move(temporary, directory)
  except (OSError, safetensors.SafetensorError) as error:
    if not _is_full(error):
      raise
    raise _too_small(directory, parent, str(error)) from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _is_full(error: Exception) -> bool:
  """Whether a disk or a quota is used up; safetensors tells it in words."""
  if isinstance(error, OSError):
    return error.errno in _FULL
  return any(f"os error {number}" in str(error) for number in _FULL)


def _too_small(directory: str, parent: str, why: str) -> errors.SaveFailed:
  free = shutil.disk_usage(parent).free
  return errors.SaveFailed(
    f"{directory}: not written: {why} ({free:,} bytes are free). Make room, or"
    " write to another directory."
  )


def _write_weights(directory: str, tensors: Mapping[str, _Stored]) -> None:
  """One file, or several and their index."""
  files = _grouped(tensors)
  index = {}
  for i, keys in enumerate(files, 1):
    name = f"model-{i:05}-of-{len(files):05}.safetensors"
    name = name if len(files) > 1 else "model.safetensors"
    # transformers refuses files that do not name a framework.
    safetensors.numpy.save_file(
      {key: tensors[key].array() for key in keys},
      os.path.join(directory, name),
      metadata={"format": "pt"},
    )
    index |= dict.fromkeys(keys, name)
  if len(files) > 1:
    total = sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": index}
    _write_json(directory, "model.safetensors.index.json", content)


def _grouped(tensors: Mapping[str, _Stored]) -> list[list[str]]:
  """The keys of each file."""
  groups, filled = [[]], 0
  for key, tensor in tensors.items():
    if groups[-1] and filled + tensor.nbytes > FILE_BYTES:
      groups.append([])
      filled = 0
    groups[-1].append(key)
    filled += tensor.nbytes
  return groups


def _write_json(directory: str, name: str, content: dict) -> None:
  with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
    json.dump(content, f, indent=2, sort_keys=True)


def _move(temporary: str, directory: str) -> None:
  if not os.path.exists(directory):
    os.rename(temporary, directory)
    return
  # Without its config.json it is no model until all of the new one is there.
  config = os.path.join(directory, "config.json")
  if os.path.exists(config):
    os.remove(config)
  # What was there about another model's pictures and prompts is not this one's.
  for name in os.listdir(directory):
    if _WEIGHTS.fullmatch(name) or name in processor_json.NAMES:
      os.remove(os.path.join(directory, name))
  names = sorted(os.listdir(temporary), key=lambda n: (n == "config.json", n))
  for name in names:
    os.replace(os.path.join(temporary, name), os.path.join(directory, name))

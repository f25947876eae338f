"""A Hugging Face directory -> our parameters, read only where they are used.

A directory holds config.json and model.safetensors or pytorch_model.bin, or
the parts of either and their index. `open_*` checks every key and shape and
reads no tensor; what it returns is read by `Tensor.place`, onto a mesh, layer
by layer and each device's slice alone, or by `Tensor.read`, as numpy. `load_*`
do the latter for all.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from locvlm_jax import errors
from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.weights import placement
from locvlm_jax.weights.layouts import config_json, tables, tensor_files
from locvlm_jax.weights.layouts.json_fields import Fields
from locvlm_jax.weights.layouts.tables import Leaf

Params = dict[str, Any]
Flat = dict[str, Any]


def open_clip_vision(
  directory: str, feature_layer: int | None = None
) -> tuple[dict[str, placement.Tensor], clip_vit.VisionConfig]:
  """Opens a CLIPVisionModel, or the vision tower of a CLIPModel or a Llava.

  Args:
    directory: with config.json and weights.
    feature_layer: see VisionConfig; None: as stored there, else -2.

  Returns:
    The parameters by path, still on disk, and the tower's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  fields = Fields.read(directory, "config.json")
  whole = "vision_config" in fields
  tower = fields.inner("vision_config") if whole else fields
  config = config_json.vision_config(tower)
  config = config_json.with_feature_layer(config, fields, feature_layer)
  leaves = tables.clip_leaves(config)
  renames, ignored = tables.CLIP_RENAMES, tables.CLIP_IGNORED
  return open_tensors(
    directory, tensor_files.files(directory), leaves, renames, ignored
  ), config


def open_llama(
  directory: str,
) -> tuple[dict[str, placement.Tensor], llama.LlamaConfig]:
  """Opens a LlamaForCausalLM, or the LLM of a Llava.

  A Qwen2ForCausalLM is the same with biases, and is read too.

  Args:
    directory: with config.json and weights.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  if is_llava(directory):
    flat, whole = open_llava(directory)
    return _below(flat, "llm/"), whole.llm
  config = config_json.llama_config(Fields.read(directory, "config.json"))
  files = tensor_files.files(directory)
  ignored = tables.LLAMA_IGNORED
  if config.tie_embeddings:
    ignored += r"|lm_head\.weight"
  leaves = tables.llama_leaves(config)
  flat = open_tensors(directory, files, leaves, (), ignored)
  if config.tie_embeddings:
    check_tied(files, (), flat["embedding"])
  return flat, config


def is_llava(directory: str) -> bool:
  """Says whether it is a Hugging Face Llava; else perhaps `original`."""
  return "text_config" in Fields.read(directory, "config.json")


def open_llava(
  directory: str,
) -> tuple[dict[str, placement.Tensor], locvlm.LocVLMConfig]:
  """Opens a LlavaForConditionalGeneration.

  Rows of the vocabulary that `write.save_llava` added are dropped again, and
  so is the identity that stands for the second layer of a linear adapter.

  Args:
    directory: with config.json and weights.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  fields = Fields.read(directory, "config.json")
  stored = config_json.llava_config(fields)
  files, renames = tensor_files.files(directory), tables.LLAVA_RENAMES
  ignored = tables.LLAVA_IGNORED
  if stored.llm.tie_embeddings:
    ignored += r"|language_model\.lm_head\.weight"
  leaves = tables.llava_leaves(stored)
  flat = open_tensors(directory, files, leaves, renames, ignored)
  if stored.llm.tie_embeddings:
    check_tied(files, renames, flat["llm/embedding"])
  config = _drop_identity(flat, stored, fields)
  config = config_json.with_vocabulary(config, fields)
  _drop_rows(flat, config.llm.vocab_size)
  return flat, config


def load_clip_vision(
  directory: str, feature_layer: int | None = None
) -> tuple[Params, clip_vit.VisionConfig]:
  """Reads `open_clip_vision`'s: nested numpy arrays in their stored dtype."""
  flat, config = open_clip_vision(directory, feature_layer)
  return _loaded(flat), config


def load_llama(directory: str) -> tuple[Params, llama.LlamaConfig]:
  """Reads `open_llama`'s: nested numpy arrays in their stored dtype."""
  flat, config = open_llama(directory)
  return _loaded(flat), config


def load_llava(directory: str) -> tuple[Params, locvlm.LocVLMConfig]:
  """Reads `open_llava`'s: nested numpy arrays in their stored dtype."""
  flat, config = open_llava(directory)
  return _loaded(flat), config


def _loaded(flat: Mapping[str, placement.Tensor]) -> Params:
  arrays = {path: tensor.read() for path, tensor in flat.items()}
  return traverse_util.unflatten_dict(arrays, sep="/")


def _below(flat: Flat, prefix: str) -> Flat:
  return {
    path.removeprefix(prefix): tensor
    for path, tensor in flat.items()
    if path.startswith(prefix)
  }


def _drop_identity(
  flat: Flat, config: locvlm.LocVLMConfig, fields: Fields
) -> locvlm.LocVLMConfig:
  """Makes an adapter linear whose second layer changes nothing."""
  identities = config_json.IDENTITY.values()
  act = fields.only("projector_hidden_act", "gelu", "gelu", *identities)
  if act == "gelu":
    return config
  kernel = flat.pop("adapter/linear_2").read()
  bias = flat.pop("adapter/linear_2_bias").read()
  if (kernel != np.eye(len(kernel))).any() or bias.any():
    raise ValueError(
      f"{fields.path}: projector_hidden_act {act!r} can only be read with an"
      " identity as linear_2 (which is a linear adapter)"
    )
  return dataclasses.replace(config, adapter="linear")


def _drop_rows(flat: Flat, size: int) -> None:
  """Drops the rows of the vocabulary that an export added."""
  table = flat["llm/embedding"]
  flat["llm/embedding"] = table.cropped((size, table.shape[1]))
  if "llm/head" in flat:
    head = flat["llm/head"]
    flat["llm/head"] = head.cropped((head.shape[0], size))


def check_tied(
  files: Iterable[tensor_files.File],
  renames: Iterable[tuple[str, str]],
  embedding: placement.Tensor,
) -> None:
  """Refuses a head of its own where config.json says that it is tied.

  Raises:
    DataError: a file has a head that is not the embedding.
  """
  rows = embedding.read()
  for file in files:
    for key in file.keys():  # noqa: SIM118 (not a dict)
      if not rename(key, renames).endswith("lm_head.weight"):
        continue
      same = file.shape(key) == rows.shape
      if not same or (file.read(key, (slice(None),) * 2) != rows).any():
        raise errors.DataError(
          f"{file.path}: {key} is not the embedding, though config.json has"
          " tie_word_embeddings true: it would be lost. Correct that field."
        )


def rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
  for pattern, replacement in renames:
    key = re.sub(pattern, replacement, key)
  return key


def open_tensors(
  directory: str,
  files: list[tensor_files.File],
  leaves: list[Leaf],
  renames: Iterable[tuple[str, str]],
  ignored: str,
) -> dict[str, placement.Tensor]:
  """Opens the parameters of a key table by path, checked against the files.

  Args:
    directory: for messages.
    files: of `files` or `open_file`.
    leaves: the key table.
    renames: patterns and replacements that make a file's keys the table's.
    ignored: a pattern of (renamed) keys that are no parameters.

  Raises:
    DataError: keys that are missing, unknown or there twice; a wrong shape.
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
    part = placement.Part(leaf, *places[leaf.key])
    check_part(directory, part)
    parts[leaf.path].append(part)
  return {path: _tensor(found) for path, found in parts.items()}


def _tensor(parts: list[placement.Part]) -> placement.Tensor:
  dtypes = [part.file.dtype(part.name) for part in parts]
  return placement.Tensor(
    tuple(parts), functools.reduce(np.promote_types, dtypes)
  )


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
    raise errors.DataError(
      f"{directory}: the weights do not match config.json: {text}"
    )


def check_part(directory: str, part: placement.Part) -> None:
  """Refuses a tensor of another shape, or one that is quantized.

  Raises:
    DataError: names file and tensor.
  """
  shape = part.file.shape(part.name)
  if shape != part.leaf.stored_shape:
    raise errors.DataError(
      f"{directory}: {part.name} has shape {shape}; config.json asks for"
      f" {part.leaf.stored_shape}"
    )
  dtype = part.file.dtype(part.name)
  if dtype.kind not in "fV":  # V: bfloat16
    raise errors.DataError(
      f"{directory}: {part.name} is {dtype}: only floating-point weights can be"
      " read"
    )

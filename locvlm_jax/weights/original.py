"""LLaVA's own checkpoints -> our parameters (`LLaVA:llava/model/builder.py`).

  directory holds                 LLM from        projector from
  a whole model (llava-v1.5-7b)   there           there
  mm_projector.bin                there or base   mm_projector.bin
  a LoRA (adapter_config.json)    base, merged    non_lora_trainables.bin

The vision tower is in few of them; else it comes from CLIP's own directory,
which is needed in any case: LLaVA's config.json does not give its shape.
"""

import collections
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Mapping

import numpy as np

from locvlm_jax import errors
from locvlm_jax.models import locvlm
from locvlm_jax.weights import (
  config_json,
  huggingface,
  placement,
  tables,
  tensor_files,
)
from locvlm_jax.weights.placement import Tensor

_PROJECTORS = {"linear": "linear", "mlp2x_gelu": "mlp"}
_PROJECTOR_FILES = ("non_lora_trainables.bin", "mm_projector.bin")
_LORA_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_LORA_KEY = re.compile(
  r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight"
)


def open_llava(
  directory: str, vision: str, base: str = ""
) -> tuple[dict[str, Tensor], locvlm.LocVLMConfig]:
  """Opens a checkpoint of LLaVA's repository; see the module.

  Args:
    directory: with config.json.
    vision: a Hugging Face CLIP directory.
    base: the LLM's directory, where `directory` has none or a LoRA of it.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  config = _config(directory, vision)
  there = os.listdir(directory)
  lora = "adapter_config.json" in there
  home = base if lora or not tensor_files.has_weights(directory) else directory
  if not home:
    raise ValueError(
      f"{directory} holds no language model of its own: name its base's"
      " directory too"
    )
  extra = [name for name in _PROJECTOR_FILES if name in there][:1]
  flat = _whole(home, config, projector=not extra)
  flat |= _projector(directory, extra, config) if extra else {}
  flat = _merged(flat, directory) if lora else flat
  return _with_tower(flat, vision, config), config


def is_llava(directory: str) -> bool:
  """Says whether `open_llava` is for it: LLaVA's fields, projector or LoRA."""
  files = {"adapter_config.json", *_PROJECTOR_FILES}
  raw = tensor_files.read_json(directory, "config.json")
  return (
    "mm_projector_type" in raw
    or "mm_hidden_size" in raw
    or bool(files & set(os.listdir(directory)))
  )


def _config(directory: str, vision: str) -> locvlm.LocVLMConfig:
  raw = tensor_files.read_json(directory, "config.json")
  kind = raw.get("mm_projector_type", "linear")
  feature = raw.get("mm_vision_select_feature", "patch")
  if kind not in _PROJECTORS or feature != "patch":
    raise ValueError(
      f"{directory}: mm_projector_type {kind!r}, mm_vision_select_feature"
      f" {feature!r}; only {[*_PROJECTORS]} and 'patch' can be read"
    )
  if not vision:
    raise ValueError(
      f"{directory}: name the directory of its vision tower too"
      f" ({raw.get('mm_vision_tower', 'CLIP ViT-L/14')})"
    )
  layer = raw.get("mm_vision_select_layer", -2)
  return locvlm.LocVLMConfig(
    vision=huggingface.open_clip_vision(vision, layer)[1],
    adapter=_PROJECTORS[kind],
    llm=config_json.llama_config({**raw, "model_type": "llama"}, directory),
  )


def _whole(
  home: str, config: locvlm.LocVLMConfig, projector: bool
) -> dict[str, Tensor]:
  """The LLM, the projector if it is wanted, the vision tower if it is there."""
  files = tensor_files.files(home)
  keys = itertools.chain.from_iterable(file.keys() for file in files)
  tower = any("vision_tower" in key for key in keys)
  parts = ["llm/"] + ["adapter/"] * projector + ["vision/"] * tower
  ignored = tables.LLAVA_IGNORED
  if not projector:
    ignored += r"|multi_modal_projector\..*"
  if config.llm.tie_embeddings:
    ignored += r"|language_model\.lm_head\.weight"
  return huggingface.open_tensors(
    home, files, _leaves(config, *parts), tables.ORIGINAL_RENAMES, ignored
  )


def _projector(
  directory: str, names: list[str], config: locvlm.LocVLMConfig
) -> dict[str, Tensor]:
  files = [
    tensor_files.open_file(os.path.join(directory, name)) for name in names
  ]
  return huggingface.open_tensors(
    directory,
    files,
    _leaves(config, "adapter/"),
    tables.ORIGINAL_RENAMES,
    r"(?!multi_modal_projector).*",
  )


def _leaves(config: locvlm.LocVLMConfig, *parts: str) -> list[tables.Leaf]:
  return [x for x in tables.llava_leaves(config) if x.path.startswith(parts)]


def _with_tower(flat, vision, config) -> dict[str, Tensor]:
  if any(path.startswith("vision/") for path in flat):
    return flat
  tensors, _ = huggingface.open_clip_vision(vision, config.vision.feature_layer)
  return flat | {f"vision/{path}": t for path, t in tensors.items()}


@dataclasses.dataclass(frozen=True)
class _Lora:
  """A stored kernel plus scale * up @ down, merged as it is read."""

  part: placement.Part
  file: tensor_files.File
  keys: Mapping[str, str]  # "A" (down) and "B" (up) -> name in `file`
  scale: float

  @property
  def path(self) -> str:
    return self.file.path

  def shape(self, key: str) -> tuple[int, ...]:
    return self.part.file.shape(key)

  def dtype(self, key: str) -> np.dtype:
    return self.part.file.dtype(key)

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
    rows, columns = index
    kernel = self.part.file.read(key, index)
    up = self.file.read(self.keys["B"], (rows, slice(None)))
    down = self.file.read(self.keys["A"], (slice(None), columns))
    delta = self.scale * (up.astype(np.float32) @ down.astype(np.float32))
    return (kernel.astype(np.float32) + delta).astype(kernel.dtype)


def _merged(flat: dict[str, Tensor], directory: str) -> dict[str, Tensor]:
  """`flat` with the LoRA's share in every kernel that it adapts."""
  scale = _scale(directory)
  there = os.listdir(directory)
  names = [name for name in _LORA_FILES if name in there]
  if not names:
    names = " nor ".join(_LORA_FILES)
    raise errors.DataError(f"{directory}: neither {names} there")
  file = tensor_files.open_file(os.path.join(directory, names[0]))
  pairs = _pairs(file)

  def merge(part):
    keys = pairs.pop(part.leaf.key, None)
    if not keys:
      return part
    _check_pair(part, file, keys)
    return dataclasses.replace(part, file=_Lora(part, file, keys, scale))

  flat = {
    path: dataclasses.replace(t, parts=tuple(map(merge, t.parts)))
    for path, t in flat.items()
  }
  if pairs:
    raise errors.DataError(
      f"{file.path}: adapts {next(iter(pairs))}, which the base does not have"
    )
  return flat


def _scale(directory: str) -> float:
  """alpha / r; with rsLoRA alpha / sqrt(r)."""
  raw = tensor_files.read_json(directory, "adapter_config.json")
  for name in ("rank_pattern", "alpha_pattern", "use_dora"):
    if raw.get(name):
      raise ValueError(f"{directory}: {name} {raw[name]!r} can't be merged")
  rank = raw["r"]
  return raw["lora_alpha"] / (
    math.sqrt(rank) if raw.get("use_rslora") else rank
  )


def _pairs(file: tensor_files.File) -> dict[str, dict[str, str]]:
  """Key of the kernel -> the keys of its A and B."""
  pairs = collections.defaultdict(dict)
  for key in file.keys():
    match = _LORA_KEY.fullmatch(key)
    if not match:
      raise errors.DataError(f"{file.path}: unknown key {key}")
    kernel = huggingface.rename(f"{match[1]}.weight", tables.ORIGINAL_RENAMES)
    pairs[kernel][match[2]] = key
  if lonely := [kernel for kernel, keys in pairs.items() if len(keys) != 2]:
    raise errors.DataError(f"{file.path}: only one of A and B for {lonely[0]}")
  return dict(pairs)


def _check_pair(
  part: placement.Part, file: tensor_files.File, keys: Mapping[str, str]
):
  up, down = file.shape(keys["B"]), file.shape(keys["A"])
  if (up[0], down[1]) != part.leaf.stored_shape or up[1] != down[0]:
    raise errors.DataError(
      f"{file.path}: {up} x {down} does not fit {part.name}, which is"
      f" {part.leaf.stored_shape}"
    )

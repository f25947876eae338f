"""LoRA as PEFT stores it, merged into the kernels as they are read.

A directory holds adapter_config.json and adapter_model.safetensors or .bin: A
and B of each kernel that is adapted, and whole tensors that were trained beside
them (PEFT's modules_to_save).
"""

import collections
import dataclasses
import math
import os
import re
from collections.abc import Mapping

import numpy as np

from locvlm_jax import errors
from locvlm_jax.weights import placement
from locvlm_jax.weights.layouts import huggingface, tables, tensor_files
from locvlm_jax.weights.layouts.json_fields import Fields
from locvlm_jax.weights.placement import Tensor

_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
# Settings under which the product of A and B is not what is added.
_VARIANTS = (
  "rank_pattern", "alpha_pattern", "use_dora", "fan_in_fan_out", "lora_bias",
  "layer_replication", "use_qalora", "alora_invocation_tokens",
  "trainable_token_indices", "target_parameters",
)  # fmt: skip


def is_there(directory: str) -> bool:
  """Says whether a directory holds a LoRA."""
  return tensor_files.ADAPTER in os.listdir(directory)


def merged(flat: Mapping[str, Tensor], directory: str) -> dict[str, Tensor]:
  """Adds a LoRA's share to every kernel that it adapts.

  Args:
    flat: the parameters of its base, by path.
    directory: of the LoRA.

  Raises:
    DataError: files that are malformed, or are of another model.
    ValueError: a variant of LoRA that can't be merged.
  """
  fields = Fields.read(directory, tensor_files.ADAPTER)
  scale, rank = _scale(fields)
  there = os.listdir(directory)
  names = [name for name in _FILES if name in there]
  if not names:
    raise errors.DataError(f"{directory}: neither {' nor '.join(_FILES)} there")
  file = tensor_files.open_file(os.path.join(directory, names[0]))
  pairs, whole = _sorted(file)
  flat = replaced(flat, file, whole)

  def merge(part: placement.Part) -> placement.Part:
    if not (keys := pairs.pop(part.leaf.key, None)):
      return part
    _check_pair(part, file, keys, rank)
    return dataclasses.replace(part, file=_Lora(part, file, keys, scale))

  flat = with_parts(flat, merge)
  if pairs:
    raise errors.DataError(
      f"{file.path}: adapts {next(iter(pairs))}, which the base does not have"
    )
  return flat


def replaced(
  flat: Mapping[str, Tensor], file: tensor_files.File, keys: Mapping[str, str]
) -> dict[str, Tensor]:
  """Puts tensors of a file in the place of a model's own.

  Args:
    flat: the model's parameters, by path.
    file: has the tensors.
    keys: what the key tables call a tensor -> its name in `file`.

  Raises:
    DataError: a tensor that the model does not have, or of another shape.
  """
  left = dict(keys)

  def replace(part: placement.Part) -> placement.Part:
    if not (name := left.pop(part.leaf.key, None)):
      return part
    new = placement.Part(part.leaf, file, name)
    huggingface.check_part(file.path, new)
    return new

  flat = with_parts(flat, replace)
  if left:
    raise errors.DataError(
      f"{file.path}: {next(iter(left.values()))} is no tensor of the model that"
      " config.json describes, and would be lost"
    )
  return flat


def with_parts(flat: Mapping[str, Tensor], change) -> dict[str, Tensor]:
  """Applies `change` to every stored tensor that parameters consist of."""
  return {
    path: dataclasses.replace(t, parts=tuple(map(change, t.parts)))
    for path, t in flat.items()
  }


def table_keys(file: tensor_files.File) -> dict[str, str]:
  """Returns what the key tables call each tensor -> its name in the file.

  Raises:
    DataError: two tensors are the same one by two names.
  """
  found = {}
  for name in file.keys():  # noqa: SIM118 (not a dict)
    key = huggingface.rename(name, tables.ORIGINAL_RENAMES)
    if key in found:
      raise errors.DataError(
        f"{file.path}: {name} and {found[key]} are the same tensor"
      )
    found[key] = name
  return found


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

  def keys_(self) -> list[str]:
    return [self.part.name]

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


def _scale(fields: Fields) -> tuple[float, int]:
  """(alpha / rank, or with rsLoRA alpha / sqrt(rank); the rank)."""
  fields.only("peft_type", "LORA", "LORA")
  for name in _VARIANTS:
    if fields.get(name):
      raise ValueError(
        f"{fields.path}: {name} {fields.get(name)!r:.200} can't be merged"
      )
  # Others change the base when it is loaded.
  fields.only("init_lora_weights", True, True, False, "gaussian")
  rank, alpha = fields.size("r"), fields.number("lora_alpha")
  rooted = fields.flag("use_rslora", False)
  return alpha / (math.sqrt(rank) if rooted else rank), rank


def _sorted(
  file: tensor_files.File,
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
  """({kernel: {"A": name, "B": name}}, the whole tensors: {key: name})."""
  pairs, whole = collections.defaultdict(dict), {}
  for key, name in table_keys(file).items():
    if match := _KEY.fullmatch(name):
      kernel = huggingface.rename(f"{match[1]}.weight", tables.ORIGINAL_RENAMES)
      pairs[kernel][match[2]] = name
    else:
      whole[key] = name
  if lonely := [kernel for kernel, keys in pairs.items() if len(keys) != 2]:
    raise errors.DataError(f"{file.path}: only one of A and B for {lonely[0]}")
  return dict(pairs), whole


def _check_pair(
  part: placement.Part,
  file: tensor_files.File,
  keys: Mapping[str, str],
  rank: int,
) -> None:
  up, down = file.shape(keys["B"]), file.shape(keys["A"])
  if (*up, *down) != (
    part.leaf.stored_shape[0],
    rank,
    rank,
    part.leaf.stored_shape[-1],
  ):
    raise errors.DataError(
      f"{file.path}: {up} x {down} does not fit {part.name}, which is"
      f" {part.leaf.stored_shape}, with the rank {rank} of"
      f" {tensor_files.ADAPTER}"
    )

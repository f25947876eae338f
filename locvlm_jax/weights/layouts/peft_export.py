"""A run's LoRA as PEFT stores it, beside the Llava that it adapts.

A directory receives

  adapter_model.safetensors   A [rank, in] and B [out, rank] of each kernel
  adapter_config.json         rank, alpha, and the names of the kernels
  base/                       the Llava without the updates
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from locvlm_jax import files
from locvlm_jax.models.lora import LoraConfig
from locvlm_jax.weights.layouts import tables, tensor_files

WEIGHTS, BASE = "adapter_model.safetensors", "base"
_LAYERS = "model.language_model.layers"  # in a LlavaForConditionalGeneration


def save_lora(
  directory: str, updates: Mapping[str, Any], lora: LoraConfig, dtype: Any
) -> None:
  """Writes the updates; `base` in the same directory is their model.

  Args:
    directory: where they go; files of the same names are replaced.
    updates: {path: parameter}, those of `split` that are read.
    lora: rank, alpha and targets.
    dtype: as stored.
  """
  tensors = {
    name: np.ascontiguousarray(x, dtype)
    for path, value in updates.items()
    for name, x in _stored(path, np.asarray(value.read()), lora.rank)
  }
  with files.replacing(os.path.join(directory, WEIGHTS), "wb") as f:
    f.write(safetensors.numpy.save(tensors, {"format": "pt"}))
  path = os.path.join(directory, tensor_files.ADAPTER)
  files.write_json(path, adapter_json(directory, lora))


def split(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits a run's parameters by path: (the updates, all others)."""
  updates = {p: x for p, x in flat.items() if "_lora_" in p}
  return updates, {p: x for p, x in flat.items() if p not in updates}


def adapter_json(directory: str, lora: LoraConfig) -> dict:
  """Describes the updates as peft.LoraConfig does."""
  ends = {_module(target): None for target in lora.targets}
  names = "|".join(end.replace(".", r"\.") for end in ends)
  layers = _LAYERS.replace(".", r"\.")
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": os.path.abspath(os.path.join(directory, BASE)),
    "r": lora.rank,
    "lora_alpha": lora.alpha,
    "lora_dropout": lora.dropout,
    # The vision tower has kernels of the same last names.
    "target_modules": rf"{layers}\.\d+\.({names})",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "modules_to_save": None,
    "use_rslora": False,
  }


def _module(target: str) -> str:
  """Names a kernel as transformers does: q -> self_attn.q_proj."""
  part = "mlp" if f"mlp/{target}" in tables.LLAMA_LAYER else "attention"
  return tables.LLAMA_LAYER[f"{part}/{target}"][0].removesuffix(".weight")


def _stored(path: str, value: np.ndarray, rank: int):
  """Yields (PEFT's name, the matrix) of each layer of a parameter."""
  target, _, which = path.rpartition("/")[2].partition("_lora_")
  for layer, x in enumerate(value):
    matrix = x.reshape(-1, rank) if which == "a" else x.reshape(rank, -1)
    name = f"{_LAYERS}.{layer}.{_module(target)}.lora_{which.upper()}"
    yield f"base_model.model.{name}.weight", matrix.T

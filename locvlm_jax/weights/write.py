"""Our parameters -> a Hugging Face directory that transformers loads."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import safetensors.numpy
import tokenizers
from flax import traverse_util

from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.weights import config_json, tables
from locvlm_jax.weights.tables import Leaf

Params = dict[str, Any]
Flat = dict[str, Any]

WEIGHTS = "model.safetensors"


def save_clip_vision(
  directory: str, params: Params, config: clip_vit.VisionConfig
) -> None:
  """Writes a CLIPVisionModel that transformers loads.

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested; their dtype is the stored one.
    config: the tower's shape.

  Raises:
    ValueError: params do not fit config.
  """
  tensors = _tensors(_flat(params), tables.clip_leaves(config))
  _write(directory, tensors, config_json.vision_json(config))


def save_llama(
  directory: str, params: Params, config: llama.LlamaConfig
) -> None:
  """Writes a LlamaForCausalLM (with biases: a Qwen2ForCausalLM).

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested; their dtype is the stored one.
    config: the model's shape.

  Raises:
    ValueError: params do not fit config.
  """
  tensors = _tensors(_flat(params), tables.llama_leaves(config))
  _write(directory, tensors, config_json.llama_json(config))


def save_llava(
  directory: str,
  params: Params,
  config: locvlm.LocVLMConfig,
  tokenizer_dir: str | None = None,
) -> None:
  """Writes a LlavaForConditionalGeneration that transformers loads.

  transformers marks visual tokens by an id of the vocabulary: the first one
  that the tokenizer leaves free ("<image>", added to the tokenizer's copy),
  for which the embedding and the head grow if they must. A linear adapter
  becomes linear_1, activation "linear" and an identity as linear_2, because
  transformers always has both.

  Args:
    directory: made if absent; files of the same names are replaced.
    params: nested; their dtype is the stored one.
    config: the model's shape.
    tokenizer_dir: tokenizer.json and its companions, to be copied.

  Raises:
    ValueError: params do not fit config.
  """
  flat, size = _flat(params), config.llm.vocab_size
  tensors = _tensors(flat, tables.llava_leaves(config))
  if config.adapter == "linear":
    bias = tensors["multi_modal_projector.linear_1.bias"]
    identity = np.eye(len(bias), dtype=bias.dtype)
    tensors["multi_modal_projector.linear_2.weight"] = identity
    tensors["multi_modal_projector.linear_2.bias"] = np.zeros_like(bias)
  with _tokenizer_files(tokenizer_dir, size) as (extra, image_id):
    rows = max(size, image_id + 1)
    tensors |= _grown(tensors, rows - size)
    raw = config_json.llava_json(config, rows, image_id)
    _write(directory, tensors, raw, extra)


def _grown(tensors: Flat, more: int) -> Flat:
  """Embedding and head with `more` rows.

  A new embedding is never read: visual tokens replace it. A new row of the
  head repeats that of id 0 (<unk>), so that it wins as rarely.
  """
  if not more:
    return {}
  table = tensors["language_model.model.embed_tokens.weight"]
  zeros = np.zeros((more, table.shape[1]), table.dtype)
  grown = {
    "language_model.model.embed_tokens.weight": np.concatenate([table, zeros])
  }
  head = tensors.get("language_model.lm_head.weight")
  if head is not None:
    copies = np.repeat(head[:1], more, axis=0)
    grown["language_model.lm_head.weight"] = np.concatenate([head, copies])
  return grown


@contextlib.contextmanager
def _tokenizer_files(
  directory: str | None, vocab_size: int
) -> Iterator[tuple[list[str], int]]:
  """(paths of the tokenizer's files with <image> added, the id of <image>)."""
  if directory is None:
    yield [], vocab_size
    return
  with tempfile.TemporaryDirectory() as temporary:
    text = tokenizers.Tokenizer.from_file(
      os.path.join(directory, "tokenizer.json")
    )
    text.add_special_tokens(["<image>"])
    text.save(os.path.join(temporary, "tokenizer.json"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
      if os.path.exists(path := os.path.join(directory, name)):
        shutil.copy(path, temporary)
    names = sorted(os.listdir(temporary))
    paths = [os.path.join(temporary, name) for name in names]
    yield paths, text.token_to_id("<image>")


def _flat(params: Params) -> Flat:
  return traverse_util.flatten_dict(params, sep="/")


def _tensors(flat: Flat, leaves: list[Leaf]) -> Flat:
  """{stored key: array} of all leaves.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  paths = {leaf.path for leaf in leaves}
  if wrong := sorted(paths ^ flat.keys()):
    raise ValueError(f"parameters do not match the config: {wrong[:3]}")
  tensors = {}
  for leaf in leaves:
    value = np.asarray(flat[leaf.path])
    value = value if leaf.layer is None else value[leaf.layer]
    if value.shape != leaf.shape:
      raise ValueError(
        f"{leaf.path} has shape {value.shape}; the config asks for {leaf.shape}"
      )
    tensors[leaf.key] = np.ascontiguousarray(leaf.stored(value))
  return tensors


def _write(
  directory: str, tensors: Flat, config: dict, extra: Iterable[str] = ()
) -> None:
  """Writes a directory so that no half-written file is ever seen.

  Everything is written beside it and then moved: at once where the directory
  is new, else file by file, so that other files in it stay.
  """
  parent = os.path.dirname(os.path.abspath(directory))
  os.makedirs(parent, exist_ok=True)
  temporary = tempfile.mkdtemp(prefix=".partial-", dir=parent)
  try:
    path = os.path.join(temporary, WEIGHTS)
    # transformers refuses files that do not name a framework.
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    dtype = str(next(iter(tensors.values())).dtype)
    with open(os.path.join(temporary, "config.json"), "w") as f:
      json.dump(config | {"dtype": dtype}, f, indent=2, sort_keys=True)
    for source in extra:
      shutil.copy(source, temporary)
    os.chmod(temporary, 0o755)
    _move(temporary, directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: str, directory: str) -> None:
  if not os.path.exists(directory):
    os.rename(temporary, directory)
    return
  for name in sorted(os.listdir(temporary)):
    os.replace(os.path.join(temporary, name), os.path.join(directory, name))

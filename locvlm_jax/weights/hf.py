"""Hugging Face directories <-> our parameters.

A directory holds config.json and model.safetensors (or its parts and their
index). Our parameters are a nested dict of numpy arrays; layers, stored one
by one there, are stacked on a leading axis here. Key tables list every tensor
once: whatever a file holds too much, too little, twice or in another shape is
an error.

Layouts of one tensor:

  ours                stored               layout
  [D, *F]             [F..., D] as matrix  "linear"   x @ kernel
  [H, K, D]           [D, H K]             "merge"    the two heads dims first
  [P, P, 3, D]        [D, 3, P, P]         "patch"
  any                 same numbers         "plain"    biases lose head dims
"""

import collections
import contextlib
import functools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
import tokenizers
from flax import traverse_util

from locvlm_jax.models import clip_vit, llama, locvlm

Params = dict[str, Any]
Flat = dict[str, Any]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Within one layer: end of our path -> (end of the stored key, layout).
CLIP_LAYER = {
  "attention/q": ("self_attn.q_proj.weight", "linear"),
  "attention/q_bias": ("self_attn.q_proj.bias", "plain"),
  "attention/k": ("self_attn.k_proj.weight", "linear"),
  "attention/k_bias": ("self_attn.k_proj.bias", "plain"),
  "attention/v": ("self_attn.v_proj.weight", "linear"),
  "attention/v_bias": ("self_attn.v_proj.bias", "plain"),
  "attention/out": ("self_attn.out_proj.weight", "merge"),
  "attention/out_bias": ("self_attn.out_proj.bias", "plain"),
  "attention_norm/scale": ("layer_norm1.weight", "plain"),
  "attention_norm/bias": ("layer_norm1.bias", "plain"),
  "mlp/up": ("mlp.fc1.weight", "linear"),
  "mlp/up_bias": ("mlp.fc1.bias", "plain"),
  "mlp/down": ("mlp.fc2.weight", "linear"),
  "mlp/down_bias": ("mlp.fc2.bias", "plain"),
  "mlp_norm/scale": ("layer_norm2.weight", "plain"),
  "mlp_norm/bias": ("layer_norm2.bias", "plain"),
}
CLIP_REST = {
  "class_embedding": ("embeddings.class_embedding", "plain"),
  "patch": ("embeddings.patch_embedding.weight", "patch"),
  "position_embedding": ("embeddings.position_embedding.weight", "plain"),
  "pre_layernorm/scale": ("pre_layrnorm.weight", "plain"),
  "pre_layernorm/bias": ("pre_layrnorm.bias", "plain"),
  "unused/post_layernorm/scale": ("post_layernorm.weight", "plain"),
  "unused/post_layernorm/bias": ("post_layernorm.bias", "plain"),
}
LLAMA_LAYER = {
  "attention/q": ("self_attn.q_proj.weight", "linear"),
  "attention/k": ("self_attn.k_proj.weight", "linear"),
  "attention/v": ("self_attn.v_proj.weight", "linear"),
  "attention/q_bias": ("self_attn.q_proj.bias", "plain"),
  "attention/k_bias": ("self_attn.k_proj.bias", "plain"),
  "attention/v_bias": ("self_attn.v_proj.bias", "plain"),
  "attention/out": ("self_attn.o_proj.weight", "merge"),
  "attention_norm/scale": ("input_layernorm.weight", "plain"),
  "mlp/gate": ("mlp.gate_proj.weight", "linear"),
  "mlp/up": ("mlp.up_proj.weight", "linear"),
  "mlp/down": ("mlp.down_proj.weight", "linear"),
  "mlp_norm/scale": ("post_attention_layernorm.weight", "plain"),
}
LLAMA_REST = {
  "embedding": ("model.embed_tokens.weight", "plain"),
  "final_norm/scale": ("model.norm.weight", "plain"),
  "head": ("lm_head.weight", "linear"),
}
ADAPTER = {
  "linear_1": ("linear_1.weight", "linear"),
  "linear_1_bias": ("linear_1.bias", "plain"),
  "linear_2": ("linear_2.weight", "linear"),
  "linear_2_bias": ("linear_2.bias", "plain"),
}
# Stored, but not parameters of ours.
CLIP_IGNORED = (
  r"text_model\..*|.*_projection\.weight|logit_scale|.*position_ids"
  r"|(model\.)?(language_model|multi_modal_projector|lm_head)\..*"
)
LLAMA_IGNORED = r".*rotary_emb\.inv_freq"
# Today's and earlier spellings of a key -> the tables' one.
CLIP_RENAMES = ((r"^((model\.)?vision_tower\.)?(vision_model\.)?", ""),)
LLAVA_RENAMES = (
  (r"^model\.language_model\.", "language_model.model."),
  (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
  (r"^vision_tower\.vision_model\.", "vision_tower."),
)


class Leaf(NamedTuple):
  """One stored tensor, and where it belongs.

  Attributes:
    key: its name in the file.
    path: our parameter, "a/b/c".
    layer: index into our parameter's leading axis, or None: all of it.
    layout: see the module.
    shape: of our parameter (without the leading axis where layer is given).
  """

  key: str
  path: str
  layer: int | None
  layout: str
  shape: tuple[int, ...]

  @property
  def stored_shape(self) -> tuple[int, ...]:
    """The tensor's shape in the file."""
    first, *rest = self.shape
    if self.layout == "linear":
      return math.prod(rest), first
    if self.layout == "merge":
      return self.shape[-1], math.prod(self.shape[:-1])
    if self.layout == "patch":
      return self.shape[3], self.shape[2], *self.shape[:2]
    if self.path.endswith("bias"):
      return (math.prod(self.shape),)
    return self.shape

  def ours(self, stored: np.ndarray) -> np.ndarray:
    """Stored -> our layout."""
    if self.layout == "patch":
      return stored.transpose(2, 3, 1, 0)
    if self.layout in ("linear", "merge"):
      stored = stored.T
    return stored.reshape(self.shape)

  def stored(self, ours: np.ndarray) -> np.ndarray:
    """Our layout -> stored."""
    if self.layout == "patch":
      return ours.transpose(3, 2, 0, 1)
    if self.layout in ("linear", "merge"):
      first, last = self.stored_shape
      return ours.reshape(last, first).T
    return ours.reshape(self.stored_shape)


def clip_leaves(config: clip_vit.VisionConfig) -> list[Leaf]:
  """The key table of a vision tower; keys without any prefix."""
  shapes = _vision_shapes(config)
  leaves = _rest(CLIP_REST, shapes)
  used = config.num_used_layers
  for first, stack in ((0, "layers"), (used, "unused/layers")):
    leaves += _stacked(CLIP_LAYER, shapes, stack, "encoder.layers", first)
  return _complete(leaves, shapes)


def llama_leaves(config: llama.LlamaConfig) -> list[Leaf]:
  """The key table of a language model."""
  shapes = _llama_shapes(config)
  leaves = _rest(LLAMA_REST, shapes)
  leaves += _stacked(LLAMA_LAYER, shapes, "layers", "model.layers", 0)
  return _complete(leaves, shapes)


def llava_leaves(config: locvlm.LocVLMConfig) -> list[Leaf]:
  """The key table of a whole model; a linear adapter has no linear_2."""
  wide, width = config.vision.width, config.llm.width
  shapes = {"linear_1": (wide, width), "linear_1_bias": (width,)}
  if config.adapter == "mlp":
    shapes |= {"linear_2": (width, width), "linear_2_bias": (width,)}
  parts = (
    ("vision", "vision_tower", clip_leaves(config.vision)),
    ("adapter", "multi_modal_projector", _rest(ADAPTER, shapes)),
    ("llm", "language_model", llama_leaves(config.llm)),
  )
  return [
    leaf._replace(key=f"{theirs}.{leaf.key}", path=f"{ours}/{leaf.path}")
    for ours, theirs, leaves in parts
    for leaf in leaves
  ]


def _vision_shapes(config: clip_vit.VisionConfig) -> dict[str, tuple]:
  size = (1, config.image_size, config.image_size, 3)
  images = jax.ShapeDtypeStruct(size, jnp.uint8)
  return _shapes(clip_vit.ClipVit(config), images)


def _llama_shapes(config: llama.LlamaConfig) -> dict[str, tuple]:
  model = llama.Llama(config)
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)

  def touch(m, tokens):
    return m.logits(m(m.embed(tokens))[0])

  return _shapes(model, tokens, method=touch)


def _shapes(model, *args, method=None) -> dict[str, tuple]:
  init = functools.partial(model.init, method=method)
  params = jax.eval_shape(init, jax.random.key(0), *args)["params"]
  flat = traverse_util.flatten_dict(params, sep="/")
  return {path: x.shape for path, x in flat.items()}


def _rest(table: Mapping, shapes: Mapping) -> list[Leaf]:
  """Leaves of the parameters that exist, of those that `table` lists."""
  return [
    Leaf(key, path, None, layout, shapes[path])
    for path, (key, layout) in table.items()
    if path in shapes
  ]


def _stacked(
  table: Mapping, shapes: Mapping, ours: str, theirs: str, first: int
) -> list[Leaf]:
  """Leaves of one stack of layers, the first of which is stored as `first`."""
  return [
    Leaf(f"{theirs}.{first + i}.{key}", path, i, layout, shapes[path][1:])
    for end, (key, layout) in table.items()
    if (path := f"{ours}/{end}") in shapes
    for i in range(shapes[path][0])
  ]


def _complete(leaves: list[Leaf], shapes: Mapping) -> list[Leaf]:
  """The table covers all parameters; if not, that is our mistake."""
  assert {leaf.path for leaf in leaves} == shapes.keys()
  return leaves


def load_clip_vision(
  directory: str, feature_layer: int | None = None
) -> tuple[Params, clip_vit.VisionConfig]:
  """A CLIPVisionModel, or the vision tower of a CLIPModel or a Llava.

  Args:
    directory: with config.json and safetensors.
    feature_layer: see VisionConfig; None: as stored there, else -2.

  Returns:
    The parameters in their stored dtype, and the tower's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = _read_json(directory, "config.json")
  config = _vision_config(raw.get("vision_config", raw), directory)
  if feature_layer is not None:
    raw = raw | {"vision_feature_layer": feature_layer}
  config = _with_feature_layer(config, raw)
  flat = _read(directory, clip_leaves(config), CLIP_RENAMES, CLIP_IGNORED)
  return _nest(flat), config


def load_llama(directory: str) -> tuple[Params, llama.LlamaConfig]:
  """A LlamaForCausalLM, or the LLM of a Llava.

  A Qwen2ForCausalLM is the same with biases, and is read too.

  Args:
    directory: with config.json and safetensors.

  Returns:
    The parameters in their stored dtype, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = _read_json(directory, "config.json")
  if "text_config" in raw:
    params, whole = load_llava(directory)
    return params["llm"], whole.llm
  config = _llama_config(raw, directory)
  ignored = LLAMA_IGNORED
  if config.tie_embeddings:
    ignored += r"|lm_head\.weight"
  return _nest(_read(directory, llama_leaves(config), (), ignored)), config


def load_llava(directory: str) -> tuple[Params, locvlm.LocVLMConfig]:
  """A LlavaForConditionalGeneration.

  Rows of the vocabulary that `save_llava` added are dropped again, and so is
  the identity that stands for the second layer of a linear adapter.

  Args:
    directory: with config.json and safetensors.

  Returns:
    The parameters in their stored dtype, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  raw = _read_json(directory, "config.json")
  if raw.get("vision_feature_select_strategy", "default") != "default":
    raise ValueError(
      f"{directory}: vision_feature_select_strategy"
      f" {raw['vision_feature_select_strategy']!r}; only 'default' (no CLS)"
    )
  vision = _vision_config(raw["vision_config"], directory)
  stored = locvlm.LocVLMConfig(
    vision=_with_feature_layer(vision, raw),
    adapter="mlp",
    llm=_llama_config(raw["text_config"], directory),
  )
  ignored = rf"{LLAMA_IGNORED}|.*position_ids"
  if stored.llm.tie_embeddings:
    ignored += r"|language_model\.lm_head\.weight"
  flat = _read(directory, llava_leaves(stored), LLAVA_RENAMES, ignored)
  config = _drop_identity(flat, stored, raw, directory)
  return _nest(_drop_rows(flat, raw)), _with_vocabulary(config, raw)


def _drop_identity(flat, config, raw, directory) -> locvlm.LocVLMConfig:
  act = raw.get("projector_hidden_act", "gelu")
  if act == "gelu":
    return config
  kernel, bias = flat.pop("adapter/linear_2"), flat.pop("adapter/linear_2_bias")
  identity = (kernel == np.eye(len(kernel))).all() and not bias.any()
  if act != "linear" or not identity:
    raise ValueError(
      f"{directory}: projector_hidden_act {act!r}; wanted 'gelu', or 'linear'"
      " with an identity as linear_2 (which is a linear adapter)"
    )
  return _replace(config, adapter="linear")


def _drop_rows(flat: Flat, raw: Mapping) -> Flat:
  size = raw.get("locvlm_vocab_size")
  if size is None:
    return flat
  heads = {"llm/head": flat["llm/head"][:, :size]} if "llm/head" in flat else {}
  return flat | {"llm/embedding": flat["llm/embedding"][:size]} | heads


def _with_vocabulary(config: locvlm.LocVLMConfig, raw) -> locvlm.LocVLMConfig:
  size = raw.get("locvlm_vocab_size", config.llm.vocab_size)
  return _replace(config, llm=_replace(config.llm, vocab_size=size))


def _replace(config, **changes):
  return type(config)(**(vars(config) | changes))


def _with_feature_layer(config, raw: Mapping) -> clip_vit.VisionConfig:
  return _replace(config, feature_layer=raw.get("vision_feature_layer", -2))


def _vision_config(raw: Mapping, where: str) -> clip_vit.VisionConfig:
  """VisionConfig of a CLIPVisionConfig, whose defaults are CLIP-B/32's."""
  return clip_vit.VisionConfig(
    image_size=raw.get("image_size", 224),
    patch_size=raw.get("patch_size", 32),
    width=raw.get("hidden_size", 768),
    num_layers=raw.get("num_hidden_layers", 12),
    num_heads=raw.get("num_attention_heads", 12),
    mlp_width=raw.get("intermediate_size", 3072),
    activation=raw.get("hidden_act", "quick_gelu"),
    eps=raw.get("layer_norm_eps", 1e-5),
  )


def _llama_config(raw: Mapping, where: str) -> llama.LlamaConfig:
  """LlamaConfig of a transformers LlamaConfig, whose defaults are LLaMA-7B's.

  Raises:
    ValueError: a variant that the model does not have.
  """
  kind = raw.get("model_type", "llama")
  rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
  wanted = (
    ("model_type", kind, ("llama", "qwen2")),
    ("hidden_act", raw.get("hidden_act", "silu"), ("silu",)),
    ("rope_type", rope.get("rope_type", "default"), ("default",)),
    ("attention_bias", raw.get("attention_bias", False), (False,)),
    ("mlp_bias", raw.get("mlp_bias", False), (False,)),
    ("use_sliding_window", raw.get("use_sliding_window", False), (False,)),
  )
  for name, value, allowed in wanted:
    if value not in allowed:
      raise ValueError(f"{where}: {name} {value!r}; only {allowed} can be read")
  width = raw.get("hidden_size", 4096)
  heads = raw.get("num_attention_heads", 32)
  return llama.LlamaConfig(
    vocab_size=raw.get("vocab_size", 32000),
    width=width,
    num_layers=raw.get("num_hidden_layers", 32),
    num_heads=heads,
    num_kv_heads=raw.get("num_key_value_heads") or heads,
    head_dim=raw.get("head_dim") or width // heads,
    mlp_width=raw.get("intermediate_size", 11008),
    eps=raw.get("rms_norm_eps", 1e-6),
    theta=float(rope.get("rope_theta", raw.get("rope_theta", 10000.0))),
    max_positions=raw.get("max_position_embeddings", 2048),
    tie_embeddings=raw.get("tie_word_embeddings", False),
    qkv_bias=kind == "qwen2",
  )


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
  tensors = _tensors(_flat(params), clip_leaves(config))
  _write(directory, tensors, _vision_json(config))


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
  tensors = _tensors(_flat(params), llama_leaves(config))
  _write(directory, tensors, _llama_json(config))


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
  tensors = _tensors(flat, llava_leaves(config))
  if config.adapter == "linear":
    bias = tensors["multi_modal_projector.linear_1.bias"]
    identity = np.eye(len(bias), dtype=bias.dtype)
    tensors["multi_modal_projector.linear_2.weight"] = identity
    tensors["multi_modal_projector.linear_2.bias"] = np.zeros_like(bias)
  with _tokenizer_files(tokenizer_dir, size) as (extra, image_id):
    rows = max(size, image_id + 1)
    tensors |= _grown(tensors, rows - size)
    raw = _llava_json(config, rows, image_id)
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


def _vision_json(config: clip_vit.VisionConfig) -> dict:
  return {
    "architectures": ["CLIPVisionModel"],
    "model_type": "clip_vision_model",
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
    "hidden_size": config.width,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "intermediate_size": config.mlp_width,
    "projection_dim": config.width,
    "hidden_act": config.activation,
    "layer_norm_eps": config.eps,
    "vision_feature_layer": config.feature_layer,
  }


def _llama_json(config: llama.LlamaConfig) -> dict:
  family = "Qwen2" if config.qkv_bias else "Llama"
  return {
    "architectures": [f"{family}ForCausalLM"],
    "model_type": family.lower(),
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "intermediate_size": config.mlp_width,
    "hidden_act": "silu",
    "rms_norm_eps": config.eps,
    "rope_theta": config.theta,
    "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
    "max_position_embeddings": config.max_positions,
    "tie_word_embeddings": config.tie_embeddings,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
  }


def _llava_json(
  config: locvlm.LocVLMConfig, vocab_size: int, image_id: int
) -> dict:
  text = _llama_json(config.llm) | {"vocab_size": vocab_size}
  return {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "vision_config": _vision_json(config.vision),
    "text_config": text,
    "image_token_index": image_id,
    "image_seq_length": config.vision.num_patches,
    "projector_hidden_act": "linear" if config.adapter == "linear" else "gelu",
    "multimodal_projector_bias": True,
    "vision_feature_layer": config.vision.feature_layer,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": config.llm.tie_embeddings,
    "pad_token_id": 0,
    "locvlm_vocab_size": config.llm.vocab_size,
  }


def _flat(params: Params) -> Flat:
  return traverse_util.flatten_dict(params, sep="/")


def _nest(flat: Flat) -> Params:
  return traverse_util.unflatten_dict(flat, sep="/")


def _read_json(directory: str, name: str) -> dict:
  path = os.path.join(directory, name)
  try:
    with open(path, encoding="utf-8") as f:
      return json.load(f)
  except (OSError, json.JSONDecodeError) as error:
    raise ValueError(f"{path}: {error}") from error


def _files(directory: str) -> list[str]:
  """The safetensors files of a directory, in order."""
  if os.path.exists(os.path.join(directory, INDEX)):
    names = set(_read_json(directory, INDEX)["weight_map"].values())
    return [os.path.join(directory, name) for name in sorted(names)]
  path = os.path.join(directory, WEIGHTS)
  if not os.path.exists(path):
    raise ValueError(
      f"{directory}: neither {WEIGHTS} nor {INDEX} there. Convert a checkpoint"
      " in another format with transformers' save_pretrained first"
    )
  return [path]


def _rename(key: str, renames: Iterable[tuple[str, str]]) -> str:
  for pattern, replacement in renames:
    key = re.sub(pattern, replacement, key)
  return key


def _read(
  directory: str,
  leaves: list[Leaf],
  renames: Iterable[tuple[str, str]],
  ignored: str,
) -> Flat:
  """All leaves as {path: array}, in the stored dtype, one tensor at a time."""
  files = _files(directory)
  with contextlib.ExitStack() as stack:
    opened = [stack.enter_context(_open(f)) for f in files]
    stored = [
      (_rename(key, renames), key, file)
      for file in opened
      for key in file.keys()  # noqa: SIM118 (not a dict)
    ]
    stored = [s for s in stored if not re.fullmatch(ignored, s[0])]
    _check_keys(directory, leaves, [key for key, _, _ in stored])
    tensors = {key: (file, name) for key, name, file in stored}
    flat: Flat = {}
    for leaf in leaves:
      file, name = tensors[leaf.key]
      _place(flat, leaf, _tensor(file, name, leaf, directory), leaves)
  return flat


def _open(path: str):
  try:
    return safetensors.safe_open(path, framework="numpy")
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(f"{path}: {error}") from error


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


def _tensor(file, name: str, leaf: Leaf, directory: str) -> np.ndarray:
  shape = tuple(file.get_slice(name).get_shape())
  if shape != leaf.stored_shape:
    raise ValueError(
      f"{directory}: {name} has shape {shape}; config.json asks for"
      f" {leaf.stored_shape}"
    )
  return file.get_tensor(name)


def _place(
  flat: Flat, leaf: Leaf, stored: np.ndarray, leaves: list[Leaf]
) -> None:
  """Puts one stored tensor into its parameter, which it makes if it must."""
  ours = leaf.ours(stored)
  if leaf.layer is None:
    flat[leaf.path] = np.ascontiguousarray(ours)
    return
  if leaf.path not in flat:
    num = sum(other.path == leaf.path for other in leaves)
    flat[leaf.path] = np.empty((num, *leaf.shape), ours.dtype)
  flat[leaf.path][leaf.layer] = ours


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

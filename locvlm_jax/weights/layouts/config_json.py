"""config.json of a Hugging Face directory <-> our model configs."""

import dataclasses
from collections.abc import Callable
from typing import Any

from locvlm_jax.models import clip_vit, llama, locvlm, rotary
from locvlm_jax.weights.layouts.json_fields import Fields

# Fields of LlamaConfig -> those of rope_parameters (rope_scaling, earlier).
_ROPE = {
  "rope_factor": "factor",
  "rope_low_freq_factor": "low_freq_factor",
  "rope_high_freq_factor": "high_freq_factor",
  "rope_original_positions": "original_max_position_embeddings",
}
# Those that each way to stretch positions has.
_ROPE_NEEDS = {
  "default": (),
  "linear": ("rope_factor",),
  "llama3": tuple(_ROPE),
}
# What a program calls the activation that changes nothing.
IDENTITY = {
  "transformers": "linear",
  "vllm": "torch.nn.modules.linear.Identity",
}
_ROPE_FIELDS = ("rope_parameters", "rope_scaling")  # today's, and the earlier
_VISION = ("clip_vision_model", "siglip_vision_model")
_MOST_LAYERS = 10_000  # of a model; each is listed before any shape is compared


def with_feature_layer(
  config: clip_vit.VisionConfig, fields: Fields, layer: int | None = None
) -> clip_vit.VisionConfig:
  """Sets the layer whose output is used.

  Args:
    config: of the tower.
    fields: name the layer, or else it is CLIP's penultimate one.
    layer: in place of the one that `fields` name.
  """
  if layer is None:
    layer = fields.integer("vision_feature_layer", -2)
  values = vars(config) | {"feature_layer": layer}
  return _made(fields, clip_vit.VisionConfig, **values)


def vision_config(fields: Fields) -> clip_vit.VisionConfig:
  """Reads a CLIPVisionConfig or a SiglipVisionConfig.

  Where they differ, their defaults are CLIP-B/32's and SigLIP-B/16's.

  Raises:
    DataError: a field of a wrong type.
    ValueError: a variant that the model does not have.
  """
  siglip = fields.only("model_type", _VISION[0], *_VISION) == _VISION[1]
  fields.only("num_channels", 3, 3)
  act = "gelu_pytorch_tanh" if siglip else "quick_gelu"
  return _made(
    fields,
    clip_vit.VisionConfig,
    image_size=fields.size("image_size", 224),
    patch_size=fields.size("patch_size", 16 if siglip else 32),
    width=fields.size("hidden_size", 768),
    num_layers=fields.size("num_hidden_layers", 12, most=_MOST_LAYERS),
    num_heads=fields.size("num_attention_heads", 12),
    mlp_width=fields.size("intermediate_size", 3072),
    activation=fields.only("hidden_act", act, *clip_vit.ACTIVATIONS),
    eps=fields.number("layer_norm_eps", 1e-6 if siglip else 1e-5),
    family="siglip" if siglip else "clip",
  )


def llama_config(fields: Fields, kind: str = "") -> llama.LlamaConfig:
  """Reads transformers' LlamaConfig, whose defaults are LLaMA-7B's.

  Args:
    fields: of config.json, or of text_config in it.
    kind: the model's type, in place of the field model_type.

  Raises:
    DataError: a field of a wrong type.
    ValueError: a variant that the model does not have.
  """
  kind = kind or fields.only("model_type", "llama", "llama", "qwen2")
  _check_variant(fields)
  width = fields.size("hidden_size", 4096)
  heads = fields.size("num_attention_heads", 32)
  return _made(
    fields,
    llama.LlamaConfig,
    vocab_size=fields.size("vocab_size", 32000),
    width=width,
    num_layers=fields.size("num_hidden_layers", 32, most=_MOST_LAYERS),
    num_heads=heads,
    num_kv_heads=fields.size("num_key_value_heads", heads),
    head_dim=fields.size("head_dim", max(width // heads, 1)),
    mlp_width=fields.size("intermediate_size", 11008),
    eps=fields.number("rms_norm_eps", 1e-6),
    max_positions=fields.size("max_position_embeddings", 2048),
    tie_embeddings=fields.flag("tie_word_embeddings", False),
    qkv_bias=kind == "qwen2",
    **_rope(fields),
  )


def _check_variant(fields: Fields) -> None:
  """Refuses what changes the model's numbers and is not implemented."""
  fields.only("hidden_act", "silu", "silu")
  for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
    fields.only(name, False, False)
  fields.only("partial_rotary_factor", 1.0, 1.0, 1)
  fields.only("quantization_config", None, None)
  layers = fields.get("layer_types", [])
  if layers and set(map(str, layers)) != {"full_attention"}:
    fields.only("layer_types", None, ["full_attention"])


def _rope(fields: Fields) -> dict[str, object]:
  """Reads the fields of LlamaConfig about rotary positions."""
  named = next((n for n in _ROPE_FIELDS if fields.get(n)), _ROPE_FIELDS[0])
  rope = fields.inner(named)
  name = "rope_type" if "rope_type" in rope else "type"
  kind = rope.only(name, "default", *rotary.ROPE_TYPES)
  theta = fields.number("rope_theta", 10000.0)
  found = {"rope_type": kind, "theta": float(rope.number("rope_theta", theta))}
  for ours in _ROPE_NEEDS[kind]:
    read = rope.size if ours == "rope_original_positions" else rope.number
    found[ours] = read(_ROPE[ours])
  return found


def llava_config(fields: Fields) -> locvlm.LocVLMConfig:
  """Reads a LlavaConfig; as stored, with two linear layers.

  Raises:
    DataError: a field of a wrong type.
    ValueError: a variant that the model does not have.
  """
  fields.only("model_type", "llava", "llava")
  fields.only("quantization_config", None, None)
  fields.only("multimodal_projector_bias", True, True)
  vision = vision_config(fields.inner("vision_config"))
  wanted = _strategy(vision)  # all patches, no CLS
  fields.only("vision_feature_select_strategy", "default", wanted)
  return locvlm.LocVLMConfig(
    vision=with_feature_layer(vision, fields),
    adapter="mlp",
    llm=llama_config(fields.inner("text_config")),
  )


def _made(fields: Fields, make: Callable, **values: Any) -> Any:
  """Calls `make`; what it refuses is told with the file's name."""
  try:
    return make(**values)
  except ValueError as error:
    raise ValueError(f"{fields.path}: {error}") from None


def _strategy(vision: clip_vit.VisionConfig) -> str:
  """transformers' word for "all but CLS", which SigLIP does not have."""
  return "default" if vision.family == "clip" else "full"


def with_vocabulary(
  config: locvlm.LocVLMConfig, fields: Fields
) -> locvlm.LocVLMConfig:
  """Restores the vocabulary's size before the rows that an export added."""
  stored = config.llm.vocab_size
  size = fields.size("locvlm_vocab_size", stored, most=stored)
  llm = dataclasses.replace(config.llm, vocab_size=size)
  return dataclasses.replace(config, llm=llm)


def vision_json(config: clip_vit.VisionConfig) -> dict:
  """As transformers writes it for a CLIPVisionModel or a SiglipVisionModel."""
  clip = config.family == "clip"
  kind = (
    {"projection_dim": config.width} if clip else {"vision_use_head": False}
  )
  return kind | {
    "architectures": ["CLIPVisionModel" if clip else "SiglipVisionModel"],
    "model_type": f"{config.family}_vision_model",
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
    "hidden_size": config.width,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "intermediate_size": config.mlp_width,
    "hidden_act": config.activation,
    "layer_norm_eps": config.eps,
    "vision_feature_layer": config.feature_layer,
  }


def llama_json(config: llama.LlamaConfig) -> dict:
  """As transformers writes it for a LlamaForCausalLM."""
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
    "rope_parameters": _rope_json(config),
    "max_position_embeddings": config.max_positions,
    "tie_word_embeddings": config.tie_embeddings,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
  }


def _rope_json(config: llama.LlamaConfig) -> dict:
  stretched = _ROPE_NEEDS[config.rope_type]
  return {
    "rope_type": config.rope_type,
    "rope_theta": config.theta,
    **{_ROPE[name]: getattr(config, name) for name in stretched},
  }


def llava_json(
  config: locvlm.LocVLMConfig,
  vocab_size: int,
  image_id: int,
  program: str = "transformers",
) -> dict:
  """As for a LlavaForConditionalGeneration.

  Args:
    config: the model's shape.
    vocab_size: with the rows that were added.
    image_id: of <image>.
    program: that is to read it first of all, of `IDENTITY`.
  """
  act = IDENTITY[program] if config.adapter == "linear" else "gelu"
  text = llama_json(config.llm) | {"vocab_size": vocab_size}
  return {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "vision_config": vision_json(config.vision),
    "text_config": text,
    "image_token_index": image_id,
    "image_seq_length": config.vision.num_patches,
    "projector_hidden_act": act,
    "multimodal_projector_bias": True,
    "vision_feature_layer": config.vision.feature_layer,
    "vision_feature_select_strategy": _strategy(config.vision),
    "tie_word_embeddings": config.llm.tie_embeddings,
    "pad_token_id": 0,
    "locvlm_vocab_size": config.llm.vocab_size,
  }

"""config.json of a Hugging Face directory <-> our model configs."""

import dataclasses
from collections.abc import Mapping

from locvlm_jax.models import clip_vit, llama, locvlm, rotary

# Fields of LlamaConfig -> those of rope_parameters (rope_scaling, earlier).
_ROPE = {
  "rope_factor": "factor",
  "rope_low_freq_factor": "low_freq_factor",
  "rope_high_freq_factor": "high_freq_factor",
  "rope_original_positions": "original_max_position_embeddings",
}


def with_feature_layer(
  config: clip_vit.VisionConfig, raw: Mapping
) -> clip_vit.VisionConfig:
  """Reads the layer that `raw` names; else takes CLIP's penultimate one."""
  return dataclasses.replace(
    config, feature_layer=raw.get("vision_feature_layer", -2)
  )


def vision_config(raw: Mapping) -> clip_vit.VisionConfig:
  """Reads a CLIPVisionConfig or a SiglipVisionConfig.

  Where they differ, their defaults are CLIP-B/32's and SigLIP-B/16's.
  """
  siglip = raw.get("model_type") == "siglip_vision_model"
  return clip_vit.VisionConfig(
    image_size=raw.get("image_size", 224),
    patch_size=raw.get("patch_size", 16 if siglip else 32),
    width=raw.get("hidden_size", 768),
    num_layers=raw.get("num_hidden_layers", 12),
    num_heads=raw.get("num_attention_heads", 12),
    mlp_width=raw.get("intermediate_size", 3072),
    activation=raw.get(
      "hidden_act", "gelu_pytorch_tanh" if siglip else "quick_gelu"
    ),
    eps=raw.get("layer_norm_eps", 1e-6 if siglip else 1e-5),
    family="siglip" if siglip else "clip",
  )


def llama_config(raw: Mapping, where: str) -> llama.LlamaConfig:
  """Reads transformers' LlamaConfig, whose defaults are LLaMA-7B's.

  Raises:
    ValueError: a variant that the model does not have.
  """
  kind = raw.get("model_type", "llama")
  rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
  rope_type = rope.get("rope_type", rope.get("type", "default"))
  wanted = (
    ("model_type", kind, ("llama", "qwen2")),
    ("hidden_act", raw.get("hidden_act", "silu"), ("silu",)),
    ("rope_type", rope_type, rotary.ROPE_TYPES),
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
    rope_type=rope_type,
    **{ours: rope[theirs] for ours, theirs in _ROPE.items() if theirs in rope},
  )


def llava_config(raw: Mapping, where: str) -> locvlm.LocVLMConfig:
  """Reads a LlavaConfig; as stored, with two linear layers.

  Raises:
    ValueError: a variant that the model does not have.
  """
  vision = vision_config(raw["vision_config"])
  found = raw.get("vision_feature_select_strategy", "default")
  if found != (wanted := _strategy(vision)):
    raise ValueError(
      f"{where}: vision_feature_select_strategy {found!r}; only {wanted!r}"
      f" (all patches, no CLS) for {vision.family}"
    )
  return locvlm.LocVLMConfig(
    vision=with_feature_layer(vision, raw),
    adapter="mlp",
    llm=llama_config(raw["text_config"], where),
  )


def _strategy(vision: clip_vit.VisionConfig) -> str:
  """transformers' word for "all but CLS", which SigLIP does not have."""
  return "default" if vision.family == "clip" else "full"


def with_vocabulary(
  config: locvlm.LocVLMConfig, raw: Mapping
) -> locvlm.LocVLMConfig:
  """Restores the vocabulary's size before the rows that an export added."""
  size = raw.get("locvlm_vocab_size", config.llm.vocab_size)
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
  names = {"default": (), "linear": ("rope_factor",), "llama3": tuple(_ROPE)}
  return {
    "rope_type": config.rope_type,
    "rope_theta": config.theta,
    **{_ROPE[name]: getattr(config, name) for name in names[config.rope_type]},
  }


def llava_json(
  config: locvlm.LocVLMConfig, vocab_size: int, image_id: int
) -> dict:
  """As for a LlavaForConditionalGeneration; `image_id`: its <image>."""
  text = llama_json(config.llm) | {"vocab_size": vocab_size}
  return {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "vision_config": vision_json(config.vision),
    "text_config": text,
    "image_token_index": image_id,
    "image_seq_length": config.vision.num_patches,
    "projector_hidden_act": "linear" if config.adapter == "linear" else "gelu",
    "multimodal_projector_bias": True,
    "vision_feature_layer": config.vision.feature_layer,
    "vision_feature_select_strategy": _strategy(config.vision),
    "tie_word_embeddings": config.llm.tie_embeddings,
    "pad_token_id": 0,
    "locvlm_vocab_size": config.llm.vocab_size,
  }

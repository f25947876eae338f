"""transformers' Llava on PyTorch, which our model is compared with."""

import torch
import transformers

from locvlm_jax.models import locvlm


def random_llava(
  config: locvlm.LocVLMConfig, device: str, dtype: torch.dtype
) -> transformers.LlavaForConditionalGeneration:
  """Builds a Llava of the size of `config` with random weights, on `device`.

  Its adapter always has two layers, and one token more than the vocabulary
  stands for the image.
  """
  with torch.device(device):  # a CPU draws billions of weights for minutes
    return transformers.LlavaForConditionalGeneration._from_config(
      _llava_config(config), attn_implementation="sdpa", dtype=dtype
    )


def _llava_config(config: locvlm.LocVLMConfig) -> transformers.LlavaConfig:
  """Translates a config."""
  v, t = config.vision, config.llm
  vision = transformers.CLIPVisionConfig(
    hidden_size=v.width,
    intermediate_size=v.mlp_width,
    num_hidden_layers=v.num_layers,
    num_attention_heads=v.num_heads,
    image_size=v.image_size,
    patch_size=v.patch_size,
    projection_dim=v.width,
  )
  text = transformers.LlamaConfig(
    vocab_size=t.vocab_size + 1,
    hidden_size=t.width,
    intermediate_size=t.mlp_width,
    num_hidden_layers=t.num_layers,
    num_attention_heads=t.num_heads,
    num_key_value_heads=t.num_kv_heads,
    head_dim=t.head_dim,
    rms_norm_eps=t.eps,
    use_cache=False,
  )
  return transformers.LlavaConfig(
    vision_config=vision,
    text_config=text,
    image_token_index=t.vocab_size,
    vision_feature_layer=v.feature_layer,
  )

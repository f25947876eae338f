"""Live: transformers on PyTorch reads what we write."""

import dataclasses

import jax
import make_goldens
import numpy as np
import pytest
from model_kinds import STRETCHED, name_of, siglip
from toy_models import TOY, close, golden, hidden, logits, params_of

from locvlm_jax.models import clip_vit
from locvlm_jax.weights.layouts import export


def transformers_logits(kind, directory, tokens, images=None):
  import torch

  model = make_goldens.loaded(kind, directory)
  image_id = getattr(model.config, "image_token_index", 0)
  ids = np.where(tokens < 0, image_id, tokens)
  inputs = {"input_ids": torch.tensor(ids).long()}
  if images is not None:
    kind = model.config.vision_config.model_type
    inputs["pixel_values"] = make_goldens.pixels(images, "siglip" in kind)
  with torch.no_grad():
    return model(**inputs).logits.numpy()


def our_logits(config, params, tokens, images):
  lengths = np.full(len(tokens), tokens.shape[1], np.int32)
  image = None if images is None else images[:, None]
  h = hidden(config, params, (tokens, image, lengths))
  return logits(config, params, h)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapter", ["linear", "mlp"])
@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("tower", [TOY, siglip(TOY)], ids=name_of)
def test_transformers_reads_our_llava(tower, adapter, layer, tmp_path):
  pytest.importorskip("torch")
  import transformers

  vision = dataclasses.replace(tower.vision, feature_layer=layer)
  config = dataclasses.replace(TOY, adapter=adapter, vision=vision)
  params, out = params_of(config), str(tmp_path / "out")
  export.save_llava(out, params, config)
  tokens = make_goldens.tokens(image=True)
  images = make_goldens.images(2, config.vision.image_size)
  kind = transformers.LlavaForConditionalGeneration
  theirs = transformers_logits(kind, out, tokens, images)
  size = config.llm.vocab_size
  ours = our_logits(config, params, tokens, images)
  close(ours, theirs[..., :size])


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"tie_embeddings": True},
    {"qkv_bias": True},
    {"theta": 500.0, "eps": 1e-5},
    *STRETCHED,
  ],
)
def test_transformers_reads_our_llama(changes, tmp_path):
  pytest.importorskip("torch")
  import transformers

  llm = dataclasses.replace(TOY.llm, **changes)
  config = dataclasses.replace(TOY, llm=llm)
  params, out = params_of(config), str(tmp_path / "out")
  export.save_llama(out, params["llm"], llm)
  family = "Qwen2" if llm.qkv_bias else "Llama"
  kind = getattr(transformers, f"{family}ForCausalLM")
  tokens = make_goldens.tokens(image=False)
  theirs = transformers_logits(kind, out, tokens)
  ours = our_logits(config, params, tokens, None)
  close(ours, theirs)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_our_vision_tower(tmp_path):
  pytest.importorskip("torch")
  import transformers

  params, out = params_of(TOY)["vision"], str(tmp_path / "out")
  export.save_clip_vision(out, params, TOY.vision)
  model = make_goldens.loaded(transformers.CLIPVisionModel, out)
  images = make_goldens.images(2)
  theirs = make_goldens.run(model, {"images": images})
  run = jax.jit(clip_vit.ClipVit(TOY.vision).apply)
  ours = run({"params": params}, images)
  close(ours, theirs)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["llava", "llava_images"])
def test_goldens_are_what_transformers_computes_here(name, tmp_path):
  pytest.importorskip("torch")
  import transformers

  g = golden(name)
  make_goldens.write(tmp_path, g)
  kind = transformers.LlavaForConditionalGeneration
  model = make_goldens.loaded(kind, str(tmp_path))
  close(make_goldens.run(model, g), g["output"])
  ours = make_goldens.greedy(model, g, 64)
  np.testing.assert_array_equal(ours, g["greedy"])

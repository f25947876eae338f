"""LLaVA's own checkpoints: whole, with a projector beside, as a LoRA."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from flax import traverse_util
from toy_models import CONFIG, params_of

from locvlm_jax.weights import export, original

CONFIGS = [dataclasses.replace(CONFIG, adapter=a) for a in ("linear", "mlp")]
KINDS = {"linear": "linear", "mlp": "mlp2x_gelu"}


@pytest.fixture(params=CONFIGS, ids=lambda c: c.adapter)
def parts(request, tmp_path):
  """(config, params, CLIP's directory, LLaMA's directory)."""
  config = request.param
  params = params_of(config)
  clip, llama = str(tmp_path / "clip"), str(tmp_path / "llama")
  export.save_clip_vision(clip, params["vision"], config.vision)
  export.save_llama(llama, params["llm"], config.llm)
  return config, params, clip, llama


def _tensors(directory):
  return safetensors.numpy.load_file(
    os.path.join(directory, "model.safetensors")
  )


def _projector(config, params, prefix="model.mm_projector."):
  adapter = params["adapter"]
  names = {
    "linear": [("", "linear_1")],
    "mlp": [("0.", "linear_1"), ("2.", "linear_2")],
  }
  return {
    f"{prefix}{theirs}{end}": np.ascontiguousarray(
      adapter[ours].T if end == "weight" else adapter[f"{ours}_bias"]
    )
    for theirs, ours in names[config.adapter]
    for end in ("weight", "bias")
  }


def _config_json(directory, config, llama):
  """LLaVA's config.json: LLaMA's, with a few more fields."""
  raw = json.loads(pathlib.Path(llama, "config.json").read_text())
  raw |= {
    "model_type": "llava_llama",
    "mm_projector_type": KINDS[config.adapter],
    "mm_vision_select_layer": config.vision.feature_layer,
  }
  os.makedirs(directory, exist_ok=True)
  pathlib.Path(directory, "config.json").write_text(json.dumps(raw))
  return directory


def _check(opened, config, params):
  flat, found = opened
  wanted = traverse_util.flatten_dict(params, sep="/")
  assert flat.keys() == wanted.keys()
  for path, value in wanted.items():
    np.testing.assert_array_equal(flat[path].read(), value, path)
  assert dataclasses.replace(found, dtype=config.dtype) == config


@pytest.mark.parametrize("with_tower", [False, True])
def test_a_whole_model(parts, with_tower, tmp_path):
  config, params, clip, llama = parts
  out = _config_json(str(tmp_path / "out"), config, llama)
  tensors = _tensors(llama) | _projector(config, params)
  if with_tower:
    tensors |= {
      f"model.vision_tower.vision_tower.vision_model.{key}": x
      for key, x in _tensors(clip).items()
    }
  torch_files.write(os.path.join(out, "pytorch_model.bin"), tensors)
  _check(original.open_llava(out, clip), config, params)


def test_a_projector_beside_its_base(parts, tmp_path):
  config, params, clip, llama = parts
  out = _config_json(str(tmp_path / "out"), config, llama)
  path = os.path.join(out, "mm_projector.bin")
  torch_files.write(path, _projector(config, params))
  _check(original.open_llava(out, clip, llama), config, params)
  with pytest.raises(ValueError, match="no language model of its own"):
    original.open_llava(out, clip)
  with pytest.raises(ValueError, match="directory of its vision tower"):
    original.open_llava(out, "", llama)


def _write_lora(directory, config, params, kernels):
  """A LoRA of rank 2 and alpha 6 on `kernels`; returns {key: its share}."""
  rng = np.random.default_rng(0)
  factors, shares = {}, {}
  for key, kernel in kernels.items():
    up = rng.normal(size=(kernel.shape[0], 2)).astype(np.float32)
    down = rng.normal(size=(2, kernel.shape[1])).astype(np.float32)
    name = f"base_model.model.{key.removesuffix('.weight')}"
    factors[f"{name}.lora_A.weight"] = down
    factors[f"{name}.lora_B.weight"] = up
    shares[key] = np.float32(3.0) * (up @ down)
  safetensors.numpy.save_file(
    factors, os.path.join(directory, "adapter_model.safetensors")
  )
  settings = {"r": 2, "lora_alpha": 6}
  pathlib.Path(directory, "adapter_config.json").write_text(
    json.dumps(settings)
  )
  torch_files.write(
    os.path.join(directory, "non_lora_trainables.bin"),
    _projector(config, params, "base_model.model.model.mm_projector."),
  )
  return shares


def test_a_lora_is_merged(parts, tmp_path):
  config, params, clip, llama = parts
  out = _config_json(str(tmp_path / "out"), config, llama)
  kernels = {k: x for k, x in _tensors(llama).items() if "q_proj.w" in k}
  shares = _write_lora(out, config, params, kernels)
  wanted = jax.tree.map(np.array, params)
  for layer in range(config.llm.num_layers):
    share = shares[f"model.layers.{layer}.self_attn.q_proj.weight"].T
    kernel = wanted["llm"]["layers"]["attention"]["q"]
    kernel[layer] += share.reshape(kernel.shape[1:])
  _check(original.open_llava(out, clip, llama), config, wanted)


def test_a_lora_of_another_model_is_refused(parts, tmp_path):
  config, params, clip, llama = parts
  out = _config_json(str(tmp_path / "out"), config, llama)
  key = "model.layers.0.self_attn.q_proj.weight"
  kernel = _tensors(llama)[key]
  _write_lora(out, config, params, {key: kernel[:-1]})
  with pytest.raises(ValueError, match="does not fit .*q_proj"):
    original.open_llava(out, clip, llama)
  _write_lora(out, config, params, {"model.layers.99.x.weight": kernel})
  with pytest.raises(ValueError, match="adapts .*layers.99"):
    original.open_llava(out, clip, llama)

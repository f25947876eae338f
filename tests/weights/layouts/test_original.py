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

from locvlm_jax.weights.layouts import export, original, tables

CONFIGS = [dataclasses.replace(CONFIG, adapter=a) for a in ("linear", "mlp")]
KINDS = {"linear": "linear", "mlp": "mlp2x_gelu"}


def _written(config, folder):
  """(config, params, CLIP's directory, LLaMA's directory)."""
  params = params_of(config)
  clip, llama = str(folder / "clip"), str(folder / "llama")
  export.save_clip_vision(clip, params["vision"], config.vision)
  export.save_llama(llama, params["llm"], config.llm)
  return config, params, clip, llama


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda c: c.adapter)
def parts(request, tmp_path_factory):
  return _written(request.param, tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
  return _written(CONFIGS[1], tmp_path_factory.mktemp("mlp"))


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


def _config_json(directory, config, llama, **fields):
  """LLaVA's config.json: LLaMA's, with a few more fields."""
  raw = json.loads(pathlib.Path(llama, "config.json").read_text())
  raw |= {
    "model_type": "llava_llama",
    "mm_projector_type": KINDS[config.adapter],
    "mm_vision_select_layer": config.vision.feature_layer,
    **fields,
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
  with pytest.raises(ValueError, match="no projector there"):
    original.open_llava(out, clip, llama)
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


@pytest.fixture
def whole(mlp, tmp_path):
  """(config, params, CLIP's directory, that of a complete model)."""
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "whole"), config, llama)
  tensors = _tensors(llama) | _projector(config, params)
  safetensors.numpy.save_file(tensors, f"{out}/model.safetensors")
  return config, params, clip, out


@pytest.mark.parametrize(
  "name", ["mm_projector.bin", "non_lora_trainables.bin"]
)
def test_a_projector_beside_a_complete_model_is_not_read(whole, name, capsys):
  config, params, clip, out = whole
  torch_files.write(f"{out}/{name}", _projector(config, params))
  _check(original.open_llava(out, clip), config, params)
  assert capsys.readouterr().out == ""  # it is the same one
  other = {k: x + 7 for k, x in _projector(config, params).items()}
  torch_files.write(f"{out}/{name}", other)
  _check(original.open_llava(out, clip), config, params)
  said = capsys.readouterr().out
  assert f"{name} is not read: {len(other)} of its tensors" in said


def test_what_leaves_open_which_model_is_meant_is_refused(whole, mlp):
  config, params, clip, out = whole
  with pytest.raises(ValueError, match="holds a whole model, and .* its base"):
    original.open_llava(out, clip, mlp[3])
  index = pathlib.Path(out, "model.safetensors.index.json")
  index.write_text('{"weight_map": {"a": "model.safetensors"}}')
  with pytest.raises(ValueError, match="which of them is the model"):
    original.open_llava(out, clip)
  index.unlink()
  _write_lora(out, config, params, {})
  with pytest.raises(ValueError, match="adapter_config.json lies beside"):
    original.open_llava(out, clip)


# Tensors that LLaVA's recipes and PEFT's modules_to_save train beside the
# projector and the kernels, by our names.
TRAINED = (
  "llm/embedding",
  "llm/head",
  "llm/final_norm/scale",
  "llm/layers/mlp_norm/scale",
  "vision/class_embedding",
  "vision/layers/mlp/up_bias",
)


def _doubled(config, params):
  """(params with TRAINED doubled, these tensors by their stored names)."""
  flat = traverse_util.flatten_dict(params, sep="/")
  flat |= {path: 2 * flat[path] for path in TRAINED}
  stored = {}
  for leaf in tables.llava_leaves(config):
    if leaf.path in TRAINED:
      value = (
        flat[leaf.path] if leaf.layer is None else flat[leaf.path][leaf.layer]
      )
      name = leaf.key.removeprefix("language_model.")
      tower = "model.vision_tower.vision_tower.vision_model."
      name = name.replace("vision_tower.", tower)
      stored[name] = np.ascontiguousarray(leaf.stored(value))
  return traverse_util.unflatten_dict(flat, sep="/"), stored


def test_whatever_was_trained_beside_the_projector_is_used(mlp, tmp_path):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  wanted, stored = _doubled(config, params)
  tensors = _projector(config, params) | stored
  torch_files.write(f"{out}/mm_projector.bin", tensors)
  _check(original.open_llava(out, clip, llama), config, wanted)


@pytest.mark.parametrize("where", ["non_lora_trainables", "modules_to_save"])
def test_whatever_was_trained_beside_a_lora_is_used(mlp, where, tmp_path):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  wanted, stored = _doubled(config, params)
  _write_lora(out, config, params, {})
  stored = {f"base_model.model.{k}": x for k, x in stored.items()}
  if where == "modules_to_save":
    path = f"{out}/adapter_model.safetensors"
    safetensors.numpy.save_file(stored, path)
  else:
    projector = _projector(
      config, params, "base_model.model.model.mm_projector."
    )
    torch_files.write(f"{out}/non_lora_trainables.bin", projector | stored)
  _check(original.open_llava(out, clip, llama), config, wanted)


def test_a_lora_of_the_vision_tower_is_merged(mlp, tmp_path):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  key = "encoder.layers.0.mlp.fc1.weight"
  kernel = _tensors(clip)[key]
  name = f"model.vision_tower.vision_tower.vision_model.{key}"
  shares = _write_lora(out, config, params, {name: kernel})
  wanted = jax.tree.map(np.array, params)
  wanted["vision"]["layers"]["mlp"]["up"][0] += shares[name].T
  _check(original.open_llava(out, clip, llama), config, wanted)


@pytest.mark.parametrize(
  "name, value, says",
  [
    (
      "model.resampler.weight",
      np.ones((2, 2), np.float32),
      "resampler.*no tensor of the",
    ),
    (
      "model.norm.weight",
      np.ones(3, np.float32),
      r"norm.weight has shape \(3,\)",
    ),
    ("model.norm.weight", np.ones(32, np.int64), "norm.weight is int64"),
  ],
  ids=["unknown", "another shape", "quantized"],
)
def test_a_tensor_that_can_not_be_used_is_refused(
  mlp, name, value, says, tmp_path
):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  tensors = _projector(config, params) | {name: value}
  torch_files.write(f"{out}/mm_projector.bin", tensors)
  with pytest.raises(ValueError, match=f"mm_projector.bin: .*{says}"):
    original.open_llava(out, clip, llama)


def test_a_trained_tower_that_no_file_has_is_refused(mlp, tmp_path):
  config, params, clip, llama = mlp
  for fields in (
    {"unfreeze_mm_vision_tower": True},
    {"mm_tunable_parts": "mm_mlp_adapter,mm_vision_tower"},
  ):
    out = _config_json(str(tmp_path / "out"), config, llama, **fields)
    torch_files.write(f"{out}/mm_projector.bin", _projector(config, params))
    with pytest.raises(ValueError, match="vision tower was trained"):
      original.open_llava(out, clip, llama)


@pytest.mark.parametrize(
  "field, value, says",
  [
    ("mm_use_im_start_end", True, "only False can be read"),
    ("mm_vision_select_feature", "cls_patch", "only 'patch' can be read"),
    ("mm_patch_merge_type", "spatial_unpad", "only 'flat' can be read"),
    ("image_aspect_ratio", "anyres", "only 'square' or 'pad' can be read"),
    ("mm_projector_type", "mlp3x_gelu", "only 'linear' or 'mlp2x_gelu'"),
    ("mm_resampler_type", "spatial_pool", "can't be read"),
    ("mm_spatial_pool_mode", "bilinear", "can't be read"),
    ("mm_hidden_size", 999, "a vision tower of width 16"),
    ("mm_vision_tower", "openai/clip-vit-large-patch14-336", "336 pixels"),
    ("model_type", "llava_mistral", "only 'llava_llama' or"),
    ("s2", True, "only False can be read"),
    ("quantization_config", {"load_in_4bit": True}, "only None can be read"),
    ("rope_scaling", {"type": "dynamic", "factor": 2.0}, "can be read"),
    ("attention_bias", True, "only False can be read"),
    ("hidden_act", "gelu", "only 'silu' can be read"),
    ("use_sliding_window", True, "only False can be read"),
  ],
)
def test_what_changes_the_model_is_refused_by_name_and_value(
  mlp, field, value, says, tmp_path
):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  torch_files.write(f"{out}/mm_projector.bin", _projector(config, params))
  path = pathlib.Path(out, "config.json")
  raw = json.loads(path.read_text()) | {field: value}
  raw.pop("rope_parameters" if field == "rope_scaling" else "", None)
  path.write_text(json.dumps(raw))
  with pytest.raises(ValueError, match="config.json: ") as error:
    original.open_llava(out, clip, llama)
  said = str(error.value)
  assert field.split("_scaling")[0] in said and says in said
  shown = value.get("type", value) if isinstance(value, dict) else value
  assert repr(shown) in said


def test_fields_that_change_nothing_are_read(mlp, tmp_path):
  config, params, clip, llama = mlp
  fields = {"mm_use_im_patch_token": True, "mm_resampler_type": None}
  out = _config_json(str(tmp_path / "out"), config, llama, **fields)
  torch_files.write(f"{out}/mm_projector.bin", _projector(config, params))
  _check(original.open_llava(out, clip, llama), config, params)


@pytest.mark.parametrize(
  "fields, says",
  [
    ({"r": 4}, "does not fit .* rank 4"),
    ({"rank_pattern": {"q_proj": 8}}, "rank_pattern .* can't be merged"),
    ({"use_dora": True}, "use_dora True can't be merged"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
    ({"peft_type": "IA3"}, "peft_type 'IA3'"),
    ({"r": "two"}, "adapter_config.json: r 'two' is not an integer"),
    ({"lora_alpha": None}, "adapter_config.json: field lora_alpha is missing"),
  ],
)
def test_a_lora_that_can_not_be_merged_is_refused(mlp, fields, says, tmp_path):
  config, params, clip, llama = mlp
  out = _config_json(str(tmp_path / "out"), config, llama)
  key = "model.layers.0.self_attn.q_proj.weight"
  _write_lora(out, config, params, {key: _tensors(llama)[key]})
  path = pathlib.Path(out, "adapter_config.json")
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))
  with pytest.raises(ValueError, match=says):
    original.open_llava(out, clip, llama)

"""Directories in Hugging Face's layout are read, or refused by name."""

import json
import os
import pathlib

import make_goldens
import numpy as np
import pytest
import safetensors.numpy
from model_kinds import same
from toy_models import CONFIG, golden, params_of

from locvlm_jax.weights.layouts import export, huggingface


def test_the_feature_layer_only_regroups_the_layers(tmp_path):
  directory = make_goldens.write(tmp_path, golden("clip_gelu"))
  all_used, _ = huggingface.load_clip_vision(directory, feature_layer=-1)
  params, config = huggingface.load_clip_vision(directory)
  assert config.feature_layer == -2
  up = all_used["layers"]["mlp"]["up"]
  np.testing.assert_array_equal(params["layers"]["mlp"]["up"], up[:2])
  unused = params["unused"]["layers"]["mlp"]["up"]
  np.testing.assert_array_equal(unused, up[2:])


@pytest.mark.parametrize(
  "load, part",
  [(huggingface.load_clip_vision, "vision"), (huggingface.load_llama, "llm")],
)
def test_a_part_of_a_llava(load, part, tmp_path):
  params = params_of(CONFIG)
  export.save_llava(str(tmp_path / "out"), params, CONFIG)
  loaded, found = load(str(tmp_path / "out"))
  same(loaded, params[part])
  assert found == getattr(CONFIG, part)


def edit(directory, change):
  """Rewrites the tensors of a directory."""
  path = os.path.join(directory, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


def test_missing_and_unknown_keys_are_named(llama_dir):
  def change(tensors):
    tensors["model.extra.weight"] = tensors.pop("model.norm.weight")

  edit(llama_dir, change)
  with pytest.raises(ValueError) as error:
    huggingface.load_llama(llama_dir)
  assert "1 missing, as model.norm.weight" in str(error.value)
  assert "1 unknown, as model.extra.weight" in str(error.value)
  assert llama_dir in str(error.value)


def test_wrong_shapes_are_named(llama_dir):
  def change(tensors):
    key = "model.layers.1.self_attn.k_proj.weight"
    tensors[key] = np.ascontiguousarray(tensors[key].T)

  edit(llama_dir, change)
  with pytest.raises(ValueError, match=r"layers.1.*k_proj.*\(16, 32\)"):
    huggingface.load_llama(llama_dir)


def test_known_leftovers_are_ignored(llama_dir):
  def change(tensors):
    for i in (0, 1):
      key = f"model.layers.{i}.self_attn.rotary_emb.inv_freq"
      tensors[key] = np.ones(4, np.float32)

  before, _ = huggingface.load_llama(llama_dir)
  edit(llama_dir, change)
  same(huggingface.load_llama(llama_dir)[0], before)


def split_in_two(directory, overlap):
  """model.safetensors -> two parts and their index."""
  path = pathlib.Path(directory, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  keys = sorted(tensors)
  parts = {"a.safetensors": keys[:5], "b.safetensors": keys[5 - overlap :]}
  for name, part in parts.items():
    some = {key: tensors[key] for key in part}
    safetensors.numpy.save_file(some, path.with_name(name))
  path.unlink()
  weight_map = {key: name for name, part in parts.items() for key in part}
  text = json.dumps({"weight_map": weight_map})
  path.with_name("model.safetensors.index.json").write_text(text)


def test_weights_in_parts(llama_dir):
  before, _ = huggingface.load_llama(llama_dir)
  split_in_two(llama_dir, overlap=0)
  same(huggingface.load_llama(llama_dir)[0], before)


def test_duplicate_keys_are_named(llama_dir):
  split_in_two(llama_dir, overlap=1)
  with pytest.raises(ValueError, match="1 duplicate, as model.layers.0"):
    huggingface.load_llama(llama_dir)


def test_earlier_spellings_are_read(tmp_path):
  """Those of llava-hf's checkpoints, and of transformers' module names."""
  directory = make_goldens.write(tmp_path / "x", golden("llava"))
  before, _ = huggingface.load_llava(directory)

  def respell(tensors):
    for key in list(tensors):
      new = key.replace("vision_tower.", "vision_tower.vision_model.")
      if key.startswith("language_model.lm_head"):
        new = key.removeprefix("language_model.")
      elif key.startswith("language_model.model."):
        new = key.replace("language_model.model.", "model.language_model.")
      tensors[new] = tensors.pop(key)

  edit(directory, respell)
  same(huggingface.load_llava(directory)[0], before)


@pytest.mark.parametrize(
  "field, value",
  [
    ("hidden_act", "gelu"),
    ("model_type", "gpt2"),
    ("attention_bias", True),
    ("rope_parameters", {"rope_type": "yarn", "rope_theta": 5e5}),
  ],
)
def test_variants_that_we_do_not_have_are_refused(llama_dir, field, value):
  path = pathlib.Path(llama_dir, "config.json")
  raw = json.loads(path.read_text()) | {field: value}
  path.write_text(json.dumps(raw))
  with pytest.raises(ValueError, match="can be read"):
    huggingface.load_llama(llama_dir)


def test_a_linear_projector_that_is_none_is_refused(tmp_path):
  directory = make_goldens.write(tmp_path / "x", golden("llava"))
  path = pathlib.Path(directory, "config.json")
  raw = json.loads(path.read_text()) | {"projector_hidden_act": "linear"}
  path.write_text(json.dumps(raw))
  with pytest.raises(ValueError, match="identity as linear_2"):
    huggingface.load_llava(directory)


def test_directories_without_weights_are_named(tmp_path):
  with pytest.raises(ValueError, match="config.json"):
    huggingface.load_llama(str(tmp_path / "absent"))
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ValueError, match="model.safetensors"):
    huggingface.load_llama(str(tmp_path))
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match="config.json"):
    huggingface.load_llama(str(tmp_path))


def test_truncated_weights_are_named(llama_dir):
  path = pathlib.Path(llama_dir, "model.safetensors")
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match="model.safetensors"):
    huggingface.load_llama(llama_dir)

"""Directories in Hugging Face's layout are written, and read again alike."""

import dataclasses
import json
import os
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util
from model_kinds import ALL, STRETCHED, name_of, same
from toy_models import CONFIG, params_of

from locvlm_jax.weights.layouts import export, huggingface


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("config", ALL, ids=name_of)
def test_llava_round_trip(config, dtype, tmp_path):
  params = params_of(config, dtype)
  export.save_llava(str(tmp_path / "out"), params, config)
  loaded, found = huggingface.load_llava(str(tmp_path / "out"))
  same(loaded, params)
  wanted = (config.vision, config.adapter, config.llm)
  assert (found.vision, found.adapter, found.llm) == wanted


@pytest.mark.parametrize(
  "changes", [{}, {"tie_embeddings": True}, {"qkv_bias": True}, *STRETCHED]
)
def test_llama_round_trip(changes, tmp_path):
  llm = dataclasses.replace(CONFIG.llm, **changes)
  params = params_of(dataclasses.replace(CONFIG, llm=llm))["llm"]
  export.save_llama(str(tmp_path), params, llm)
  loaded, found = huggingface.load_llama(str(tmp_path))
  same(loaded, params)
  assert found == llm


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_clip_round_trip(layer, tmp_path):
  vision = dataclasses.replace(CONFIG.vision, feature_layer=layer)
  params = params_of(dataclasses.replace(CONFIG, vision=vision))["vision"]
  export.save_clip_vision(str(tmp_path), params, vision)
  loaded, found = huggingface.load_clip_vision(str(tmp_path))
  same(loaded, params)
  assert found == vision


def test_parameters_that_do_not_fit_are_named(tmp_path):
  params = params_of(CONFIG)["llm"]
  wide = dataclasses.replace(CONFIG.llm, mlp_width=64)
  with pytest.raises(ValueError, match="layers/mlp/gate has shape"):
    export.save_llama(str(tmp_path / "out"), params, wide)
  del params["head"]
  with pytest.raises(ValueError, match="head"):
    export.save_llama(str(tmp_path / "out"), params, CONFIG.llm)
  assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
  params = params_of(CONFIG)["llm"]

  def fail(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(export.json, "dump", fail)
  with pytest.raises(OSError, match="disk full"):
    export.save_llama(str(tmp_path / "out"), params, CONFIG.llm)
  assert list(tmp_path.iterdir()) == []


def test_other_files_of_a_directory_stay(tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  for _ in range(2):
    export.save_llama(str(tmp_path), params_of(CONFIG)["llm"], CONFIG.llm)
  found = {path.name for path in tmp_path.iterdir()}
  assert found == {"notes.txt", "config.json", "model.safetensors"}


def test_large_models_are_written_in_parts(tmp_path, monkeypatch):
  params, out = params_of(CONFIG), str(tmp_path / "out")
  export.save_llava(out, params, CONFIG)
  small = 1 << 14
  monkeypatch.setattr(export, "FILE_BYTES", small)
  export.save_llava(out, params, CONFIG)
  same(huggingface.load_llava(out)[0], params)
  files = sorted(pathlib.Path(out).glob("*.safetensors"))
  assert len(files) > 3 and files[0].name.startswith("model-00001-of-")
  for file in files:
    tensors = safetensors.numpy.load_file(file)
    assert len(tensors) == 1 or sum(x.nbytes for x in tensors.values()) <= small
  monkeypatch.undo()
  export.save_llava(out, params, CONFIG)  # leaves nothing of the parts
  assert sorted(os.listdir(out)) == ["config.json", "model.safetensors"]


def test_tensors_from_disk_are_written_bit_for_bit(tmp_path):
  for config in ALL:
    first, second = (str(tmp_path / name_of(config) / x) for x in "ab")
    export.save_llava(first, params_of(config), config)
    tensors, _ = huggingface.open_llava(first)
    nested = traverse_util.unflatten_dict(tensors, sep="/")
    export.save_llava(second, nested, config)
    for name in os.listdir(first):
      assert (
        pathlib.Path(first, name).read_bytes()
        == pathlib.Path(second, name).read_bytes()
      )


@pytest.fixture
def tokenizer_dir(tmp_path):
  from locvlm_jax.text import bpe

  directory = str(tmp_path / "tokenizer")
  bpe.train_bpe(["a red ball", "two cups"] * 4, 400).save(directory)
  return directory


@pytest.mark.parametrize("spare", [0, 5])
def test_llava_with_its_tokenizer(tokenizer_dir, tmp_path, spare):
  """<image> takes the first id that is free; rows grow only if they must."""
  import tokenizers

  path = os.path.join(tokenizer_dir, "tokenizer.json")
  size = tokenizers.Tokenizer.from_file(path).get_vocab_size()
  llm = dataclasses.replace(CONFIG.llm, vocab_size=size + spare)
  config = dataclasses.replace(CONFIG, llm=llm)
  params, out = params_of(config), str(tmp_path / "out")
  export.save_llava(out, params, config, tokenizer_dir)
  raw = json.loads(pathlib.Path(out, "config.json").read_text())
  assert raw["image_token_index"] == size
  assert raw["text_config"]["vocab_size"] == size + max(spare, 1)
  text = tokenizers.Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
  assert text.token_to_id("<image>") == size
  same(huggingface.load_llava(out)[0], params)

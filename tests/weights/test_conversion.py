"""Conversion of weights: what an input is, what comes out, what is refused."""

import dataclasses
import errno
import json
import os
import pathlib
import pickle
import shutil

import make_goldens
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch_files
from converted import to_hf
from toy_models import TOY, golden, params_of
from zygote import run

from locvlm_jax import errors
from locvlm_jax.text import tokenizer
from locvlm_jax.weights import conversion
from locvlm_jax.weights.layouts import export, huggingface


@pytest.fixture
def llm(tmp_path):
  return make_goldens.write(tmp_path / "llm", golden("llama"))


@pytest.fixture
def clip(tmp_path):
  return make_goldens.write(tmp_path / "clip", golden("clip_quick_gelu"))


@pytest.fixture
def llava(tmp_path, words):
  size = tokenizer.Tokenizer.load(words).vocab_size
  config = dataclasses.replace(
    TOY, llm=dataclasses.replace(TOY.llm, vocab_size=size)
  )
  directory = str(tmp_path / "llava")
  export.save_llava(directory, params_of(config), config, words)
  return directory


def contents(directory):
  return {
    name: pathlib.Path(directory, name).read_bytes()
    for name in os.listdir(directory)
    if name != "origin.json"
  }


def test_a_llava_comes_out_as_it_went_in(llava, tmp_path):
  """Hugging Face -> ours -> Hugging Face, file by file and bit for bit."""
  out = str(tmp_path / "out")
  done = run("convert", f"--input={llava}", f"--output={out}")
  assert done.returncode == 0, done.stderr
  assert contents(out) == contents(llava)
  shown = done.stdout
  assert "adapter" in shown and "float32" in shown and "vision" in shown
  assert shown.splitlines()[-1] == out
  assert json.loads(pathlib.Path(out, "origin.json").read_text())["input"]


def test_an_llm_comes_out_as_safetensors(llm, words, tmp_path):
  wanted = contents(llm)["model.safetensors"]
  path = os.path.join(llm, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  os.remove(path)
  torch_files.write(os.path.join(llm, "pytorch_model.bin"), tensors)
  shutil.copytree(words, llm, dirs_exist_ok=True)
  out = to_hf(llm, tmp_path / "out")
  assert contents(out)["model.safetensors"] == wanted
  for name, content in contents(words).items():
    assert contents(out)[name] == content


def test_of_clip_the_vision_tower_comes_out(clip, tmp_path):
  out = to_hf(clip, tmp_path / "out")
  a, b = (
    huggingface.load_clip_vision(clip)[0],
    huggingface.load_clip_vision(out)[0],
  )
  np.testing.assert_array_equal(a["patch"], b["patch"])
  stored = "model.safetensors"
  assert contents(out)[stored] == contents(clip)[stored]


def test_a_projector_gets_its_llm_and_tower(llm, clip, words, tmp_path):
  directory = tmp_path / "projector"
  directory.mkdir()
  raw = json.loads(pathlib.Path(llm, "config.json").read_text())
  raw |= {"model_type": "llava_llama", "mm_projector_type": "linear"}
  (directory / "config.json").write_text(json.dumps(raw))
  rng = np.random.default_rng(0)
  tensors = {
    "model.mm_projector.weight": rng.standard_normal((32, 32), np.float32),
    "model.mm_projector.bias": rng.standard_normal(32, np.float32),
  }
  torch_files.write(str(directory / "mm_projector.bin"), tensors)
  assert conversion.kind(str(directory)) == "original"
  with pytest.raises(ValueError, match="name the directory of its vision"):
    to_hf(directory, tmp_path / "out", base=llm, tokenizer=words)
  small = tmp_path / "words"  # the toy LLM has 64 ids; <image> is one more
  shutil.copytree(words, small)
  out = to_hf(
    directory, tmp_path / "out", base=llm, vision=clip, tokenizer=str(small)
  )
  params, config = huggingface.load_llava(out)
  assert config.adapter == "linear"
  np.testing.assert_array_equal(
    params["adapter"]["linear_1"], tensors["model.mm_projector.weight"].T
  )


def test_kinds_are_told_apart(llm, clip, llava, tmp_path):
  kinds = {llm: "llm", clip: "vision", llava: "llava"}
  assert {d: conversion.kind(d) for d in kinds} == kinds
  (tmp_path / "run" / "checkpoints").mkdir(parents=True)
  assert conversion.kind(str(tmp_path / "run")) == "run"


def truncate(directory):
  path = pathlib.Path(directory, "model.safetensors")
  path.write_bytes(path.read_bytes()[:-100])


def lose_a_shard(directory):
  path = pathlib.Path(directory, "model.safetensors")
  keys = safetensors.numpy.load_file(path).keys()
  path.rename(pathlib.Path(directory, "model-1-of-2.safetensors"))
  index = {
    key: f"model-{1 + i % 2}-of-2.safetensors" for i, key in enumerate(keys)
  }
  pathlib.Path(directory, "model.safetensors.index.json").write_text(
    json.dumps({"weight_map": index})
  )


def change_config(directory):
  path = pathlib.Path(directory, "config.json")
  raw = json.loads(path.read_text()) | {"intermediate_size": 40}
  path.write_text(json.dumps(raw))


def lose_the_tokenizer(directory):
  os.remove(os.path.join(directory, "tokenizer.json"))


class Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def plant_a_pickle(directory):
  os.remove(os.path.join(directory, "model.safetensors"))
  planted = Malicious(os.path.join(directory, "executed"))
  torch_files.write_raw(
    os.path.join(directory, "pytorch_model.bin"),
    pickle.dumps({"model.norm.weight": planted}),
    [],
  )


@pytest.mark.parametrize(
  "spoil, named",
  [
    (truncate, "model.safetensors"),
    (lose_a_shard, "model-2-of-2.safetensors"),
    (change_config, "has shape"),
    (lose_the_tokenizer, "name --tokenizer"),
    (plant_a_pickle, "pytorch_model.bin"),
  ],
)
def test_nothing_is_written_of_bad_input(spoil, named, llm, words, tmp_path):
  shutil.copytree(words, llm, dirs_exist_ok=True)
  spoil(llm)
  with pytest.raises(ValueError, match=named):
    to_hf(llm, tmp_path / "out")
  assert sorted(os.listdir(tmp_path)) == ["llm"]
  assert not os.path.exists(os.path.join(llm, "executed"))


def test_a_directory_that_is_no_model_is_told_in_one_line(tmp_path):
  done = run("convert", f"--input={tmp_path}", f"--output={tmp_path}/out")
  assert done.returncode == 70
  assert done.stderr.count("\n") == 1 and "config.json" in done.stderr


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
  "module, name, error",
  [
    (safetensors.numpy, "save_file", FULL),
    (
      safetensors.numpy,
      "save_file",
      safetensors.SafetensorError("I/O error: No space left (os error 28)"),
    ),
    (export.json, "dump", FULL),
    (tokenizer.shutil, "copyfile", FULL),
  ],
  ids=["weights", "weights, as safetensors says it", "config", "tokenizer"],
)
def test_a_full_disk_is_told_in_one_line_and_nothing_stays(
  module, name, error, llm, words, tmp_path, monkeypatch
):
  def fail(*_, **__):
    raise error

  monkeypatch.setattr(module, name, fail)
  with pytest.raises(errors.SaveFailed, match="out: not written: .*No space"):
    to_hf(llm, tmp_path / "out", tokenizer=words)
  assert sorted(os.listdir(tmp_path)) == ["llm"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
  llm, words, tmp_path, monkeypatch
):
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
  monkeypatch.setattr(export, "_write_weights", None)
  with pytest.raises(errors.SaveFailed, match="bytes do not fit .1,000 bytes"):
    to_hf(llm, tmp_path / "out", tokenizer=words)


LFS = "version https://git-lfs.example/spec/v1\noid sha256:abc\nsize 499723\n"


@pytest.mark.parametrize(
  "name", ["model.safetensors", "pytorch_model.bin", "config.json"]
)
def test_a_pointer_of_git_lfs_is_named_as_such(name, llm, words, tmp_path):
  if name.endswith(".bin"):
    os.remove(os.path.join(llm, "model.safetensors"))
  pathlib.Path(llm, name).write_text(LFS)
  with pytest.raises(ValueError, match=f"{name} is a git-lfs pointer"):
    to_hf(llm, tmp_path / "out", tokenizer=words)


def test_nothing_of_another_models_use_stays_in_a_directory(
  llava, llm, words, tmp_path
):
  out = tmp_path / "out"
  to_hf(llava, out)
  (out / "preprocessor_config.json").write_text("{}")
  to_hf(llm, out, tokenizer=words)
  assert not (out / "preprocessor_config.json").exists()
  assert not (out / "generation_config.json").exists()

"""Hugging Face directories: round trips, loud failures, live parity."""

import dataclasses
import json
import os
import pathlib
import pickle

import jax
import make_goldens
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from flax import traverse_util
from jax.sharding import SingleDeviceSharding
from toy_models import CONFIG, TOY, close, golden, hidden, logits, params_of

from locvlm_jax.models import clip_vit
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import placement
from locvlm_jax.weights.layouts import (
  export,
  huggingface,
  pickles,
  tensor_files,
)

BOTH = [dataclasses.replace(CONFIG, adapter=a) for a in ("linear", "mlp")]


def siglip(config):
  """With SigLIP's tower, two pixels of whose images are left out."""
  vision = dataclasses.replace(
    config.vision,
    family="siglip",
    activation="gelu_pytorch_tanh",
    image_size=config.vision.image_size + 2,
    eps=1e-6,
  )
  return dataclasses.replace(config, vision=vision)


ALL = [*BOTH, siglip(CONFIG)]


def name_of(config):
  return f"{config.vision.family}-{config.adapter}"


def same(a, b):
  def check(x, y):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)

  jax.tree.map(check, a, b)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("config", ALL, ids=name_of)
def test_llava_round_trip(config, dtype, tmp_path):
  params = params_of(config, dtype)
  export.save_llava(str(tmp_path / "out"), params, config)
  loaded, found = huggingface.load_llava(str(tmp_path / "out"))
  same(loaded, params)
  wanted = (config.vision, config.adapter, config.llm)
  assert (found.vision, found.adapter, found.llm) == wanted


STRETCHED = [
  {"rope_type": "linear", "rope_factor": 4.0},
  {"rope_type": "llama3", "rope_factor": 8.0, "rope_original_positions": 16},
]


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


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("config", ALL[1:], ids=name_of)
@pytest.mark.parametrize("shape", [{}, {"fsdp": 2, "tensor": 2}, {"data": 4}])
def test_tensors_go_to_their_devices(config, dtype, shape, tmp_path):
  params = params_of(config, np.float32)
  export.save_llava(str(tmp_path / "out"), params, config)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  wanted = traverse_util.flatten_dict(params, sep="/")
  assert tensors.keys() == wanted.keys()
  places = dict.fromkeys(wanted, SingleDeviceSharding(jax.devices()[0]))
  if shape:
    mesh = sharding.make_mesh(shape)
    places = sharding.param_shardings(wanted, mesh)
  for path, tensor in tensors.items():
    placed = tensor.place(dtype, places[path])
    assert placed.sharding == places[path]
    same(np.asarray(placed), np.asarray(wanted[path]).astype(dtype))


@pytest.mark.parametrize("layers", [1, 2])
def test_layers_go_to_their_devices_in_runs(layers, tmp_path, monkeypatch):
  """What keeps host memory small where devices have a memory of their own."""
  params = params_of(CONFIG)
  export.save_llava(str(tmp_path / "out"), params, CONFIG)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  wanted = traverse_util.flatten_dict(params, sep="/")
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  places = sharding.param_shardings(wanted, mesh)
  monkeypatch.setattr(
    placement.Tensor,
    "_layers_at_a_time",
    lambda self, *_: min(layers, len(self.parts)),
  )
  for path in ("llm/layers/mlp/gate", "vision/layers/attention/q", "llm/head"):
    placed = tensors[path].place(np.float32, places[path])
    assert placed.sharding == places[path]
    same(np.asarray(placed), np.asarray(wanted[path]))


def test_a_device_reads_its_own_slice(tmp_path, monkeypatch):
  params = params_of(CONFIG)
  export.save_llava(str(tmp_path / "out"), params, CONFIG)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  shapes = []
  original = tensor_files._Safetensors.read

  def spy(self, key, index):
    part = original(self, key, index)
    shapes.append(part.shape)
    return part

  monkeypatch.setattr(tensor_files._Safetensors, "read", spy)
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  tensor = tensors["llm/layers/mlp/gate"]  # [L, D, F], stored as [F, D]
  num_layers, width, hidden = tensor.shape
  tensor.place(
    np.float32,
    sharding.param_shardings({"llm/layers/mlp/gate": tensor}, mesh)[
      "llm/layers/mlp/gate"
    ],
  )
  assert shapes == [(hidden // 2, width // 2)] * 4 * num_layers


def edit(directory, change):
  """Rewrites the tensors of a directory."""
  path = os.path.join(directory, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  change(tensors)
  safetensors.numpy.save_file(tensors, path)


@pytest.fixture
def llama_dir(tmp_path):
  return make_goldens.write(tmp_path / "llama", golden("llama"))


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


def _as_bin(directory, dtype=np.float32):
  """Replaces the safetensors file of a directory by PyTorch's."""
  path = pathlib.Path(directory, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  path.unlink()
  tensors = {k: v.astype(dtype) for k, v in tensors.items()}
  torch_files.write(str(path.with_name("pytorch_model.bin")), tensors)
  return tensors


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_pytorch_files_are_read(llama_dir, dtype):
  before, _ = huggingface.load_llama(llama_dir)
  _as_bin(llama_dir, dtype)
  after, _ = huggingface.load_llama(llama_dir)
  same(after, jax.tree.map(lambda x: x.astype(dtype), before))


def test_strides_of_pytorch_files(tmp_path):
  x = np.arange(24, dtype=np.float32).reshape(4, 6)
  path = str(tmp_path / "x.bin")
  torch_files.write(path, {"a": x, "b": x.T, "c": x[:0]})
  file = pickles.File(path)
  assert [file.shape(k) for k in "abc"] == [(4, 6), (6, 4), (0, 6)]
  np.testing.assert_array_equal(file.read("a", np.s_[1:3, 2:]), x[1:3, 2:])
  np.testing.assert_array_equal(file.read("b", np.s_[1:3, 2:]), x.T[1:3, 2:])


class _Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def test_a_pickle_is_not_executed(llama_dir, tmp_path):
  _as_bin(llama_dir)
  target = str(tmp_path / "made")
  torch_files.write_raw(
    os.path.join(llama_dir, "pytorch_model.bin"),
    pickle.dumps({"model.norm.weight": _Malicious(target)}),
    [],
  )
  with pytest.raises(ValueError, match=r"pytorch_model.bin: .*\.mkdir"):
    huggingface.load_llama(llama_dir)
  assert not os.path.exists(target)


def test_broken_pytorch_files_are_named(llama_dir):
  _as_bin(llama_dir)
  path = pathlib.Path(llama_dir, "pytorch_model.bin")
  path.write_bytes(path.read_bytes()[:-400])
  with pytest.raises(ValueError, match="pytorch_model.bin: .*truncated"):
    huggingface.load_llama(llama_dir)


def test_a_view_outside_of_its_storage_is_refused(tmp_path):
  path = str(tmp_path / "x.bin")
  x = np.zeros((8, 8), np.float32)
  beyond = np.lib.stride_tricks.as_strided(x, (8, 8), (64, 4))
  torch_files.write(path, {"a": beyond})
  with pytest.raises(ValueError, match="outside of its storage"):
    pickles.File(path)


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


# Live: transformers on PyTorch reads what we write.


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

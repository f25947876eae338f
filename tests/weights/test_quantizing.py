"""A quantized base: from files, in a run, as an export, and when it answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed
from converted import to_hf
from toy_models import params_of

from configs import base, variants
from locvlm_jax import assemble, checks
from locvlm_jax.config import freeze, plain
from locvlm_jax.inference.predictor import Predictor
from locvlm_jax.models import params as params_lib
from locvlm_jax.models import quantized
from locvlm_jax.parallel import sharding
from locvlm_jax.text import tokenizer
from locvlm_jax.training import validation
from locvlm_jax.weights import checkpoints, frozen, initial, placement, runs
from locvlm_jax.weights.layouts import export, huggingface


@pytest.fixture(scope="module")
def config(words, tmp_path_factory):
  """A tiny QLoRA in 4 bits, and the Llava that it starts from."""
  config = variants.qlora(base.get_config("tiny"))
  config.init.random = ()
  config.tokenizer = words
  config.lora.rank = 2
  config.model.llm.num_kv_heads = 4
  config.model.llm.vocab_size = tokenizer.Tokenizer.load(words).vocab_size
  plain_llm = {"lora.rank": 0, "model.llm.base_weights": "float"}
  own = changed(config, trainable=("llm",), **plain_llm)
  folder, shape = tmp_path_factory.mktemp("base"), assemble.model(own).config
  export.save_llava(str(folder), params_of(shape), shape, words)
  config.init.llava = str(folder)
  return freeze(config)


def in_base(config, precision):
  return changed(config, **{"model.llm.base_weights": precision})


def params(config):
  mesh = sharding.make_mesh({"fsdp": 2, "data": 2})
  return initial.initial_params(config, assemble.model(config), mesh)


def whole(flat):
  """Dequantizes each kernel."""
  found = {}
  for path, x in flat.items():
    if path.endswith("/codes"):
      path = path.removesuffix("/codes")
      parts = quantized.Quantized(x, flat[f"{path}/scales"])
      x = quantized.dequantize(parts)
    if not path.endswith("/scales"):
      found[path] = np.asarray(x)
  return found


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
  """(The folder of a run that trained its LoRA a little, its parameters)."""
  workdir = str(tmp_path_factory.mktemp("run"))
  trainable, rest = params_lib.split(params(config), config.trainable)
  trainable = {path: x + 0.01 for path, x in trainable.items()}
  refers = frozen.reference(config.init, rest, workdir)
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(workdir))
  items = {"params": {"trainable": trainable, "frozen": {}}}
  info = {"next_step": 1, "config": plain(config), "frozen": refers}
  saved.save(1, items, info, last=True)
  saved.close()
  return workdir, {**trainable, **rest}


def test_files_are_quantized_layer_by_layer(config, monkeypatch):
  asked, original = [], placement.Tensor.piece

  def piece(self, first, layers, dtype, where):
    asked.append(layers)
    return original(self, first, layers, dtype, where)

  monkeypatch.setattr(placement.Tensor, "piece", piece)
  found = params(config)
  # Each of two layers for codes and for scales.
  assert asked.count(1) >= 4 * len(quantized.LAYER_KERNELS)
  floats = huggingface.open_llava(config.init.llava)[0]
  for path in quantized.LAYER_KERNELS:
    want = quantized.quantize(jnp.asarray(floats[path].read()), "nf4")
    for name, value in want._asdict().items():
      np.testing.assert_array_equal(found[f"{path}/{name}"], value)
  assert not found.keys() & set(quantized.LAYER_KERNELS)
  lines = initial.describe(config, assemble.model(config), found)
  count = sum(
    np.prod(x.shape) for p, x in floats.items() if p.startswith("llm")
  )
  assert f"  llm: {count:,} parameters from {config.init.llava}" in str(lines)


def test_a_run_refers_to_its_base_and_is_read_again(config, run):
  own = runs.open_params(run[0])[0]
  assert not any(quantized.is_part(path) for path in own)
  flat, _ = initial.open_params(run[0], config.init)
  assert flat.keys() == run[1].keys()
  for path, value in flat.items():
    np.testing.assert_array_equal(value.read(), run[1][path], path)


def test_an_export_is_the_base_and_its_updates_merged(config, run, tmp_path):
  out, flat = to_hf(run[0], tmp_path / "out", dtype="float32"), whole(run[1])
  exported = huggingface.open_llava(out)[0]
  scale = config.lora.alpha / config.lora.rank
  for path, update in (
    ("llm/layers/mlp/gate", "ldr,lrf->ldf"),
    ("llm/layers/attention/q", "ldr,lrhk->ldhk"),
  ):
    a, b = flat[f"{path}_lora_a"], flat[f"{path}_lora_b"]
    want = flat[path] + scale * np.einsum(update, a, b)
    np.testing.assert_allclose(exported[path].read(), want, atol=1e-6)
  assert not any("codes" in path or "lora" in path for path in exported)
  assert runs.stored_config(out).model.llm.base_weights == "float"


def test_a_run_answers_as_it_was_trained_or_dequantized(config, run):
  mesh = sharding.make_mesh({"fsdp": 4})

  def loaded(config):
    with jax.set_mesh(mesh):
      found = Predictor.load(config, mesh, run[0])
    return whole(params_lib.flatten(found.params))

  own, floats = loaded(config), in_base(config, "float")
  override = {"eval.override": ("model.llm.base_weights",)}
  dequantized = loaded(changed(floats, **override))
  for path, x in own.items():
    np.testing.assert_array_equal(dequantized[path], x, path)
  with pytest.raises(ValueError, match="base_weights='float' .there: 'nf4'"):
    loaded(floats)


def test_validation_asks_the_quantized_base_itself(config):
  """Its codes are no numbers to be rounded to the computation's dtype."""
  masters = params(config)
  nested = validation.computed(masters, "bfloat16")
  for path, x in params_lib.flatten(nested).items():
    is_part = quantized.is_part(path)
    assert x.dtype == (masters[path].dtype if is_part else jnp.bfloat16), path
    if is_part:
      np.testing.assert_array_equal(x, masters[path])


def test_quantized_kernels_are_not_trained(config):
  config = changed(in_base(config, "int8"), trainable=("adapter", "llm"))
  with pytest.raises(ValueError, match="base_weights='int8': trainable='llm'"):
    checks.check(config)


def test_an_unknown_precision_is_named(config):
  with pytest.raises(ValueError, match="llm.base_weights 'int4': not one of"):
    assemble.model(in_base(config, "int4"))

"""Checkpoints that refer to frozen weights instead of storing them."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed
from converted import to_hf
from toy_models import params_of

from configs import base
from locvlm_jax import assemble, errors
from locvlm_jax.config import freeze, plain
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.text import tokenizer
from locvlm_jax.weights import checkpoints, frozen, initial, runs
from locvlm_jax.weights.layouts import export, huggingface


@pytest.fixture
def config(words, tmp_path):
  """A tiny config whose adapter trains, and the Llava that it starts from."""
  config = base.get_config("tiny")
  config.tokenizer = words
  config.trainable = ("adapter",)
  config.model.llm.vocab_size = tokenizer.Tokenizer.load(words).vocab_size
  shape = assemble.model(freeze(config)).config
  export.save_llava(str(tmp_path / "llava"), params_of(shape), shape, words)
  return changed(config, **{"init.llava": str(tmp_path / "llava")})


def save(config, workdir, step=1):
  """A checkpoint of what `config.init` gives, as training saves it."""
  workdir, mesh = str(workdir), sharding.make_mesh({"fsdp": 4})
  params = initial.initial_params(config, assemble.model(config), mesh)
  trainable, rest = params_lib.split(params, config.trainable)
  trainable = {path: x + 1 for path, x in trainable.items()}
  refers = frozen.reference(config.init, rest, workdir)
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(workdir))
  items = {"params": {"trainable": trainable, "frozen": {}}}
  info = {"next_step": step, "config": plain(config), "frozen": refers}
  saved.save(step, items, info, last=True)
  saved.close()
  return {**trainable, **rest}


def opened(workdir, config):
  flat, _ = initial.open_params(str(workdir), config.init)
  return {path: value.read() for path, value in flat.items()}


def check_same(found, wanted):
  assert found.keys() == wanted.keys()
  for path, value in wanted.items():
    np.testing.assert_array_equal(found[path], np.asarray(value), path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_stores_what_trains_and_gives_all(config, tmp_path, dtype):
  config = changed(config, **{"model.dtype": dtype})
  wanted = save(config, tmp_path / "run")
  own = runs.open_params(str(tmp_path / "run"))[0]
  assert {path.split("/")[0] for path in own} == {"adapter"}
  check_same(opened(tmp_path / "run", config), wanted)
  flat, _ = initial.open_params(str(tmp_path / "run"), config.init)
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  placed = flat["llm/embedding"].place(jnp.float32, where)
  np.testing.assert_array_equal(placed, wanted["llm/embedding"])


def test_an_export_holds_the_whole_model(config, tmp_path):
  wanted = save(config, tmp_path / "run")
  out = to_hf(tmp_path / "run", tmp_path / "out", dtype="float32")
  flat = huggingface.open_llava(out)[0]
  check_same({path: x.read() for path, x in flat.items()}, wanted)


def test_a_later_stage_refers_through_an_earlier_one(config, tmp_path):
  save(config, tmp_path / "first")
  later = changed(
    config, **{"init.llava": "", "init.checkpoint": str(tmp_path / "first")}
  )
  wanted = save(later, tmp_path / "second")
  check_same(opened(tmp_path / "second", later), wanted)


def test_a_directory_that_has_moved_is_named_and_can_be_given(config, tmp_path):
  wanted = save(config, tmp_path / "run")
  (tmp_path / "llava").rename(tmp_path / "elsewhere")
  with pytest.raises(errors.DataError, match="no such directory") as error:
    opened(tmp_path / "run", config)
  assert str(tmp_path / "llava") in str(error.value)
  assert "--config.init.llava=DIR" in str(error.value)
  there = changed(config, **{"init.llava": str(tmp_path / "elsewhere")})
  check_same(opened(tmp_path / "run", there), wanted)


def test_a_folder_that_moves_with_its_weights_is_read(config, tmp_path):
  wanted = save(config, tmp_path / "runs" / "run")
  (tmp_path / "new").mkdir()
  for name in ("llava", "runs"):
    (tmp_path / name).rename(tmp_path / "new" / name)
  check_same(opened(tmp_path / "new" / "runs" / "run", config), wanted)


@pytest.mark.parametrize("part", ["llm/embedding", "vision/patch"])
def test_other_weights_in_that_directory_are_refused(
  config, words, part, tmp_path
):
  save(config, tmp_path / "run")
  flat, shape = huggingface.load_llava(str(tmp_path / "llava"))
  flat = params_lib.flatten(flat)
  flat[part] = flat[part] * 2
  shutil.rmtree(tmp_path / "llava")
  nested = params_lib.unflatten(flat)
  export.save_llava(str(tmp_path / "llava"), nested, shape, words)
  with pytest.raises(errors.Mismatch, match=f"{part} there is another one"):
    opened(tmp_path / "run", config)


def test_what_no_file_gave_is_stored(config, tmp_path):
  random = changed(config, **{"init.llava": ""})
  assert frozen.reference(random.init, {"x": jnp.ones(2)}, "run") is None
  assert frozen.reference(config.init, {}, "run") is None
  refers = frozen.reference(config.init, {"x": jnp.ones(2)}, str(tmp_path))
  assert pathlib.Path(refers["init"]["llava"]) == tmp_path / "llava"

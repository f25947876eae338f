"""Where a run's parameters come from: `config.init`."""

import importlib

import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed

from configs import micro
from locvlm_jax import assemble
from locvlm_jax.config import freeze
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import initial
from locvlm_jax.weights.layouts import export, huggingface


def _config(words="stage2", **init):
  config = micro.get_config(words)
  places = ("vision", "llm", "llava", "checkpoint")
  config.init.update(dict.fromkeys(places, "") | init)
  return freeze(config)


def _params(config):
  mesh = sharding.make_mesh(assemble.mesh_sizes(config))
  return initial.initial_params(config, assemble.model(config), mesh)


@pytest.fixture(scope="module")
def base():
  return params_lib.flatten(huggingface.load_llava(micro.BASE)[0])


@pytest.fixture(scope="module")
def parts(base, tmp_path_factory):
  """The micro base as a CLIP and a LLaMA directory."""
  params, config = huggingface.load_llava(micro.BASE)
  clip, llama = (str(tmp_path_factory.mktemp(x)) for x in ("clip", "llama"))
  export.save_clip_vision(clip, params["vision"], config.vision)
  export.save_llama(llama, params["llm"], config.llm)
  return {"vision": clip, "llm": llama}


def test_a_llava_gives_all(base):
  config = changed(_config(llava=micro.BASE), **{"model.dtype": "bfloat16"})
  params = _params(config)
  assert params.keys() == base.keys()
  for path, value in params.items():
    frozen = path.startswith("vision/")
    assert value.dtype == (jnp.bfloat16 if frozen else jnp.float32), path
    wanted = base[path].astype(np.float32)
    np.testing.assert_array_equal(np.asarray(value, np.float32), wanted)


def test_parts_leave_the_adapter_random(parts, base):
  params = _params(_config("stage1", **parts))
  for path, value in params.items():
    same = np.array_equal(np.asarray(value), base[path].astype(np.float32))
    assert same != path.startswith("adapter/"), path


def test_frozen_parameters_have_to_come_from_somewhere(parts):
  with pytest.raises(ValueError, match="as vision/.* are frozen"):
    _params(_config(llm=parts["llm"]))


@pytest.mark.parametrize(
  "words, init, named",
  [
    ("stage2", (), "adapter, llm, vision .*as "),
    ("stage1", (), "llm, vision .*as "),
    ("stage2", ("vision", "llm"), r"adapter \(4 arrays, as adapter/"),
    ("vid_b", ("vision", "llm"), "adapter "),
  ],
)
def test_parameters_that_no_file_gives_are_refused_by_name(
  parts, words, init, named
):
  """But the adapter that stage 1 trains alone, on pictures."""
  config = _config(words, **{name: parts[name] for name in init})
  with pytest.raises(ValueError, match=f"no file gives the .*of {named}"):
    _params(config)
  if init:
    parts = ("vision", "adapter", "llm")
    assert _params(changed(config, **{"init.random": parts}))


def test_only_the_parts_that_are_named_may_be_random(parts):
  """Captions trains adapter and LLM from nothing, but never the ViT."""
  with pytest.raises(ValueError, match=r"of vision .*init.random=vision\)"):
    _params(_config("captions"))
  assert _params(_config("captions", vision=parts["vision"]))
  with pytest.raises(ValueError, match="init.random='vit': not one of"):
    _params(_config("captions", random=("vit",)))
  assert initial.random_parts(True) == initial.random_parts(("True",))
  assert initial.random_parts(False) == ()


def test_only_configs_that_say_so_start_from_nothing():
  """The tiny ones, and two of the steps that make the micro base."""
  found = {s for s in micro.STAGES if micro.get_config(s).init.random}
  assert found == {"portraits", "captions"}
  for name in ("base", "coco", "locvlm_b", "locvlm_l", "locvlm_vid_b"):
    config = importlib.import_module(f"configs.{name}")
    assert not config.get_config().init.random
    assert config.get_config("tiny").init.random


def test_each_part_says_where_it_is_from_with_the_hash_of_its_values(parts):
  config = _config("stage1", **parts)
  model = assemble.model(config)
  lines = initial.describe(config, model, _params(config))
  said = dict(line.split(": ", 1) for line in lines)
  assert f"from {parts['vision']}, sha256 " in said["  vision"]
  assert f"from {parts['llm']}, sha256 " in said["  llm"]
  assert "new, 4 arrays by seed 0, sha256 " in said["  adapter"]
  assert lines == initial.describe(config, model, _params(config))
  other = changed(config, seed=1)
  again = initial.describe(other, model, _params(other))
  assert [a == b for a, b in zip(lines, again, strict=True)] == [
    not line.startswith("  adapter") for line in lines
  ]


@pytest.mark.parametrize(
  "part, field, value",
  [
    ("vision", "eps", 1e-6),
    ("llm", "eps", 1e-6),
    ("llm", "theta", 5e5),
    ("vision", "activation", "gelu"),
    ("llm", "rope_type", "linear"),
  ],
)
def test_what_no_shape_tells_is_compared(parts, part, field, value):
  config = changed(
    _config("stage1", **parts), **{f"model.{part}.{field}": value}
  )
  with pytest.raises(ValueError, match=rf"model\.{part}\.{field}="):
    _params(config)

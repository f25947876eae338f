"""Where a run's parameters come from: `config.init`."""

import copy
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import micro
from locvlm_jax import assemble
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import export, huggingface, initial


def _config(words="stage2", **init):
  config = json.loads(micro.get_config(words).to_json_best_effort())
  config["init"] = dict.fromkeys(config["init"], "") | init
  return config


def _params(config):
  mesh = sharding.make_mesh(config["mesh"])
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
  config = _config(llava=micro.BASE)
  config["model"]["dtype"] = "bfloat16"
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
  config = copy.deepcopy(_config("stage1", **parts))
  config["model"][part][field] = value
  with pytest.raises(ValueError, match=rf"model\.{part}\.{field}="):
    _params(config)

"""Where a run's parameters come from: `config.init`."""

import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed

from configs import micro
from locvlm_jax import assemble
from locvlm_jax.config import freeze
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import export, huggingface, initial


def _config(words="stage2", **init):
  config = micro.get_config(words)
  config.init.update(dict.fromkeys(config.init, "") | init)
  return freeze(config)


def _params(config):
  mesh = sharding.make_mesh(dict(config.mesh))
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

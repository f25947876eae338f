"""Values of a config that are refused before anything runs."""

import pytest
from changed import changed

from configs import micro
from locvlm_jax import checks
from locvlm_jax.parallel import sharding


def _config(root, **change):
  config = micro.get_config("base,tiny")
  config.root = root
  return changed(config, **change)


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(num_train=24, num_val=8)


def test_batch_that_the_mesh_does_not_divide_is_refused(root):
  config = _config(root, batch_size=6)
  mesh = sharding.make_mesh({"data": 4})
  with pytest.raises(ValueError, match="batch_size=6.*mesh.data=4"):
    checks.check_batch(config, mesh)


@pytest.mark.parametrize(
  "field, value",
  [
    ("steps", -5),
    ("optim.lr", float("nan")),
    ("batch_size", 0),
    ("optim.warmup_ratio", 1.5),
    ("accumulate", 3),
    ("data.tree", -1),
    ("data.tree", 10_000),
    ("data.conversation_boxes", "square"),
    ("prompt_format", "v9"),
    ("eval.prompt_format", "v9"),
  ],
)
def test_bad_values_name_the_field(root, field, value):
  config = changed(_config(root), **{field: value})
  with pytest.raises(ValueError, match=field):
    checks.check(config)


@pytest.mark.parametrize(
  "field, value", [("data.pack", 2), ("prompt_format", "plain")]
)
def test_a_tree_is_refused_beside_what_it_excludes(root, field, value):
  config = changed(_config(root), **{"data.tree": 60, field: value})
  with pytest.raises(ValueError, match=f"data.tree=60 with {field}="):
    checks.check(config)

"""The names of benchmarks, and the fields that hold their files."""

import pytest

from configs import base
from locvlm_jax import errors
from locvlm_jax.data import catalog


def test_every_benchmark_has_fields_and_a_missing_path_is_named():
  assert tuple(catalog.BENCHMARKS) == base.BENCHMARKS
  files = {"hal_act": {"questions": "a.jsonl", "answers": "", "media": ""}}
  with pytest.raises(errors.DataError, match="--config.eval.hal_act.media"):
    catalog.open_source("hal_act", files)

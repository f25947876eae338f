"""Parameter trees: nested or flat, their shapes, which parameters train."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from locvlm_jax.models import locvlm, quantized
from locvlm_jax.models.kernels import segments

Flat = dict[str, Any]  # {path: array or shape}


def flatten(params: Mapping) -> Flat:
  """Flattens a tree: {"a": {"b": x}} -> {"a/b": x}."""
  return traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Flat) -> dict:
  """Nests a flat tree: {"a/b": x} -> {"a": {"b": x}}."""
  return traverse_util.unflatten_dict(flat, sep="/")


def param_shapes(model: locvlm.LocVLM) -> Flat:
  """Returns {path: jax.ShapeDtypeStruct} of all parameters.

  They are float32, but for the codes of quantized kernels.
  """
  # Many ask, and to trace a model takes most of a second: what shapes do not
  # depend on is made alike.
  config = dataclasses.replace(
    model.config,
    dtype="float32",
    remat="none",
    unroll=1,
    attention="auto",
    bound=segments.Bound(),
  )
  return dict(_shapes(config))


@functools.lru_cache(maxsize=64)
def _shapes(config: locvlm.LocVLMConfig) -> Flat:
  init = functools.partial(locvlm.init_params, locvlm.LocVLM(config))
  found = flatten(jax.eval_shape(init, jax.random.key(0)))
  # Without what a mesh that happened to be set adds.
  return {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in found.items()}


def num_llm_parameters(llm: Any) -> int:
  """Counts the parameters of a language model's kernels, without tracing it.

  Args:
    llm: `LlamaConfig`, or a config's `model.llm`.
  """
  heads = 2 * (llm.num_heads + llm.num_kv_heads)
  layer = llm.width * (heads * llm.head_dim + 3 * llm.mlp_width)
  tables = 1 if llm.tie_embeddings else 2
  return llm.num_layers * layer + tables * llm.vocab_size * llm.width


def split(flat: Flat, trainable: Sequence[str]) -> tuple[Flat, Flat]:
  """Splits parameters into (trainable, frozen).

  Args:
    flat: {path: anything}.
    trainable: patterns (regular expressions); a parameter trains if one of
      them matches the beginning of its path.

  Raises:
    ValueError: a pattern matches no parameter.
  """
  for pattern in trainable:
    if not any(re.match(pattern, path) for path in flat):
      heads = sorted({path.split("/")[0] for path in flat})
      raise ValueError(
        f"trainable: pattern {pattern!r} matches no parameter; "
        f"paths begin with {', '.join(heads)}."
      )
  chosen = {p for p in flat if any(re.match(t, p) for t in trainable)}
  return (
    {p: v for p, v in flat.items() if p in chosen},
    {p: v for p, v in flat.items() if p not in chosen},
  )


def kept_dtypes(
  flat: Mapping, trainable: Sequence[str], dtype: str, masters: str = "float32"
) -> dict[str, jnp.dtype]:
  """Says in which dtype each parameter is kept.

  What trains is float32, or bfloat16 beside an optimizer that has the rest;
  what is frozen is kept as it is computed with, or quantized.

  Args:
    flat: {path: parameter or shape}.
    trainable: patterns for the beginning of a path; see `split`.
    dtype: of the computation.
    masters: `optim.masters`.

  Returns:
    {path: dtype}.
  """
  trained, _ = split(flat, trainable)
  own = jnp.float32 if masters == "float32" else jnp.bfloat16
  kept = {True: jnp.dtype(own), False: jnp.dtype(dtype)}
  return {
    path: x.dtype if quantized.is_part(path) else kept[path in trained]
    for path, x in flat.items()
  }

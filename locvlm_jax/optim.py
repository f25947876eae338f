"""The optimizer, its schedule, and which parameters it moves.

Parameters are kept as flat dicts `{"llm/layers/attn/q": array}`. The trainable
ones and the frozen ones are two such dicts: only the former have gradients,
optimizer state and float32 masters.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import optax
from flax import traverse_util

Flat = dict[str, Any]  # {path: array or shape}


def flatten(params: Mapping) -> Flat:
  """{"a": {"b": x}} -> {"a/b": x}."""
  return traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Flat) -> dict:
  """{"a/b": x} -> {"a": {"b": x}}."""
  return traverse_util.unflatten_dict(flat, sep="/")


def split(flat: Flat, trainable: Sequence[str]) -> tuple[Flat, Flat]:
  """(trainable, frozen): a path trains if a pattern matches its beginning.

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


def schedule(optim: Mapping, steps: int) -> optax.Schedule:
  """Linear warm-up over `warmup_ratio` of the steps, then cosine to zero.

  Args:
    optim: `config.optim`.
    steps: length of the run.
  """
  warmup = round(optim["warmup_ratio"] * steps)
  return optax.schedules.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup else optim["lr"],
    peak_value=optim["lr"],
    warmup_steps=warmup,
    decay_steps=max(steps, warmup + 1),
  )


def make(optim: Mapping, steps: int) -> optax.GradientTransformation:
  """AdamW after clipping by the global norm.

  Biases, norms and other vectors do not decay (`LLaVA:llava/train/
  llava_trainer.py`); stacked layers have one more dimension, so the rule goes
  by name.

  Args:
    optim: `config.optim`.
    steps: length of the run.
  """
  return optax.chain(
    optax.clip_by_global_norm(optim["clip_norm"]),
    optax.adamw(
      schedule(optim, steps),
      b1=optim["b1"],
      b2=optim["b2"],
      eps=optim["eps"],
      weight_decay=optim["weight_decay"],
      mask=lambda flat: {p: not _is_vector(p) for p in flat},
    ),
  )


def _is_vector(path: str) -> bool:
  return bool(re.search(r"bias|scale|norm|class_embedding", path))

"""The optimizer and its learning-rate schedule."""

import re
from collections.abc import Mapping
from typing import Any

import optax
import optax.contrib

from locvlm_jax.training.compact import masters, moments


def schedule(optim: Any, steps: int) -> optax.Schedule:
  """Warms up linearly over `warmup_ratio` of the steps, then follows a cosine.

  Args:
    optim: `config.optim`.
    steps: length of the run.
  """
  warmup = round(optim.warmup_ratio * steps)
  return optax.schedules.warmup_cosine_decay_schedule(
    init_value=0.0 if warmup else optim.lr,
    peak_value=optim.lr,
    warmup_steps=warmup,
    decay_steps=max(steps, warmup + 1),
  )


# Matrices that Muon orthogonalizes: the end of a path -> the dims that are
# contracted with the input, and those of the output; the leading L of stacked
# layers counts the matrices. Embedding, head and vectors are left to Adam.
_MATRICES = (
  (r"layers/attention/[qkv]", (1,), (2, 3)),  # [L, D, H, K]
  (r"layers/attention/out", (1, 2), (3,)),  # [L, H, K, D]
  (r"layers/mlp/(gate|up|down)", (1,), (2,)),  # [L, D, F], [L, F, D]
  (r"adapter/linear_[12]", (0,), (1,)),  # [D, E]
  (r"vision/patch", (0, 1, 2), (3,)),  # [P, P, 3, D]
)
OPTIMIZERS = ("adamw", "muon")
MOMENTS = ("float", "8bit")


def make(optim: Any, steps: int) -> optax.GradientTransformation:
  """Makes AdamW or Muon, after clipping by the global norm.

  AdamW is the paper's and the default. Muon (arXiv:2502.16982) moves the
  matrices by orthogonalized momentum, at the root mean square that AdamW's
  updates have, and all else as AdamW does: the same `lr` suits both. It learns
  from fewer examples, which is worth its cost where a step is small.

  Biases, norms and other vectors do not decay (`LLaVA:llava/train/
  llava_trainer.py`), nor do the ViT's positions; stacked layers have one more
  dimension, so the rule goes by name.

  With `optim.adapter_lr` the adapter's updates are those of another learning
  rate, on the same schedule; decay, in proportion to the rate, included.

  Args:
    optim: `config.optim`.
    steps: length of the run.

  Raises:
    ValueError: an unknown `optim.name`, `moments` or `masters`, or one that the
      others do not go with.
  """
  _check(optim)
  build = {"adamw": _adamw, "muon": _muon}[optim.name]
  clip = optax.clip_by_global_norm(optim.clip_norm)
  moves = [clip, build(optim, schedule(optim, steps))]
  if optim.adapter_lr:
    moves.append(_scale_adapter(optim.adapter_lr / optim.lr))
  return masters.of(optim.masters, optax.chain(*moves))


def _check(optim: Any) -> None:
  for name, allowed in (("name", OPTIMIZERS), ("moments", MOMENTS)):
    if (value := getattr(optim, name)) not in allowed:
      raise ValueError(f"optim.{name}={value!r}: not one of {allowed}.")
  if optim.moments == "8bit" and optim.name != "adamw":
    raise ValueError(
      f"optim.moments='8bit' with optim.name={optim.name!r}: only adamw has"
      " them: set --config.optim.name=adamw or --config.optim.moments=float."
    )


def _scale_adapter(factor: float) -> optax.GradientTransformation:
  """Multiplies the updates of the adapter."""

  def scale(updates: Mapping, params: Mapping) -> dict:
    del params
    own = (p for p in updates if p.startswith("adapter/"))
    return {**updates, **{p: factor * updates[p] for p in own}}

  return optax.stateless(scale)


def _adamw(optim: Any, lr: optax.Schedule) -> optax.GradientTransformation:
  if optim.moments == "8bit":
    return optax.chain(
      moments.scale_by_adam(optim.b1, optim.b2, optim.eps),
      optax.add_decayed_weights(optim.weight_decay, _decays),
      optax.scale_by_learning_rate(lr),
    )
  return optax.adamw(
    lr,
    b1=optim.b1,
    b2=optim.b2,
    eps=optim.eps,
    weight_decay=optim.weight_decay,
    mask=_decays,
    mu_dtype=optim.mu_dtype,
  )


def _muon(optim: Any, lr: optax.Schedule) -> optax.GradientTransformation:
  return optax.chain(
    optax.contrib.muon(
      1.0,
      eps=optim.eps,
      adam_b1=optim.b1,
      adam_b2=optim.b2,
      consistent_rms=0.2,
      mu_dtype=optim.mu_dtype,
      muon_weight_dimension_numbers=lambda flat: {p: _matrix(p) for p in flat},
    ),
    # Its own decay would take in every vector that Adam moves.
    optax.add_decayed_weights(-optim.weight_decay, _decays),
    optax.scale_by_schedule(lr),
  )


def _matrix(path: str) -> optax.contrib.MuonDimensionNumbers | None:
  for pattern, inputs, outputs in _MATRICES:
    if re.fullmatch(rf"(.*/)?{pattern}", path):
      return optax.contrib.MuonDimensionNumbers(inputs, outputs)
  return None


def _decays(flat: Mapping) -> dict[str, bool]:
  vector = r"bias|scale|norm|class_embedding|position_embedding"
  return {path: not re.search(vector, path) for path in flat}

"""One step of training: loss, gradients, update.

B rows, S tokens a row, T text tokens a row, K images, N visual tokens, D width
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jaxtyping import Array, Bool, Float, Int, Key

from locvlm_jax.models import params as params_lib
from locvlm_jax.models import video
from locvlm_jax.text.formats import IMAGE_TOKEN
from locvlm_jax.training.losses import digits as digits_lib


@flax.struct.dataclass
class TrainState:
  """All that one step hands to the next; also a tree of its shardings.

  Attributes:
    step: int32 scalar, updates made so far.
    trainable: {path: array}; float32 masters, or bfloat16 whose masters are
      `optim.masters`'s.
    frozen: {path: array}; no gradient, no optimizer state.
    opt_state: of optax, over `trainable`.
  """

  step: Any
  trainable: dict[str, Any]
  frozen: dict[str, Any]
  opt_state: optax.OptState

  @property
  def params(self) -> dict:
    """The nested parameters for `model.apply`."""
    return params_lib.unflatten({**self.frozen, **self.trainable})


def init_state(
  trainable: dict, frozen: dict, tx, mesh: jax.sharding.Mesh
) -> tuple[TrainState, TrainState]:
  """Returns (the state before the first step, its shardings)."""
  shapes = state_shapes(trainable, frozen, tx, mesh)
  where = jax.tree.map(lambda x: x.sharding, shapes)
  step = jax.device_put(jnp.zeros((), jnp.int32), where.step)
  opt_state = jax.jit(tx.init, out_shardings=where.opt_state)(trainable)
  return TrainState(step, trainable, frozen, opt_state), where


def state_shapes(
  trainable: dict, frozen: dict, tx, mesh: jax.sharding.Mesh
) -> TrainState:
  """Describes the state by `jax.ShapeDtypeStruct`s with shardings.

  Args:
    trainable, frozen: arrays, or shapes with shardings.
    tx: the optimizer.
    mesh: that they lie on.
  """
  replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def shape(x, where):
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  def place(keys, x):  # a moment lies where its parameter does
    of = trainable.get(getattr(keys[-1], "key", None))
    fits = of is not None and _divides(of.sharding, x.shape)
    return shape(x, of.sharding if fits else replicated)

  opt_shapes = jax.eval_shape(tx.init, trainable)
  return TrainState(
    step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated),
    trainable={p: shape(v, v.sharding) for p, v in trainable.items()},
    frozen={p: shape(v, v.sharding) for p, v in frozen.items()},
    opt_state=jax.tree_util.tree_map_with_path(place, opt_shapes),
  )


def _divides(where: jax.sharding.Sharding, shape: tuple[int, ...]) -> bool:
  """Says whether a sharding splits a shape into equal parts.

  The few scales of 8-bit moments may not be split as their parameter is.
  """
  try:
    where.shard_shape(shape)
  except ValueError:
    return False
  return True


def to_items(state: TrainState, frozen: bool = True) -> dict[str, Any]:
  """Returns the state as the items of a checkpoint.

  Args:
    state: all of it.
    frozen: whether the checkpoint stores what does not train.
  """
  kept = state.frozen if frozen else {}
  return {
    "params": {"trainable": state.trainable, "frozen": kept},
    "optimizer": {"step": state.step, "opt_state": state.opt_state},
  }


def from_items(items: dict[str, Any]) -> TrainState:
  """Reverses `to_items`."""
  return TrainState(**items["params"], **items["optimizer"])


def inputs(batch: dict) -> dict:
  """Selects the fields of a batch that the step reads."""
  names = ("images", "frames", "tokens", "loss_mask", "lengths", "segments")
  return {k: batch[k] for k in names if k in batch}


def text_targets(
  tokens: Int[Array, "B S"], loss_mask: Bool[Array, "B S"], num_text: int
) -> tuple[Int[Array, "B T"], Int[Array, "B T"], Bool[Array, "B T"]]:
  """Returns (position that predicts, label, weight) of each text token.

  The language model head is worth running only where a text token is
  predicted. With two visual tokens and T = 4:

    tokens     <s> -1 -1  a  cup </s>
    text at     0         3   4   5
    predicted
    from        0         2   3   4     (nothing predicts the first)
  """
  is_text = tokens != IMAGE_TOKEN
  order = jnp.argsort(~is_text, axis=1, stable=True)[:, :num_text]
  labels = jnp.take_along_axis(tokens, order, axis=1)
  weight = jnp.take_along_axis(loss_mask & is_text, order, axis=1)
  weight = weight & (order > 0)
  # A label of a masked position is never used; 0 keeps it in the vocabulary.
  return jnp.maximum(order - 1, 0), jnp.where(weight, labels, 0), weight


def loss_sums(
  model,
  params,
  batch,
  rng: Key[Array, ""] | None = None,
  digits: digits_lib.DigitLoss | None = None,
) -> tuple[Float[Array, ""], dict]:
  """Sums the cross-entropy, and counts what turns the sum into means.

  Args:
    model: `LocVLM`.
    params: nested.
    batch: see `train_step`.
    rng: of dropout; None: nothing is dropped.
    digits: a loss beside cross-entropy, which `digit_loss` counts apart.
  """
  visual = model.config.num_visual * batch["images"].shape[1]
  hidden = model.apply(
    {"params": params},
    batch["tokens"],
    video.visual_input(batch),
    batch["lengths"],
    batch.get("segments"),
    rngs=None if rng is None else {"dropout": rng},
  )
  at, labels, weight = text_targets(
    batch["tokens"], batch["loss_mask"], batch["tokens"].shape[1] - visual
  )
  hidden = jnp.take_along_axis(hidden, at[..., None], axis=1)
  logits = model.apply({"params": params}, hidden, method="logits")
  with jax.named_scope("loss"):
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # Among the likeliest, without an argmax: on CPUs that takes as long as the
    # loss. So a label that ties with another counts as right.
    label = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    correct = (label >= logits.max(-1)) & weight
    sums = {"targets": weight.sum(), "correct": correct.sum()}
    total = jnp.where(weight, losses, 0).sum()
    if digits is None:
      return total, sums
    far = digits_lib.expected_distance(logits, labels, weight, digits).sum()
    return total + digits.weight * far, {**sums, "digit_loss": far}


def _microbatches(batch: dict, num: int) -> dict:
  """[B, ...] -> [num, B / num, ...]; a device's rows stay on the device."""
  return {
    k: rearrange(v, "(b m) ... -> m b ...", m=num) for k, v in batch.items()
  }


def _gradients(
  model, state: TrainState, batch: dict, accumulate: int, rng, digits
):
  """Sums of loss, counts and gradients over the global batch."""

  def loss(trainable, part, number):
    params = params_lib.unflatten({**state.frozen, **trainable})
    options = {} if digits is None else {"digits": digits}
    if rng is not None:
      options["rng"] = jax.random.fold_in(rng, number)
    return loss_sums(model, params, part, **options)

  value_and_grad = jax.value_and_grad(loss, has_aux=True)
  if accumulate == 1:
    return value_and_grad(state.trainable, batch, 0)

  def add(total, numbered):
    new = value_and_grad(state.trainable, *numbered)
    return jax.tree.map(jnp.add, total, new), None

  parts = _microbatches(batch, accumulate)
  shapes = jax.eval_shape(
    value_and_grad, state.trainable, {k: v[0] for k, v in parts.items()}, 0
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(add, zeros, (parts, jnp.arange(accumulate)))[0]


def _dropout_key(model, step: Int[Array, ""], seed: int) -> Array | None:
  """Returns a key of this step alone; None where nothing is dropped."""
  if not model.config.lora.dropout:
    return None
  return jax.random.fold_in(jax.random.key(seed), step)


def train_step(
  state: TrainState,
  batch: dict,
  *,
  model,
  tx,
  accumulate: int = 1,
  seed: int = 0,
  digits: digits_lib.DigitLoss | None = None,
) -> tuple[TrainState, dict[str, Array]]:
  """Updates by the mean loss of the supervised tokens in the global batch.

  Under accumulation sums are added first and divided once, so that a
  microbatch with few targets does not weigh more than its tokens.

  Where loss or gradient is not finite, parameters and optimizer stay as they
  were: the numbers are the same on all devices, and so is the decision.

  Args:
    state: before the step; donate it.
    batch: images, frames of videos, tokens, loss_mask, lengths, segments where
      rows are packed (see `data/batch.py`).
    model: `LocVLM`.
    tx: the optimizer.
    accumulate: microbatches a step.
    seed: of dropout; the same step drops the same, also when it is repeated.
    digits: a loss beside cross-entropy; None: none.

  Returns:
    The state after the step and scalars: loss (of all that is minimized),
    accuracy (the share of targets whose label is the likeliest token or ties
    with it), targets, grad_norm, skipped (whether nothing was updated); with
    `digits` also digit_loss, the expected distance by target, not weighted.
  """
  rng = _dropout_key(model, state.step, seed)
  (loss, sums), grads = _gradients(model, state, batch, accumulate, rng, digits)
  targets = jnp.maximum(sums["targets"], 1)
  with jax.named_scope("optimizer"):
    grads = jax.tree.map(lambda g: g.astype(jnp.float32) / targets, grads)
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(loss) & jnp.isfinite(norm)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    updated = (optax.apply_updates(state.trainable, updates), opt_state)
    trainable, opt_state = jax.tree.map(
      lambda new, old: jnp.where(good, new, old),
      updated,
      (state.trainable, state.opt_state),
    )
  scalars = {
    "loss": loss / targets,
    "accuracy": sums["correct"] / targets,
    "targets": sums["targets"],
    "grad_norm": norm,
    "skipped": ~good,
  }
  if digits is not None:
    scalars["digit_loss"] = sums["digit_loss"] / targets
  new = TrainState(state.step + 1, trainable, state.frozen, opt_state)
  return new, scalars


def jit_train_step(
  model,
  tx,
  state_sharding: TrainState,
  batch_sharding,
  accumulate: int = 1,
  seed: int = 0,
  digits: digits_lib.DigitLoss | None = None,
) -> Callable:
  """Compiles the step: shardings in and out, the old state donated.

  Args:
    model: `LocVLM`.
    tx: the optimizer.
    state_sharding: of `init_state`.
    batch_sharding: one for all arrays of the batch.
    accumulate: microbatches a step.
    seed: of dropout.
    digits: a loss beside cross-entropy; None: none.
  """
  step = functools.partial(
    train_step,
    model=model,
    tx=tx,
    accumulate=accumulate,
    seed=seed,
    digits=digits,
  )
  return jax.jit(
    step,
    in_shardings=(state_sharding, batch_sharding),
    out_shardings=(state_sharding, None),
    donate_argnums=0,
  )

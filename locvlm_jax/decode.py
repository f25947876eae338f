"""Generation: prefill, a static cache, and a while loop with early exit.

Letters: B rows, S prompt positions, K images in a row, G generated tokens, E
ids of a stop, V vocabulary.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from locvlm_jax.models import llama


class State(NamedTuple):
  """What one decoding step reads and writes."""

  step: Int[Array, ""]
  newest: Int[Array, "B E"]  # the last is not yet in the cache
  done: Bool[Array, " B"]
  output: Int[Array, "B G"]
  cache: llama.Cache


def generate(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  *,
  max_new_tokens: int,
  stop: Sequence[int],
  pad_id: int = 0,
  temperature: float = 0.0,
  rng: Key[Array, ""] | None = None,
) -> Int[Array, "B G"]:
  """Continues each row of right-padded prompts of different lengths.

  A row's tokens depend on that row alone: its randomness is `rng` folded with
  batch["example"] (row number if absent), so neither its batch nor its place
  in it matters. Repeated calls with the same shapes reuse one program.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: tokens [B, S], images [B, K, H, W, 3] (None or absent: text only),
      lengths [B]; optionally example [B], and valid [B] (rows where it is
      False yield only padding and delay no one).
    max_new_tokens: G.
    stop: E ids that, one after the other, end a row; part of the output.
    pad_id: fills a row after its end.
    temperature: 0 is greedy; above 0 samples from softmax(logits / T).
    rng: a typed key (jax.random.key); needed where temperature > 0.

  Returns:
    The generated ids, [B, G].

  Raises:
    ValueError: a temperature below 0, max_new_tokens below 1, no rng or no
      stop.
  """
  if temperature < 0:
    raise ValueError(f"temperature {temperature} is negative")
  if max_new_tokens < 1:
    raise ValueError(f"max_new_tokens {max_new_tokens} is below 1")
  if temperature > 0 and rng is None:
    raise ValueError("temperature > 0 samples: give rng=jax.random.key(seed)")
  if not len(stop):
    raise ValueError("stop is empty: name at least one id, such as EOS")
  rows = batch["tokens"].shape[0]
  example = batch.get("example", jnp.arange(rows))
  valid = batch.get("valid", jnp.ones(rows, bool))
  return _generate(
    model,
    max_new_tokens,
    temperature > 0,
    params,
    (batch["tokens"], batch.get("images"), batch["lengths"]),
    example,
    valid,
    jnp.array(stop, jnp.int32),
    jnp.int32(pad_id),
    jnp.float32(temperature),
    jax.random.key(0) if rng is None else rng,
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(
  model: nn.Module,
  max_new_tokens: int,
  sample: bool,
  params: Mapping,
  prompt: tuple[
    Int[Array, "B S"], UInt8[Array, "B K H W 3"] | None, Int[Array, " B"]
  ],
  example: Int[Array, " B"],
  valid: Bool[Array, " B"],
  stop: Int[Array, " E"],
  pad: Int[Array, ""],
  temperature: Float[Array, ""],
  rng: Key[Array, ""],
) -> Int[Array, "B G"]:
  tokens, _, lengths = prompt
  rows, slots = tokens.shape[0], tokens.shape[1] + max_new_tokens
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(example)
  run = functools.partial(model.apply, {"params": params})

  def choose(hidden: Float[Array, "B D"], step: Array) -> Int[Array, " B"]:
    logits = run(hidden, method="logits")
    if not sample:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return _sample(logits / temperature, keys, step)

  def emit(state: State, hidden: Array, cache: llama.Cache) -> State:
    token = jnp.where(state.done, pad, choose(hidden, state.step))
    output = jax.lax.dynamic_update_slice(
      state.output, token[:, None], (0, state.step)
    )
    newest = jnp.concatenate([state.newest[:, 1:], token[:, None]], axis=1)
    done = state.done | (newest == stop).all(axis=1)
    return State(state.step + 1, newest, done, output, cache)

  def advance(state: State) -> State:
    # step tokens exist and the last is not in the cache yet: its position.
    positions = lengths + state.step - 1
    hidden, cache = run(
      state.newest[:, -1:], state.cache, positions, method="decode_step"
    )
    return emit(state, hidden[:, 0], cache)

  cfg = model.config
  cache = llama.empty_cache(cfg.llm, rows, slots, cfg.dtype)
  hidden, cache = run(*prompt, cache, method="prefill")
  output = jnp.full((rows, max_new_tokens), pad, jnp.int32)
  newest = jnp.full((rows, len(stop)), -1, jnp.int32)  # nobody's id
  start = State(jnp.int32(0), newest, ~valid, output, cache)
  state = jax.lax.while_loop(
    lambda s: (s.step < max_new_tokens) & ~s.done.all(),
    advance,
    emit(start, hidden, cache),
  )
  return state.output


def _sample(
  logits: Float[Array, "B V"], keys: Key[Array, " B"], step: Int[Array, ""]
) -> Int[Array, " B"]:
  """One draw a row, from that row's own key."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  draw = jax.vmap(jax.random.categorical)
  return draw(fold(keys, step), logits).astype(jnp.int32)

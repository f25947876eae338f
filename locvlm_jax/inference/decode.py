"""Generation: prefill, a static cache, and a while loop with early exit.

Letters: B rows, S prompt positions, K images in a row, G generated tokens, E
ids of a stop, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from locvlm_jax.models import llama, locvlm, video

_LEAST_STEP = 16  # between two lengths that prompts are padded to


class State(NamedTuple):
  """What one decoding step reads and writes."""

  step: Int[Array, ""]
  newest: Int[Array, "B E"]  # the last is not yet in the cache
  done: Bool[Array, " B"]
  output: Int[Array, "B G"]
  cache: llama.Cache


def padded_length(length: int) -> int:
  """What callers pad a prompt of this many positions to.

  Few lengths, so that few programs are compiled, and yet little padding, which
  a prefill of one row pays for in full: 16, 32, ... 256, 288, ... 512, 576, ...

  >>> [padded(n) for n in (5, 130, 257, 700)]
  [16, 144, 288, 704]
  """
  step = max(_LEAST_STEP, 1 << (max(length, 1) - 1).bit_length() >> 4)
  return length + -length % step


class _Choice(NamedTuple):
  """How a token is chosen, and what ends a row."""

  stop: Int[Array, " E"]
  pad: Int[Array, ""]
  temperature: Float[Array, ""]
  top_k: Int[Array, ""]
  top_p: Float[Array, ""]
  rng: Key[Array, ""] | None
  example: Int[Array, " B"]


class _Kind(NamedTuple):
  """What the program itself depends on."""

  model: nn.Module
  max_new_tokens: int
  sample: bool
  filtered: bool


_Prompt = tuple[
  Int[ArrayLike, "B S"],
  UInt8[ArrayLike, "B K H W 3"]
  | video.VideoBatch
  | Float[ArrayLike, "B K N C"]
  | None,
  Int[ArrayLike, " B"],
]


def generate(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  *,
  max_new_tokens: int,
  stop: Sequence[int],
  pad_id: int = 0,
  temperature: float = 0.0,
  top_k: int = 0,
  top_p: float = 1.0,
  rng: Key[Array, ""] | None = None,
) -> Int[Array, "B G"]:
  """Continues each row of right-padded prompts of different lengths.

  A row's tokens depend on that row alone: its randomness is `rng` folded with
  batch["example"] (row number if absent), so neither its batch nor its place
  in it matters. Repeated calls with the same shapes reuse one program.

  Args:
    model: a LocVLM.
    params: its parameters; `locvlm.unstack_layers` beforehand spares
      each call a copy of the LLM's.
    batch: tokens [B, S], images [B, K, H, W, 3] (None or absent: text only),
      lengths [B]; with videos images [B, K, F, H, W, 3] and frames [B, K];
      optionally example [B], and valid [B] (rows where it is False yield only
      padding and delay no one).
    max_new_tokens: G.
    stop: E ids that, one after the other, end a row; part of the output.
    pad_id: fills a row after its end.
    temperature: 0 is greedy; above 0 samples from softmax(logits / T).
    top_k: samples from the k likeliest tokens alone; 0: from all.
    top_p: samples from the least set of tokens whose probabilities, likeliest
      first, reach p.
    rng: a typed key (jax.random.key); needed where temperature > 0.

  Returns:
    The generated ids, [B, G].

  Raises:
    ValueError: a temperature below 0, max_new_tokens below 1, top_k below 0,
      top_p not within (0, 1], no rng or no stop.
  """
  kind, choice, prompt, valid = _prepared(
    model, batch, max_new_tokens, stop, pad_id, temperature, top_k, top_p, rng
  )
  return _generate(kind, params, prompt, choice, valid)


def stream(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  *,
  max_new_tokens: int,
  stop: Sequence[int],
  pad_id: int = 0,
  temperature: float = 0.0,
  top_k: int = 0,
  top_p: float = 1.0,
  rng: Key[Array, ""] | None = None,
  every: int = 4,
) -> Iterator[Int[np.ndarray, "B G"]]:
  """What `generate` returns, as it grows: after each `every` tokens.

  The last one is exactly `generate`'s. Stop whenever enough is there.
  """
  kind, choice, prompt, valid = _prepared(
    model, batch, max_new_tokens, stop, pad_id, temperature, top_k, top_p, rng
  )
  state = _first(kind, params, prompt, choice, valid)
  lengths = jnp.asarray(prompt[2])
  for until in range(every, max_new_tokens + every, every):
    state = _more(kind, params, lengths, choice, state, until)
    yield np.asarray(state.output)
    if state.done.all():
      return


def log_likelihood(
  model: nn.Module, params: Mapping, batch: Mapping[str, ArrayLike | None]
) -> Float[Array, " B"]:
  """Log-probability of the tokens that `loss_mask` marks, summed by row.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: tokens [B, S] with the answers that are to be judged, images [B, K,
      H, W, 3] or None, lengths [B], loss_mask [B, S].
  """
  prompt = batch["tokens"], video.visual_input(batch), batch["lengths"]
  return _log_likelihood(model, params, prompt, batch["loss_mask"])


def bound_apply(model: nn.Module, params: Mapping) -> Callable:
  """`model.apply` with layers that may have a cache."""
  model, params = locvlm.unstack_layers(model, params)
  return functools.partial(model.apply, {"params": params})


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(model, params, prompt: _Prompt, mask) -> Array:
  run = bound_apply(model, params)
  logits = run(run(*prompt)[:, :-1], method="logits")
  labels = jnp.maximum(prompt[0][:, 1:], 0)[..., None]
  chosen = jnp.take_along_axis(logits, labels, axis=-1)[..., 0]
  logs = chosen - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where(mask[:, 1:], logs, 0).sum(1)


def _prepared(
  model, batch, max_new_tokens, stop, pad_id, temperature, top_k, top_p, rng
):
  """(kind, choice, prompt, valid) of the public arguments, checked."""
  if temperature < 0:
    raise ValueError(f"temperature {temperature} is negative")
  if max_new_tokens < 1:
    raise ValueError(f"max_new_tokens {max_new_tokens} is below 1")
  if top_k < 0 or not 0 < top_p <= 1:
    raise ValueError(
      f"top_k {top_k}, top_p {top_p}: at least 0 (all) and within (0, 1]"
    )
  if temperature > 0 and rng is None:
    raise ValueError("temperature > 0 samples: give rng=jax.random.key(seed)")
  if not len(stop):
    raise ValueError("stop is empty: name at least one id, such as EOS")
  rows = batch["tokens"].shape[0]
  # numpy's, since each small operation of jax's is a program of its own.
  choice = _Choice(
    np.array(stop, np.int32),
    np.int32(pad_id),
    np.float32(temperature),
    np.int32(top_k),
    np.float32(top_p),
    rng,
    batch.get("example", np.arange(rows, dtype=np.int32)),
  )
  valid = batch.get("valid", np.ones(rows, bool))
  filtered = temperature > 0 and (top_k > 0 or top_p < 1)
  kind = _Kind(model, max_new_tokens, temperature > 0, filtered)
  prompt = batch["tokens"], video.visual_input(batch), batch["lengths"]
  return kind, choice, prompt, valid


@functools.partial(jax.jit, static_argnums=0)
def _generate(kind: _Kind, params, prompt: _Prompt, choice: _Choice, valid):
  state = _prefill(kind, params, prompt, choice, valid)
  until = kind.max_new_tokens
  return _decode(kind, params, prompt[2], choice, state, until).output


@functools.partial(jax.jit, static_argnums=0)
def _first(kind: _Kind, params, prompt: _Prompt, choice: _Choice, valid):
  return _prefill(kind, params, prompt, choice, valid)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _more(kind: _Kind, params, lengths, choice: _Choice, state: State, until):
  return _decode(kind, params, lengths, choice, state, until)


def _prefill(
  kind: _Kind, params, prompt: _Prompt, choice: _Choice, valid
) -> State:
  """The state after the first token."""
  rows, length = prompt[0].shape
  cfg, num = kind.model.config, kind.max_new_tokens
  cache = llama.empty_cache(cfg.llm, rows, length + num, cfg.dtype)
  run = bound_apply(kind.model, params)
  hidden, cache = run(*prompt, cache, method="prefill")
  output = jnp.full((rows, num), choice.pad, jnp.int32)
  newest = jnp.full((rows, len(choice.stop)), -1, jnp.int32)  # nobody's id
  start = State(jnp.int32(0), newest, ~valid, output, cache)
  return _emit(kind, choice, start, run(hidden, method="logits"))


def _decode(
  kind: _Kind, params, lengths, choice: _Choice, state: State, until
) -> State:
  """Token after token, until there are `until` or all rows have ended."""
  run = bound_apply(kind.model, params)

  def advance(state: State) -> State:
    # step tokens exist and the last is not in the cache yet: its position.
    hidden, cache = run(
      state.newest[:, -1:],
      state.cache,
      lengths + state.step - 1,
      method="decode_step",
    )
    logits = run(hidden[:, 0], method="logits")
    return _emit(kind, choice, state._replace(cache=cache), logits)

  until = jnp.minimum(until, kind.max_new_tokens)
  return jax.lax.while_loop(
    lambda s: (s.step < until) & ~s.done.all(), advance, state
  )


def _emit(
  kind: _Kind, choice: _Choice, state: State, logits: Float[Array, "B V"]
) -> State:
  """Chooses a token for each row that has not ended."""
  if kind.sample:
    token = _sample(kind, choice, state.step, logits)
  else:
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  token = jnp.where(state.done, choice.pad, token)
  output = jax.lax.dynamic_update_slice(
    state.output, token[:, None], (0, state.step)
  )
  newest = jnp.concatenate([state.newest[:, 1:], token[:, None]], axis=1)
  done = state.done | (newest == choice.stop).all(axis=1)
  return State(state.step + 1, newest, done, output, state.cache)


def _sample(
  kind: _Kind, choice: _Choice, step: Int[Array, ""], logits
) -> Int[Array, " B"]:
  """One draw a row, from that row's own key."""
  logits = logits / choice.temperature
  if kind.filtered:
    logits = _likeliest(logits, choice.top_k, choice.top_p)

  def draw(example: Array, logits: Array) -> Array:
    key = jax.random.fold_in(jax.random.fold_in(choice.rng, example), step)
    return jax.random.categorical(key, logits)

  return jax.vmap(draw)(choice.example, logits).astype(jnp.int32)


def _likeliest(
  logits: Float[Array, "B V"], top_k: Int[Array, ""], top_p: Float[Array, ""]
) -> Float[Array, "B V"]:
  """-inf for all but the k likeliest that together reach p."""
  order = jnp.argsort(-logits, axis=-1)
  probabilities = jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  size = jnp.where(top_k > 0, top_k, logits.shape[-1])
  kept = (jnp.arange(logits.shape[-1]) < size) & (before < top_p)
  rows = jnp.arange(len(logits))[:, None]
  return (
    jnp.full_like(logits, -jnp.inf)
    .at[rows, order]
    .set(jnp.where(kept, jnp.take_along_axis(logits, order, axis=-1), -jnp.inf))
  )

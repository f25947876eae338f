"""Generation: a prefill, a static cache, and a while loop with early exit.

Letters: B rows, S prompt positions, K images in a row, G generated tokens, E
ids of a stop, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from locvlm_jax.models import kv_cache, llama, locvlm, video

_LEAST_STEP = 16  # between two lengths that prompts are padded to


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How each token is chosen, and what ends a row.

  Attributes:
    max_new_tokens: G.
    stop: E ids that, one after the other, end a row; part of the output.
    temperature: 0 is greedy; above 0 samples from softmax(logits / T).
    top_k: samples from the k likeliest tokens alone; 0: from all.
    top_p: samples from the smallest set of tokens whose probabilities,
      likeliest first, reach p; with top_k too, of the probabilities among those
      k, as in transformers.
    pad_id: fills a row after its end.

  Raises:
    ValueError: a temperature below 0, max_new_tokens below 1, top_k below 0,
      top_p not within (0, 1], or no stop.
  """

  max_new_tokens: int
  stop: tuple[int, ...]
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  pad_id: int = 0

  def __post_init__(self) -> None:
    if self.temperature < 0:
      raise ValueError(
        f"temperature {self.temperature} is negative: give 0 (greedy) or more"
      )
    if self.max_new_tokens < 1:
      raise ValueError(f"max_new_tokens {self.max_new_tokens} is below 1")
    if self.top_k < 0 or not 0 < self.top_p <= 1:
      raise ValueError(
        f"top_k {self.top_k}, top_p {self.top_p}: give at least 0 (all tokens)"
        " and a number within (0, 1]"
      )
    if not self.stop:
      raise ValueError("stop is empty: name at least one id, such as EOS")


class Prompt(NamedTuple):
  """The inputs of a `LocVLM`."""

  tokens: Int[ArrayLike, "B S"]
  images: (
    UInt8[ArrayLike, "B K H W 3"]
    | video.VideoBatch
    | Float[ArrayLike, "B K N C"]
    | None
  )
  lengths: Int[ArrayLike, " B"]

  @classmethod
  def from_batch(cls, batch: Mapping[str, ArrayLike | None]) -> "Prompt":
    """Takes the inputs from a batch."""
    return cls(batch["tokens"], video.visual_input(batch), batch["lengths"])


class _Static(NamedTuple):
  """What a program is compiled for; a hashable argument."""

  model: nn.Module
  max_new_tokens: int
  is_sampled: bool  # else greedy
  is_filtered: bool  # by top_k or top_p


class _Request(NamedTuple):
  """The arrays of a call; programs are compiled for their shapes alone."""

  prompt: Prompt
  valid: Bool[ArrayLike, " B"]
  example: Int[ArrayLike, " B"]
  stop: Int[ArrayLike, " E"]
  pad_id: Int[ArrayLike, ""]
  temperature: Float[ArrayLike, ""]
  top_k: Int[ArrayLike, ""]
  top_p: Float[ArrayLike, ""]
  rng: Key[Array, ""] | None


class _State(NamedTuple):
  """What a decoding step reads and writes."""

  step: Int[Array, ""]  # tokens generated so far
  recent: Int[Array, "B E"]  # the last tokens; the last is not in the cache yet
  done: Bool[Array, " B"]
  output: Int[Array, "B G"]
  cache: kv_cache.Cache


def padded_length(length: int) -> int:
  """Returns the length to pad a prompt of `length` positions to.

  There are few such lengths, so that few programs are compiled, and yet there
  is little padding, which a prefill of one row pays for in full: 16, 32, ...
  256, 288, ... 512, 576, ...

  >>> [padded_length(n) for n in (5, 130, 257, 700)]
  [16, 144, 288, 704]
  """
  step = max(_LEAST_STEP, 1 << (max(length, 1) - 1).bit_length() >> 4)
  return length + -length % step


def generate(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  sampling: Sampling,
  *,
  rng: Key[Array, ""] | None = None,
) -> Int[Array, "B G"]:
  """Continues each row of right-padded prompts of different lengths.

  The tokens of a row depend on that row alone: its randomness is `rng` folded
  with batch["example"] (its row number if absent), so neither the rest of the
  batch nor the row's place in it matters. Calls with the same shapes reuse one
  program.

  Args:
    model: a LocVLM.
    params: its parameters. Each call copies those of the LLM, unless
      `locvlm.unstack_layers` was called on them before.
    batch: tokens [B, S], images [B, K, H, W, 3] (None or absent: text only),
      lengths [B]; with videos images [B, K, F, H, W, 3] and frames [B, K];
      optionally example [B], and valid [B] (a row where it is False gets
      padding alone, and no other row waits for it).
    sampling: how tokens are chosen.
    rng: a typed key (jax.random.key); needed where temperature > 0.

  Returns:
    The generated ids, [B, G].

  Raises:
    ValueError: no rng to sample with.
  """
  static, request = _prepare(model, batch, sampling, rng)
  return _generate(static, params, request)


def is_cut_off(
  ids: Sequence[int] | Int[np.ndarray, " G"], sampling: Sampling
) -> bool:
  """Tells whether a generated row ended for want of tokens, before its stop.

  A row of padding alone was never asked.
  """
  row, stop = [int(i) for i in ids], list(sampling.stop)
  starts = range(len(row) - len(stop) + 1)
  ended = any(row[i : i + len(stop)] == stop for i in starts)
  return not ended and any(i != sampling.pad_id for i in row)


def stream(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  sampling: Sampling,
  *,
  rng: Key[Array, ""] | None = None,
  every: int = 4,
) -> Iterator[Int[np.ndarray, "B G"]]:
  """Yields the output of `generate` as it grows, after each `every` tokens.

  Tokens that are not there yet are pad_id. The last array is exactly what
  `generate` returns.

  Args:
    model, params, batch, sampling, rng: as for `generate`.
    every: tokens from one array to the next.
  """
  static, request = _prepare(model, batch, sampling, rng)
  state = _jit_prefill(static, params, request)
  for until in range(every, sampling.max_new_tokens + every, every):
    state = _jit_decode(static, params, request, state, until)
    yield np.asarray(state.output)
    if state.done.all():
      return


def log_likelihood(
  model: nn.Module, params: Mapping, batch: Mapping[str, ArrayLike | None]
) -> Float[Array, " B"]:
  """Sums the log-probabilities of the tokens that `loss_mask` marks, by row.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: tokens [B, S] with the answers that are to be judged, images [B, K,
      H, W, 3] or None, lengths [B], loss_mask [B, S].
  """
  prompt = Prompt.from_batch(batch)
  return _log_likelihood(model, params, prompt, batch["loss_mask"])


def bound_apply(model: nn.Module, params: Mapping) -> Callable:
  """Returns `model.apply` of these parameters, with layers unstacked.

  The LLM's layers may then have a cache.
  """
  model, params = locvlm.unstack_layers(model, params)
  return functools.partial(model.apply, {"params": params})


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(model, params, prompt: Prompt, mask) -> Array:
  run = bound_apply(model, params)
  logits = run(run(*prompt)[:, :-1], method="logits")
  labels = jnp.maximum(prompt.tokens[:, 1:], 0)[..., None]
  chosen = jnp.take_along_axis(logits, labels, axis=-1)[..., 0]
  logs = chosen - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where(mask[:, 1:], logs, 0).sum(1)


def check_rng(temperature: float, rng: Key[Array, ""] | None) -> None:
  """Raises ValueError where there is sampling but no key to sample with."""
  if temperature > 0 and rng is None:
    raise ValueError(
      f"temperature {temperature} samples: give rng=jax.random.key(seed)"
    )


def _prepare(
  model: nn.Module, batch: Mapping, sampling: Sampling, rng
) -> tuple[_Static, _Request]:
  """Separates what programs are compiled for from the arrays of this call."""
  check_rng(sampling.temperature, rng)
  is_sampled = sampling.temperature > 0
  has_filter = sampling.top_k > 0 or sampling.top_p < 1
  static = _Static(
    model, sampling.max_new_tokens, is_sampled, is_sampled and has_filter
  )
  rows = batch["tokens"].shape[0]
  # Arrays of numpy, since each small operation of jax is a program of its own.
  request = _Request(
    prompt=Prompt.from_batch(batch),
    valid=batch.get("valid", np.ones(rows, bool)),
    example=batch.get("example", np.arange(rows, dtype=np.int32)),
    stop=np.array(sampling.stop, np.int32),
    pad_id=np.int32(sampling.pad_id),
    temperature=np.float32(sampling.temperature),
    top_k=np.int32(sampling.top_k),
    top_p=np.float32(sampling.top_p),
    rng=rng,
  )
  return static, request


@functools.partial(jax.jit, static_argnums=0)
def _generate(static: _Static, params, request: _Request) -> Array:
  state = _prefill(static, params, request)
  until = static.max_new_tokens
  return _decode(static, params, request, state, until).output


@functools.partial(jax.jit, static_argnums=0)
def _jit_prefill(static: _Static, params, request: _Request) -> _State:
  return _prefill(static, params, request)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _jit_decode(
  static: _Static, params, request: _Request, state: _State, until
) -> _State:
  return _decode(static, params, request, state, until)


def _prefill(static: _Static, params, request: _Request) -> _State:
  """Fills the cache with the prompts and chooses the first token."""
  rows, length = request.prompt.tokens.shape
  cfg, num = static.model.config, static.max_new_tokens
  cache = llama.empty_cache(cfg.llm, rows, length + num, cfg.dtype)
  run = bound_apply(static.model, params)
  hidden, cache = run(*request.prompt, cache, method="prefill")
  start = _State(
    step=jnp.int32(0),
    recent=jnp.full((rows, len(request.stop)), -1, jnp.int32),  # no id is -1
    done=~request.valid,
    output=jnp.full((rows, num), request.pad_id, jnp.int32),
    cache=cache,
  )
  return _append(static, request, start, run(hidden, method="logits"))


def _decode(
  static: _Static, params, request: _Request, state: _State, until
) -> _State:
  """Generates tokens until there are `until` of them or all rows have ended."""
  run = bound_apply(static.model, params)

  def advance(state: _State) -> _State:
    # The last of `step` tokens is not in the cache yet: this is its position.
    position = request.prompt.lengths + state.step - 1
    newest = state.recent[:, -1:]
    hidden, cache = run(newest, state.cache, position, method="decode_step")
    logits = run(hidden[:, 0], method="logits")
    return _append(static, request, state._replace(cache=cache), logits)

  until = jnp.minimum(until, static.max_new_tokens)
  return jax.lax.while_loop(
    lambda s: (s.step < until) & ~s.done.all(), advance, state
  )


def _append(
  static: _Static, request: _Request, state: _State, logits: Float[Array, "B V"]
) -> _State:
  """Chooses and appends a token for each row that has not ended."""
  if static.is_sampled:
    token = _sample(static, request, state.step, logits)
  else:
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  token = jnp.where(state.done, request.pad_id, token)
  output = jax.lax.dynamic_update_slice(
    state.output, token[:, None], (0, state.step)
  )
  recent = jnp.concatenate([state.recent[:, 1:], token[:, None]], axis=1)
  done = state.done | (recent == request.stop).all(axis=1)
  return _State(state.step + 1, recent, done, output, state.cache)


def _sample(
  static: _Static,
  request: _Request,
  step: Int[Array, ""],
  logits: Float[Array, "B V"],
) -> Int[Array, " B"]:
  """Draws a token for each row, by the key of that row."""
  logits = logits / request.temperature
  if static.is_filtered:
    logits = _filter(logits, request.top_k, request.top_p)
  draw = functools.partial(draw_token, request.rng, step)
  return jax.vmap(draw)(request.example, logits).astype(jnp.int32)


def draw_token(
  rng: Key[Array, ""],
  step: Int[Array, ""],
  example: Int[Array, ""],
  logits: Float[Array, " V"],
) -> Int[Array, ""]:
  """Draws an index of `logits` by a key of this example and step alone."""
  key = jax.random.fold_in(jax.random.fold_in(rng, example), step)
  return jax.random.categorical(key, logits)


def _filter(
  logits: Float[Array, "B V"], top_k: Int[Array, ""], top_p: Float[Array, ""]
) -> Float[Array, "B V"]:
  """Sets all to -inf but the k likeliest, and of these what reaches p.

  As in transformers (`huggingface/transformers:generation/logits_process.py`),
  whose order these filters have: tokens as likely as the k-th stay, and p is
  reached by probabilities among what the first filter has left.
  """
  vocabulary = logits.shape[-1]
  order = jnp.argsort(-logits, axis=-1)
  ranked = jnp.take_along_axis(logits, order, axis=-1)
  last = jnp.where(top_k > 0, jnp.minimum(top_k, vocabulary), vocabulary) - 1
  least = jax.lax.dynamic_index_in_dim(ranked, last, axis=-1)
  ranked = jnp.where(ranked >= least, ranked, -jnp.inf)
  probabilities = jax.nn.softmax(ranked)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  kept = (before < top_p) | (top_p >= 1)
  rows = jnp.arange(len(logits))[:, None]
  filtered = jnp.full_like(logits, -jnp.inf)
  return filtered.at[rows, order].set(jnp.where(kept, ranked, -jnp.inf))

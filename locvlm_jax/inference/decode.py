"""Generation: a prefill, a static cache, and a while loop with early exit.

Letters: B rows, S prompt positions, K images in a row, G generated tokens, A
alternatives of a token, E ids of a stop, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, UInt8

from locvlm_jax.inference.sampling import (
  Each,
  Sampling,
  Written,
  check_rng,
  describe,
  sample,
)
from locvlm_jax.models import kv_cache, llama, locvlm, video
from locvlm_jax.models.kv_cache import Prefix

_LEAST_STEP = 16  # between two lengths that prompts are padded to


class Prompt(NamedTuple):
  """The inputs of a `LocVLM`.

  Attributes:
    prefix: what the cache already holds of the rows, before `tokens`; the
      pictures are in it then, and `images` is None.
  """

  tokens: Int[ArrayLike, "B S"]
  images: (
    UInt8[ArrayLike, "B K H W 3"]
    | video.VideoBatch
    | Float[ArrayLike, "B K N C"]
    | None
  )
  lengths: Int[ArrayLike, " B"]
  prefix: Prefix | None = None

  @classmethod
  def from_batch(cls, batch: Mapping[str, Any]) -> "Prompt":
    """Takes the inputs from a batch."""
    prefix = batch.get("prefix")
    images = None if prefix else video.visual_input(batch)
    return cls(batch["tokens"], images, batch["lengths"], prefix)

  @property
  def ends(self) -> Int[ArrayLike, " B"]:
    """The position after each row's last one."""
    if self.prefix is None:
      return self.lengths
    return self.prefix.lengths + self.lengths


class _Static(NamedTuple):
  """What a program is compiled for; a hashable argument."""

  model: nn.Module
  max_new_tokens: int
  is_sampled: bool  # else greedy
  is_filtered: bool  # by top_k or top_p
  alternatives: int  # tokens at each place whose probabilities are kept


class _Request(NamedTuple):
  """The arrays of a call; programs are compiled for their shapes alone."""

  prompt: Prompt
  valid: Bool[ArrayLike, " B"]
  example: Int[ArrayLike, " B"]
  stop: Int[ArrayLike, " E"]
  pad_id: Int[ArrayLike, ""]
  each: Each
  rng: Key[Array, "..."] | None


class _State(NamedTuple):
  """What a decoding step reads and writes."""

  step: Int[Array, ""]  # tokens generated so far
  recent: Int[Array, "B E"]  # the last tokens; the last is not in the cache yet
  done: Bool[Array, " B"]
  output: Written
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
  for written in write(model, params, batch, sampling, rng=rng, every=every):
    yield written.ids


def write(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  sampling: Sampling,
  *,
  rng: Key[Array, "..."] | None = None,
  each: Each | None = None,
  alternatives: int = 0,
  every: int = 4,
  ended: Callable[[], Sequence[bool]] | None = None,
) -> Iterator[Written]:
  """Yields what `stream` does, of rows that may be sampled differently.

  Args:
    model, params, batch: as for `generate`.
    sampling: of all rows, but for what `each` says.
    rng: a key, or one for each row.
    each: of each row; all that it may ask for is compiled in, so that calls of
      the same shapes share a program.
    alternatives: A; 0 keeps no probabilities, and is a program of its own.
    every: tokens from one array to the next.
    ended: is asked before each part which rows need no more tokens.
  """
  static, request = _prepare(model, batch, sampling, rng, each, alternatives)
  state = _jit_prefill(static, params, request)
  rows = len(request.valid)
  for until in range(every, sampling.max_new_tokens + every, every):
    over = np.array(ended() if ended else [False] * rows, bool)
    state = _jit_decode(static, params, request, state, np.int32(until), over)
    yield Written(*(x if x is None else np.asarray(x) for x in state.output))
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


def _prepare(
  model: nn.Module,
  batch: Mapping,
  sampling: Sampling,
  rng,
  each: Each | None = None,
  alternatives: int = 0,
) -> tuple[_Static, _Request]:
  """Separates what programs are compiled for from the arrays of this call."""
  check_rng(sampling.temperature, rng)
  has_filter = sampling.top_k > 0 or sampling.top_p < 1 or each is not None
  is_sampled = sampling.temperature > 0
  is_filtered = is_sampled and has_filter
  static = _Static(
    model, sampling.max_new_tokens, is_sampled, is_filtered, alternatives
  )
  rows = batch["tokens"].shape[0]
  # Arrays of numpy, since each small operation of jax is a program of its own.
  request = _Request(
    prompt=Prompt.from_batch(batch),
    valid=batch.get("valid", np.ones(rows, bool)),
    example=batch.get("example", np.arange(rows, dtype=np.int32)),
    stop=np.array(sampling.stop, np.int32),
    pad_id=np.int32(sampling.pad_id),
    each=each or Each.of(sampling, rows),
    rng=rng,
  )
  return static, request


@functools.partial(jax.jit, static_argnums=0)
def _generate(static: _Static, params, request: _Request) -> Array:
  state = _prefill(static, params, request)
  until = static.max_new_tokens
  return _decode(static, params, request, state, until).output.ids


@functools.partial(jax.jit, static_argnums=0)
def _jit_prefill(static: _Static, params, request: _Request) -> _State:
  return _prefill(static, params, request)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _jit_decode(
  static: _Static, params, request: _Request, state: _State, until, over
) -> _State:
  state = state._replace(done=state.done | over)
  return _decode(static, params, request, state, until)


def fill(
  config: locvlm.LocVLMConfig, run: Callable, prompt: Prompt, room: int
) -> tuple[Float[Array, "B D"], kv_cache.Cache]:
  """Fills a cache with prompts, and leaves `room` slots in it.

  Args:
    config: of the model.
    run: `bound_apply` of it.
    prompt: its prefix, if there is one, is copied.
    room: for the tokens that follow.

  Returns:
    The hidden state of each row's last position, and the cache.
  """
  rows, length = prompt.tokens.shape
  held = prompt.prefix
  slots = length + room + (held.num_slots if held else 0)
  cache = llama.empty_cache(config.llm, rows, slots, config.dtype)
  if held is None:
    return run(*prompt[:3], cache, method="prefill")
  cache = kv_cache.begin(cache, held)
  hidden, cache = run(prompt.tokens, cache, held.lengths, method="decode_step")
  last = (prompt.lengths - 1)[:, None, None]
  return jnp.take_along_axis(hidden, last, axis=1)[:, 0], cache


def _prefill(static: _Static, params, request: _Request) -> _State:
  """Fills the cache with the prompts and chooses the first token."""
  run, num = bound_apply(static.model, params), static.max_new_tokens
  hidden, cache = fill(static.model.config, run, request.prompt, num)
  rows = len(hidden)
  start = _State(
    step=jnp.int32(0),
    recent=jnp.full((rows, len(request.stop)), -1, jnp.int32),  # no id is -1
    done=~request.valid,
    output=_nothing(static, request.pad_id, rows),
    cache=cache,
  )
  return _append(static, request, start, run(hidden, method="logits"))


def _nothing(static: _Static, pad_id, rows: int) -> Written:
  """The output before the first token."""
  shape = rows, static.max_new_tokens
  ids = jnp.full(shape, pad_id, jnp.int32)
  if not static.alternatives:
    return Written(ids)
  several = *shape, static.alternatives
  zeros = jnp.zeros(several, jnp.int32)
  return Written(ids, jnp.zeros(shape), zeros, jnp.zeros(several))


def _decode(
  static: _Static, params, request: _Request, state: _State, until
) -> _State:
  """Generates tokens until there are `until` of them or all rows have ended."""
  run = bound_apply(static.model, params)

  def advance(state: _State) -> _State:
    # The last of `step` tokens is not in the cache yet: this is its position.
    position = request.prompt.ends + state.step - 1
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
  each, step = request.each, state.step
  if static.is_sampled:
    arguments = each, request.rng, step, request.example, logits
    token = sample(*arguments, static.is_filtered)
  else:
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  token = jnp.where(state.done, request.pad_id, token)
  added = describe(static.alternatives, token, logits)
  output = jax.tree.map(
    lambda old, new: jax.lax.dynamic_update_slice_in_dim(
      old, new[:, None].astype(old.dtype), step, axis=1
    ),
    state.output,
    added,
  )
  recent = jnp.concatenate([state.recent[:, 1:], token[:, None]], axis=1)
  done = state.done | (recent == request.stop).all(axis=1)
  done |= step + 1 >= each.limit
  return _State(step + 1, recent, done, output, state.cache)

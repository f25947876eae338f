"""Decoding of legal locations only, by the tables of a `grammar.Grammar`.

Where one token alone is legal it is not asked for: it travels with the one
before through the same step (after "22" of 223 bins only a comma can follow).

Letters: B rows, S prompt positions, K images in a row, C numbers of a location,
A tokens of the grammar, J tokens of a step.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from locvlm_jax.inference import decode
from locvlm_jax.models import llama, video
from locvlm_jax.text import grammar as grammar_lib

_STEP = 2  # J: a token that was chosen and one that had to follow


class Located(NamedTuple):
  """Locations and how sure the model is of them.

  Attributes:
    numbers: as the grammar's `text` takes them.
    log_probability: of each whole location among the legal ones.
  """

  numbers: Int[np.ndarray, "B C"]
  log_probability: Float[np.ndarray, " B"]


class _Place(NamedTuple):
  """Where each row stands in the grammar."""

  node: Int[Array, " B"]
  number: Int[Array, " B"]  # C: the location is complete
  numbers: Int[Array, "B C"]


class _State(NamedTuple):
  place: _Place
  tokens: Int[Array, "B J"]  # not yet in the cache
  count: Int[Array, " B"]  # of them
  position: Int[Array, " B"]  # of the first of them
  log_probability: Float[Array, " B"]
  step: Int[Array, ""]
  cache: llama.Cache


def locate(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  grammar: grammar_lib.Grammar,
  *,
  temperature: float = 0.0,
  rng: Key[Array, ""] | None = None,
) -> Located:
  """Continues prompts that end in an open bracket by a legal location.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: as for `decode.generate`; tokens end after the bracket.
    grammar: what is legal.
    temperature: 0 takes the likeliest token at each step, above 0 samples.
    rng: a typed key; needed where temperature > 0.

  Raises:
    ValueError: a temperature below 0, or no rng for one above.
  """
  if temperature < 0:
    raise ValueError(f"temperature {temperature} is negative")
  if temperature > 0 and rng is None:
    raise ValueError("temperature > 0 samples: give rng=jax.random.key(seed)")
  rows = batch["tokens"].shape[0]
  # numpy's where jax would run a program for each.
  numbers, log_probability = _locate(
    model,
    grammar.longest,
    temperature > 0,
    params,
    _tables(grammar),
    (batch["tokens"], video.visual_input(batch), batch["lengths"]),
    batch.get("example", np.arange(rows, dtype=np.int32)),
    batch.get("valid", np.ones(rows, bool)),
    np.float32(temperature),
    rng,
  )
  return Located(np.asarray(numbers), np.asarray(log_probability))


@functools.lru_cache(maxsize=8)
def _tables(grammar: grammar_lib.Grammar) -> dict[str, Array]:
  """The grammar's tables on the device, once."""
  names = (
    "ids",
    "next",
    "enter",
    "whole",
    "is_whole",
    "intervals",
    "low",
    "high",
    "above",
    "shift",
  )
  return {name: jnp.asarray(getattr(grammar, name)) for name in names}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _locate(
  model,
  longest,
  sample,
  params,
  tables,
  prompt,
  example,
  valid,
  temperature,
  rng,
):
  tokens, _, lengths = prompt
  rows, slots = tokens.shape[0], tokens.shape[1] + longest + _STEP
  run = decode.bound_apply(model, params)
  last = len(tables["low"])

  def choose(state: _State, hidden: Float[Array, "B D"]) -> _State:
    legal = _legal(tables, state.place)
    scores = run(hidden, method="logits")[:, tables["ids"]]
    scores = jnp.where(legal, scores, -jnp.inf)
    index = jnp.argmax(scores, axis=-1)
    if sample:
      index = jax.vmap(functools.partial(_draw, rng, state.step))(
        example, scores / temperature
      )
    busy = state.place.number < last
    gain = jnp.take_along_axis(
      jax.nn.log_softmax(scores), index[:, None], axis=1
    )[:, 0]
    place = _advance(tables, state.place, index, busy)
    legal = _legal(tables, place)
    forced = (legal.sum(-1) == 1) & (place.number < last)
    follower = jnp.argmax(legal, axis=-1)
    chosen = jnp.stack([index, follower], axis=1)
    return _State(
      place=_advance(tables, place, follower, forced),
      tokens=tables["ids"][chosen],
      count=jnp.where(busy, 1 + forced, state.count),
      position=state.position + jnp.where(busy, state.count, 0),
      log_probability=state.log_probability + jnp.where(busy, gain, 0),
      step=state.step + 1,
      cache=state.cache,
    )

  def advance(state: _State) -> _State:
    hidden, cache = run(
      state.tokens, state.cache, state.position, method="decode_step"
    )
    newest = (state.count - 1)[:, None, None]
    hidden = jnp.take_along_axis(hidden, newest, axis=1)[:, 0]
    return choose(state._replace(cache=cache), hidden)

  cfg = model.config
  cache = llama.empty_cache(cfg.llm, rows, slots, cfg.dtype)
  hidden, cache = run(*prompt, cache, method="prefill")
  zeros = jnp.zeros(rows, jnp.int32)
  start = _Place(
    node=zeros,
    number=jnp.where(valid, 0, last),
    numbers=jnp.zeros((rows, last), jnp.int32),
  )
  state = _State(
    place=start,
    tokens=jnp.zeros((rows, _STEP), jnp.int32),
    count=zeros,
    position=lengths,
    log_probability=jnp.zeros(rows),
    step=jnp.int32(0),
    cache=cache,
  )
  state = jax.lax.while_loop(
    lambda s: (s.place.number < last).any(), advance, choose(state, hidden)
  )
  return state.place.numbers, state.log_probability


def _draw(rng, step, example, scores) -> Array:
  """A draw that depends on the row's own example alone."""
  key = jax.random.fold_in(jax.random.fold_in(rng, example), step)
  return jax.random.categorical(key, scores)


def _bounds(
  tables: Mapping, number: Int[Array, " B"], numbers: Int[Array, "B C"]
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
  """Least and greatest value that a number may take after those before it."""
  number = jnp.minimum(number, len(tables["low"]) - 1)
  anchor = jnp.minimum(numbers[:, 0], len(tables["shift"]) - 1)
  shift = tables["shift"][anchor, number]
  low = tables["low"][number] + shift
  above = tables["above"][number]
  before = jnp.take_along_axis(numbers, jnp.maximum(above, 0)[:, None], axis=1)
  low = jnp.where(above >= 0, jnp.maximum(low, before[:, 0]), low)
  return low, tables["high"][number] + shift


def _may_become(
  tables: Mapping, node: Int[Array, "B A"], low: Array, high: Array
) -> Bool[Array, "B A"]:
  """Whether some number that begins as `node` lies within the bounds."""
  intervals = tables["intervals"][jnp.maximum(node, 0)]
  first = jnp.maximum(intervals[..., 0], low[:, None, None])
  last = jnp.minimum(intervals[..., 1], high[:, None, None])
  return (node >= 0) & (first <= last).any(-1)


def _legal(tables: Mapping, place: _Place) -> Bool[Array, "B A"]:
  """The tokens that may follow."""
  last = len(tables["low"]) - 1
  low, high = _bounds(tables, place.number, place.numbers)
  longer = _may_become(tables, tables["next"][place.node], low, high)
  value = tables["whole"][place.node]
  ends = tables["is_whole"][place.node] & (low <= value) & (value <= high)
  number = jnp.minimum(place.number, last)
  numbers = _with(place.numbers, number, value)
  enter = tables["enter"][number]
  following = _bounds(tables, number + 1, numbers)
  enters = _may_become(tables, enter, *following)
  enters = jnp.where((number == last)[:, None], enter >= 0, enters)
  return longer | (ends[:, None] & enters)


def _with(numbers, number, value) -> Int[Array, "B C"]:
  here = jnp.arange(numbers.shape[1]) == number[:, None]
  return jnp.where(here, value[:, None], numbers)


def _advance(
  tables: Mapping, place: _Place, index: Int[Array, " B"], go: Bool[Array, " B"]
) -> _Place:
  """The place after a legal token, in the rows that go on."""
  last = len(tables["low"]) - 1
  number = jnp.minimum(place.number, last)
  enter = tables["enter"][number, index]
  longer = tables["next"][place.node, index]
  ends = go & (longer < 0)
  value = tables["whole"][place.node]
  return _Place(
    node=jnp.where(go, jnp.where(ends, enter, longer), place.node),
    number=place.number + ends,
    numbers=jnp.where(
      ends[:, None], _with(place.numbers, number, value), place.numbers
    ),
  )

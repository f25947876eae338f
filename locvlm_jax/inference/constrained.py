"""Decoding of legal locations only, by the tables of a `grammar.Grammar`.

Where only one token is legal, the model is not asked for it: it enters the
cache in the same step as the token before it (after "22" of 223 bins only a
comma can follow).

Letters: B rows, D width, C numbers of a location, A tokens of the grammar, J
tokens of a step.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from locvlm_jax.inference import decode
from locvlm_jax.models import kv_cache, llama
from locvlm_jax.text import grammar as grammar_lib

_STEP = 2  # J: a token that is chosen and one that has to follow it
# The fields of a Grammar that decoding looks things up in.
_TABLES = (
  "ids", "next", "enter", "whole", "is_whole", "intervals", "low", "high",
  "above", "shift",
)  # fmt: skip


class Located(NamedTuple):
  """Locations, and how sure the model is of them.

  Attributes:
    numbers: of each location, as `Grammar.text` takes them.
    log_probability: of each whole location among the legal ones.
  """

  numbers: Int[np.ndarray, "B C"]
  log_probability: Float[np.ndarray, " B"]


class _Static(NamedTuple):
  """What a program is compiled for; a hashable argument."""

  model: nn.Module
  longest: int  # tokens of a location
  is_sampled: bool  # else greedy


class _Request(NamedTuple):
  """The arrays of a call."""

  prompt: decode.Prompt
  valid: Bool[ArrayLike, " B"]
  example: Int[ArrayLike, " B"]
  temperature: Float[ArrayLike, ""]
  rng: Key[Array, ""] | None


class _Place(NamedTuple):
  """Where each row stands in the grammar."""

  node: Int[Array, " B"]  # what is written of the current number
  number: Int[Array, " B"]  # its index; C: the location is complete
  numbers: Int[Array, "B C"]  # those that are written


class _State(NamedTuple):
  """What a decoding step reads and writes."""

  place: _Place
  tokens: Int[Array, "B J"]  # not in the cache yet
  count: Int[Array, " B"]  # how many of them there are
  position: Int[Array, " B"]  # of the first of them
  log_probability: Float[Array, " B"]
  step: Int[Array, ""]
  cache: kv_cache.Cache


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
    grammar: which locations are legal.
    temperature: 0 takes the likeliest token at each step, above 0 samples.
    rng: a typed key; needed where temperature > 0.

  Raises:
    ValueError: a temperature below 0, or no rng for one above.
  """
  if temperature < 0:
    raise ValueError(
      f"temperature {temperature} is negative: give 0 (greedy) or more"
    )
  decode.check_rng(temperature, rng)
  rows = batch["tokens"].shape[0]
  # Arrays of numpy, since each small operation of jax is a program of its own.
  request = _Request(
    prompt=decode.Prompt.from_batch(batch),
    valid=batch.get("valid", np.ones(rows, bool)),
    example=batch.get("example", np.arange(rows, dtype=np.int32)),
    temperature=np.float32(temperature),
    rng=rng,
  )
  static = _Static(model, grammar.longest, temperature > 0)
  found = _locate(static, params, _tables(grammar), request)
  return Located(*map(np.asarray, found))


@functools.lru_cache(maxsize=8)
def _tables(grammar: grammar_lib.Grammar) -> dict[str, Array]:
  """Returns the grammar's tables on the device, where they stay."""
  return {name: jnp.asarray(getattr(grammar, name)) for name in _TABLES}


@functools.partial(jax.jit, static_argnums=0)
def _locate(
  static: _Static, params, tables: Mapping, request: _Request
) -> tuple[Int[Array, "B C"], Float[Array, " B"]]:
  """Returns the numbers of the locations and their log-probabilities."""
  run = decode.bound_apply(static.model, params)
  choose = functools.partial(_choose, static, run, tables, request)
  state, hidden = _prefill(static, run, len(tables["low"]), request)

  def advance(state: _State) -> _State:
    hidden, cache = run(
      state.tokens, state.cache, state.position, method="decode_step"
    )
    last = (state.count - 1)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    return choose(state._replace(cache=cache), hidden)

  state = jax.lax.while_loop(
    lambda s: (s.place.number < len(tables["low"])).any(),
    advance,
    choose(state, hidden),
  )
  return state.place.numbers, state.log_probability


def _prefill(
  static: _Static, run: Callable, num_numbers: int, request: _Request
) -> tuple[_State, Float[Array, "B D"]]:
  """Fills the cache with the prompts; their last hidden states come along."""
  rows, length = request.prompt.tokens.shape
  cfg, slots = static.model.config, length + static.longest + _STEP
  cache = llama.empty_cache(cfg.llm, rows, slots, cfg.dtype)
  hidden, cache = run(*request.prompt, cache, method="prefill")
  zeros = jnp.zeros(rows, jnp.int32)
  place = _Place(
    node=zeros,
    number=jnp.where(request.valid, 0, num_numbers),
    numbers=jnp.zeros((rows, num_numbers), jnp.int32),
  )
  state = _State(
    place=place,
    tokens=jnp.zeros((rows, _STEP), jnp.int32),
    count=zeros,
    position=request.prompt.lengths,
    log_probability=jnp.zeros(rows),
    step=jnp.int32(0),
    cache=cache,
  )
  return state, hidden


def _choose(
  static: _Static,
  run: Callable,
  tables: Mapping,
  request: _Request,
  state: _State,
  hidden: Float[Array, "B D"],
) -> _State:
  """Chooses a legal token in each row, and its follower if it has only one."""
  num_numbers = len(tables["low"])
  scores = run(hidden, method="logits")[:, tables["ids"]]
  scores = jnp.where(_legal(tables, state.place), scores, -jnp.inf)
  index = jnp.argmax(scores, axis=-1)
  if static.is_sampled:
    draw = functools.partial(decode.draw_token, request.rng, state.step)
    index = jax.vmap(draw)(request.example, scores / request.temperature)
  unfinished = state.place.number < num_numbers
  log_probability = jnp.take_along_axis(
    jax.nn.log_softmax(scores), index[:, None], axis=1
  )[:, 0]
  place = _advance(tables, state.place, index, unfinished)
  legal = _legal(tables, place)
  forced = (legal.sum(-1) == 1) & (place.number < num_numbers)
  follower = jnp.argmax(legal, axis=-1)
  chosen = jnp.stack([index, follower], axis=1)
  return _State(
    place=_advance(tables, place, follower, forced),
    tokens=tables["ids"][chosen],
    count=jnp.where(unfinished, 1 + forced, state.count),
    position=state.position + jnp.where(unfinished, state.count, 0),
    log_probability=state.log_probability
    + jnp.where(unfinished, log_probability, 0),
    step=state.step + 1,
    cache=state.cache,
  )


def _bounds(
  tables: Mapping, number: Int[Array, " B"], numbers: Int[Array, "B C"]
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
  """Returns the least and greatest value that the next number may take."""
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
  """Tells whether some number that begins as `node` is within the bounds."""
  intervals = tables["intervals"][jnp.maximum(node, 0)]
  first = jnp.maximum(intervals[..., 0], low[:, None, None])
  last = jnp.minimum(intervals[..., 1], high[:, None, None])
  return (node >= 0) & (first <= last).any(-1)


def _legal(tables: Mapping, place: _Place) -> Bool[Array, "B A"]:
  """Tells which tokens may follow."""
  last = len(tables["low"]) - 1
  low, high = _bounds(tables, place.number, place.numbers)
  longer = _may_become(tables, tables["next"][place.node], low, high)
  value = tables["whole"][place.node]
  ends = tables["is_whole"][place.node] & (low <= value) & (value <= high)
  number = jnp.minimum(place.number, last)
  numbers = _write_number(place.numbers, number, value)
  enter = tables["enter"][number]
  following = _bounds(tables, number + 1, numbers)
  enters = _may_become(tables, enter, *following)
  enters = jnp.where((number == last)[:, None], enter >= 0, enters)
  return longer | (ends[:, None] & enters)


def _write_number(
  numbers: Int[Array, "B C"], number: Int[Array, " B"], value: Int[Array, " B"]
) -> Int[Array, "B C"]:
  """Writes a value at the index `number` of each row."""
  here = jnp.arange(numbers.shape[1]) == number[:, None]
  return jnp.where(here, value[:, None], numbers)


def _advance(
  tables: Mapping,
  place: _Place,
  index: Int[Array, " B"],
  advances: Bool[Array, " B"],
) -> _Place:
  """Moves the rows where `advances` past a legal token, given by its index."""
  last = len(tables["low"]) - 1
  number = jnp.minimum(place.number, last)
  enter = tables["enter"][number, index]
  longer = tables["next"][place.node, index]
  ends = advances & (longer < 0)
  value = tables["whole"][place.node]
  return _Place(
    node=jnp.where(advances, jnp.where(ends, enter, longer), place.node),
    number=place.number + ends,
    numbers=jnp.where(
      ends[:, None], _write_number(place.numbers, number, value), place.numbers
    ),
  )

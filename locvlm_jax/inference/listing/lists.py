"""Decoding of lists of locations, by the tables of a `grammar.ListGrammar`.

Greedy, in one loop on the device: after each location the model goes on or
stops, as its tokens say, and no location can repeat an earlier one, since each
comes after the one before. A row that has as many as are allowed is stopped.

Letters: B rows, D width, C numbers of a location, A tokens of the grammar, J
tokens of a step, M locations of a list.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from locvlm_jax.inference import decode, places
from locvlm_jax.models import kv_cache
from locvlm_jax.text import grammar as grammar_lib

_STEP = 2  # J: a token that is chosen and one that has to follow it
_OF_ONE = (
  "ids", "next", "enter", "whole", "is_whole", "intervals", "low", "high",
  "above", "shift",
)  # fmt: skip
_OF_LISTS = ("tail", "again", "stop")


class Listed(NamedTuple):
  """Lists of locations, and how sure the model is of them.

  Attributes:
    numbers: of each location, as `Grammar.text` takes them.
    count: how many of the M there are.
    log_probability: of the text of each location among all that could be
      written there.
    more: probability that another one follows, after each; of the last one
      where the row was full: 0.
  """

  numbers: Int[np.ndarray, "B M C"]
  count: Int[np.ndarray, " B"]
  log_probability: Float[np.ndarray, "B M"]
  more: Float[np.ndarray, "B M"]


class _State(NamedTuple):
  """What a decoding step reads and writes."""

  place: places.Place  # number C: behind a location, at a node of the tail
  done: Bool[Array, " B"]
  tokens: Int[Array, "B J"]  # not in the cache yet
  length: Int[Array, " B"]  # how many of them there are
  position: Int[Array, " B"]  # of the first of them
  found: Listed
  cache: kv_cache.Cache


def list_all(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  grammar: grammar_lib.ListGrammar,
  most: int,
) -> Listed:
  """Continues prompts that end in an open bracket by lists of locations.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: as for `decode.generate`; tokens end after the bracket. Rows that
      are not valid get no list.
    grammar: which lists are legal.
    most: M, at least 1.
  """
  rows = batch["tokens"].shape[0]
  prompt = decode.Prompt.from_batch(batch)
  valid = batch.get("valid", np.ones(rows, bool))
  static = model, grammar.longest, most
  return _list_all(static, params, _tables(grammar), prompt, valid)


def choose(
  model: nn.Module,
  params: Mapping,
  batch: Mapping[str, ArrayLike | None],
  ids: Int[ArrayLike, "B 2"],
) -> Float[Array, " B"]:
  """Returns the probability of the second of two tokens after each prompt."""
  return _choose(model, params, decode.Prompt.from_batch(batch), ids)


@functools.partial(jax.jit, static_argnums=0)
def _choose(model, params, prompt: decode.Prompt, ids) -> Float[Array, " B"]:
  run = decode.bound_apply(model, params)
  hidden, _ = decode.fill(model.config, run, prompt, 0)
  logits = jnp.take_along_axis(run(hidden, method="logits"), ids, axis=1)
  return jax.nn.softmax(logits)[:, 1]


@functools.lru_cache(maxsize=8)
def _tables(grammar: grammar_lib.ListGrammar) -> dict[str, Array]:
  """Returns the grammar's tables on the device, where they stay."""
  one = {name: jnp.asarray(getattr(grammar.one, name)) for name in _OF_ONE}
  return one | {n: jnp.asarray(getattr(grammar, n)) for n in _OF_LISTS}


@functools.partial(jax.jit, static_argnums=0)
def _list_all(
  static: tuple[nn.Module, int, int],
  params,
  tables: Mapping,
  prompt: decode.Prompt,
  valid: Bool[ArrayLike, " B"],
) -> Listed:
  model, longest, most = static
  run = decode.bound_apply(model, params)
  state, hidden = _prefill(static, run, len(tables["low"]), prompt, valid)

  def advance(state: _State) -> _State:
    hidden, cache = run(
      state.tokens, state.cache, state.position, method="decode_step"
    )
    last = (state.length - 1)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    return _write(run, tables, state._replace(cache=cache), hidden)

  return jax.lax.while_loop(
    lambda s: ~s.done.all(), advance, _write(run, tables, state, hidden)
  ).found


def _prefill(
  static, run: Callable, num_numbers: int, prompt: decode.Prompt, valid
) -> tuple[_State, Float[Array, "B D"]]:
  """Fills the cache with the prompts; their last hidden states come along."""
  model, longest, most = static
  room = most * longest + _STEP
  hidden, cache = decode.fill(model.config, run, prompt, room)
  rows = len(hidden)
  zeros = jnp.zeros(rows, jnp.int32)
  numbers = jnp.zeros((rows, num_numbers), jnp.int32)
  none = jnp.zeros((rows, most))
  state = _State(
    place=places.Place(zeros, zeros, numbers, numbers - 1),
    done=~jnp.asarray(valid),
    tokens=jnp.zeros((rows, _STEP), jnp.int32),
    length=zeros,
    position=prompt.ends,
    found=Listed(
      jnp.zeros((rows, most, num_numbers), jnp.int32), zeros, none, none
    ),
    cache=cache,
  )
  return state, hidden


def _write(
  run: Callable, tables: Mapping, state: _State, hidden: Float[Array, "B D"]
) -> _State:
  """Writes the likeliest legal token of each row, and its only follower."""
  legal = _legal(tables, state)
  scores = run(hidden, tables["ids"], method="logits")
  logs = jax.nn.log_softmax(jnp.where(legal, scores, -jnp.inf))
  index = jnp.argmax(logs, axis=-1)
  found = _judge(tables, state, logs, index)
  position = state.position + jnp.where(state.done, 0, state.length)
  first = _advance(tables, state._replace(found=found), index)
  legal = _legal(tables, first)
  forced = (legal.sum(-1) == 1) & ~first.done
  follower = jnp.argmax(legal, axis=-1)
  second = _advance(tables, first, follower, forced)
  return second._replace(
    tokens=tables["ids"][jnp.stack([index, follower], axis=1)],
    length=jnp.where(state.done, state.length, 1 + forced),
    position=position,
  )


def _tail_node(tables: Mapping, state: _State) -> Int[Array, " B"]:
  """Returns the node of what follows a location; inside of one 0."""
  is_behind = state.place.number == len(tables["low"])
  return jnp.where(is_behind, state.place.node, 0)


def _legal(tables: Mapping, state: _State) -> Bool[Array, "B A"]:
  """Tells which tokens may follow."""
  place, last = state.place, len(tables["low"]) - 1
  tail = _tail_node(tables, state)
  again = (tables["tail"][tail] != -1) & _may_go_on(tables, state)[:, None]
  follows = tables["stop"][tail] | (again & tables["again"][tail])
  inside = places.legal(tables, place)
  closes = _closes(tables, state)
  inside = jnp.where(closes, inside & follows, inside)
  return jnp.where((place.number > last)[:, None], follows, inside)


def _closes(tables: Mapping, state: _State) -> Bool[Array, "B A"]:
  """Tells which tokens end the last number of a location."""
  last = len(tables["low"]) - 1
  is_last = (state.place.number == last)[:, None]
  ends = tables["enter"][last] >= 0
  return is_last & ends & (tables["next"][state.place.node] < 0)


def _may_go_on(tables: Mapping, state: _State) -> Bool[Array, " B"]:
  """Tells where the list has room, and a location can come after this one."""
  place, last = state.place, len(tables["low"]) - 1
  value = tables["whole"][place.node]
  is_last = (place.number == last)[:, None]
  whole = places.write_number(place.numbers, place.number, value)
  numbers = jnp.where(is_last, whole, place.numbers)
  zeros = jnp.zeros_like(place.number)
  first = places.least(tables, zeros, numbers, numbers)
  is_behind = place.number > last
  count = state.found.count + ~is_behind  # this one included
  return (first <= tables["high"][0]) & (count < state.found.more.shape[1])


def _judge(
  tables: Mapping,
  state: _State,
  logs: Float[Array, "B A"],
  index: Int[Array, " B"],
) -> Listed:
  """Adds what the choice of a token says about the location, and the list."""
  found, tail = state.found, _tail_node(tables, state)
  is_behind = (state.place.number == len(tables["low"]))[:, None]
  ends = _closes(tables, state) | is_behind
  of_ends = jax.nn.logsumexp(jnp.where(ends, logs, -jnp.inf), axis=1)
  chosen = jnp.take_along_axis(logs, index[:, None], axis=1)[:, 0]
  is_end = jnp.take_along_axis(ends, index[:, None], axis=1)[:, 0]
  gained = jnp.where(is_end, of_ends, chosen)
  again, stop = tables["again"][tail], tables["stop"][tail]
  goes_on = jax.nn.logsumexp(
    jnp.where(ends & again & ~stop, logs, -jnp.inf), axis=1
  )
  decides = is_end & (again ^ stop).any(1) & ~state.done
  item = (found.count - is_behind[:, 0])[:, None]
  here = jnp.arange(found.more.shape[1]) == item
  sums = found.log_probability + jnp.where(here, gained[:, None], 0)
  more = jnp.where(
    here & decides[:, None], jnp.exp(goes_on - of_ends)[:, None], found.more
  )
  writes = ~(state.done[:, None] | is_behind)
  return found._replace(
    log_probability=jnp.where(writes, sums, found.log_probability), more=more
  )


def _advance(
  tables: Mapping,
  state: _State,
  index: Int[Array, " B"],
  advances: Bool[Array, " B"] | None = None,
) -> _State:
  """Moves rows past a legal token: those that are not done, or `advances`."""
  advances = ~state.done if advances is None else advances
  place, num_numbers = state.place, len(tables["low"])
  is_behind = place.number == num_numbers
  tail = _tail_node(tables, state)
  place = places.advance(tables, place, index, advances & ~is_behind)
  closed = advances & ~is_behind & (place.number == num_numbers)
  found = _stored(state.found, place.numbers, closed)
  to = tables["tail"][tail, index]
  moves = closed | (advances & is_behind)
  again = moves & (to == grammar_lib.AGAIN)
  place = places.Place(
    node=jnp.where(moves, jnp.maximum(to, 0), place.node),
    number=jnp.where(again, 0, place.number),
    numbers=jnp.where(again[:, None], 0, place.numbers),
    before=jnp.where(again[:, None], place.numbers, place.before),
  )
  done = state.done | (moves & (to == grammar_lib.STOP))
  return state._replace(place=place, found=found, done=done)


def _stored(
  found: Listed, numbers: Int[Array, "B C"], closed: Bool[Array, " B"]
) -> Listed:
  """Adds the locations that are complete."""
  item = jnp.arange(found.more.shape[1]) == found.count[:, None]
  here = (item & closed[:, None])[..., None]
  return found._replace(
    numbers=jnp.where(here, numbers[:, None], found.numbers),
    count=found.count + closed,
  )

"""Decoding of legal locations only, by the tables of a `grammar.Grammar`.

Greedy decoding takes the likeliest legal token at each step. That need not end
in the likeliest location: a beam keeps several beginnings, the likeliest ones
so far, and takes the likeliest location among those that it ends with.

Where only one token is legal, the model is not asked for it: it enters the
cache in the same step as the token before it (after "22" of 223 bins only a
comma can follow).

Letters: B rows, D width, C numbers of a location, A tokens of the grammar, J
tokens of a step, K beams, N = B * K.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from locvlm_jax.inference import decode, places, sampling
from locvlm_jax.models import kv_cache
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
    log_probability: of the text of each location: the sum over its tokens of
      their log-probability among the tokens that were legal there. Sampling at
      temperature 1 writes just this text so often.
  """

  numbers: Int[np.ndarray, "B C"]
  log_probability: Float[np.ndarray, " B"]


class _Static(NamedTuple):
  """What a program is compiled for; a hashable argument."""

  model: nn.Module
  longest: int  # tokens of a location
  is_sampled: bool  # else the likeliest
  num_beams: int


class _Request(NamedTuple):
  """The arrays of a call."""

  prompt: decode.Prompt
  valid: Bool[ArrayLike, " B"]
  example: Int[ArrayLike, " B"]
  temperature: Float[ArrayLike, ""]
  rng: Key[Array, ""] | None


class _State(NamedTuple):
  """What a decoding step reads and writes."""

  place: places.Place
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
  num_beams: int = 1,
  rng: Key[Array, ""] | None = None,
) -> Located:
  """Continues prompts that end in an open bracket by a legal location.

  Args:
    model: a LocVLM.
    params: its parameters.
    batch: as for `decode.generate`; tokens end after the bracket.
    grammar: which locations are legal.
    temperature: 0 takes the likeliest token at each step, above 0 samples.
    num_beams: K, beginnings that are kept; 1 is greedy. Each costs as much as
      a row does after its prompt.
    rng: a typed key; needed where temperature > 0.

  Raises:
    ValueError: a temperature below 0, no rng for one above, or beams that are
      none, or of samples.
  """
  if temperature < 0:
    raise ValueError(
      f"temperature {temperature} is negative: give 0 (greedy) or more"
    )
  if num_beams < 1 or (num_beams > 1 and temperature > 0):
    raise ValueError(
      f"beams {num_beams} at temperature {temperature}: give 1 beam or more,"
      " and above 1 a temperature of 0"
    )
  sampling.check_rng(temperature, rng)
  rows = batch["tokens"].shape[0]
  # Arrays of numpy, since each small operation of jax is a program of its own.
  request = _Request(
    prompt=decode.Prompt.from_batch(batch),
    valid=batch.get("valid", np.ones(rows, bool)),
    example=batch.get("example", np.arange(rows, dtype=np.int32)),
    temperature=np.float32(temperature),
    rng=rng,
  )
  static = _Static(model, grammar.longest, temperature > 0, num_beams)
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
  if static.num_beams > 1:
    state, hidden = _spread(state, hidden, static.num_beams)
    choose = functools.partial(_choose_beams, static, run, tables)

  def advance(state: _State) -> _State:
    hidden, cache = run(
      state.tokens, state.cache, state.position, method="decode_step"
    )
    last = (state.count - 1)[:, None, None]
    hidden = jnp.take_along_axis(hidden, last, axis=1)[:, 0]
    return choose(state._replace(cache=cache), hidden)

  first = slice(None, None, static.num_beams)  # the likeliest of each row
  # Once it is complete, no other beginning of its row can become likelier.
  state = jax.lax.while_loop(
    lambda s: (s.place.number[first] < len(tables["low"])).any(),
    advance,
    choose(state, hidden),
  )
  return state.place.numbers[first], state.log_probability[first]


def _prefill(
  static: _Static, run: Callable, num_numbers: int, request: _Request
) -> tuple[_State, Float[Array, "B D"]]:
  """Fills the cache with the prompts; their last hidden states come along."""
  cfg, room = static.model.config, static.longest + _STEP
  hidden, cache = decode.fill(cfg, run, request.prompt, room)
  rows = len(hidden)
  zeros = jnp.zeros(rows, jnp.int32)
  place = places.Place(
    node=zeros,
    number=jnp.where(request.valid, 0, num_numbers),
    numbers=jnp.zeros((rows, num_numbers), jnp.int32),
  )
  state = _State(
    place=place,
    tokens=jnp.zeros((rows, _STEP), jnp.int32),
    count=zeros,
    position=request.prompt.ends,
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
  scores = _legal_scores(run, tables, state, hidden)
  index = jnp.argmax(scores, axis=-1)
  if static.is_sampled:
    draw = functools.partial(sampling.draw_token, request.rng, state.step)
    index = jax.vmap(draw)(request.example, scores / request.temperature)
  gained = jnp.take_along_axis(
    jax.nn.log_softmax(scores), index[:, None], axis=1
  )[:, 0]
  unfinished = state.place.number < len(tables["low"])
  sums = state.log_probability + jnp.where(unfinished, gained, 0)
  return _append(tables, state, index, sums)


def _legal_scores(
  run: Callable, tables: Mapping, state: _State, hidden: Float[Array, "B D"]
) -> Float[Array, "B A"]:
  """Computes the scores of the grammar's tokens; illegal ones have -inf."""
  scores = run(hidden, tables["ids"], method="logits")
  return jnp.where(places.legal(tables, state.place), scores, -jnp.inf)


def _append(
  tables: Mapping,
  state: _State,
  index: Int[Array, " B"],
  log_probability: Float[Array, " B"],
) -> _State:
  """Appends a legal token to each row, and its follower if it has only one."""
  num_numbers = len(tables["low"])
  unfinished = state.place.number < num_numbers
  place = places.advance(tables, state.place, index, unfinished)
  legal = places.legal(tables, place)
  forced = (legal.sum(-1) == 1) & (place.number < num_numbers)
  follower = jnp.argmax(legal, axis=-1)
  chosen = jnp.stack([index, follower], axis=1)
  return _State(
    place=places.advance(tables, place, follower, forced),
    tokens=tables["ids"][chosen],
    count=jnp.where(unfinished, 1 + forced, state.count),
    position=state.position + jnp.where(unfinished, state.count, 0),
    log_probability=log_probability,
    step=state.step + 1,
    cache=state.cache,
  )


def _spread(
  state: _State, hidden: Float[Array, "B D"], num_beams: int
) -> tuple[_State, Float[Array, "N D"]]:
  """Repeats each row K times; at first only one of them counts."""
  rows = jnp.repeat(jnp.arange(len(hidden)), num_beams)
  first = jnp.arange(len(rows)) % num_beams == 0
  state = _rows(state, rows)
  state = state._replace(log_probability=jnp.where(first, 0.0, -jnp.inf))
  return state, hidden[rows]


def _rows(state: _State, rows: Int[Array, " N"]) -> _State:
  """Takes rows of a state, some of them several times."""
  taken = jax.tree.map(lambda x: x[rows], state._replace(step=rows))
  return taken._replace(step=state.step)


def _choose_beams(
  static: _Static,
  run: Callable,
  tables: Mapping,
  state: _State,
  hidden: Float[Array, "N D"],
) -> _State:
  """Keeps the K likeliest beginnings of each row, the likeliest first.

  A location that is complete competes as it is.
  """
  beams, num_tokens = static.num_beams, len(tables["ids"])
  scores = _legal_scores(run, tables, state, hidden)
  gained = jnp.where(jnp.isfinite(scores), jax.nn.log_softmax(scores), -jnp.inf)
  complete = state.place.number >= len(tables["low"])
  stays = jnp.where(jnp.arange(num_tokens) == 0, 0.0, -jnp.inf)
  gained = jnp.where(complete[:, None], stays, gained)
  sums = state.log_probability[:, None] + gained
  sums, chosen = jax.lax.top_k(sums.reshape(-1, beams * num_tokens), beams)
  first = jnp.arange(len(chosen))[:, None] * beams  # beam of each row
  parents = (first + chosen // num_tokens).reshape(-1)
  index = (chosen % num_tokens).reshape(-1)
  return _append(tables, _rows(state, parents), index, sums.reshape(-1))

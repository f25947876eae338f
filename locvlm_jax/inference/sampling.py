"""How the next token is chosen from its scores.

Letters: B rows, E ids of a stop, G generated tokens, A alternatives of a token,
V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key


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


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How answers are decoded; the fields of `config.eval` of these names.

  Attributes:
    max_new_tokens: of an answer, at most.
    temperature: 0 is greedy.
    top_k: samples among so many of the likeliest tokens; 0: among all.
    top_p: samples among the likeliest that together reach it.
    stop: texts at which an answer is cut off.
    constrained: questions whose answer is a location get one that can be read.
    beams: of constrained decoding; 1 is greedy.
    zoom: of constrained decoding: a second look at a window so many times as
      large as the box; 0: none.
    max_boxes: of a category in a constrained list, at most.
    seed: of the sampling.
  """

  max_new_tokens: int = 32
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  stop: tuple[str, ...] = ()
  constrained: bool = False
  beams: int = 1
  zoom: float = 0.0
  max_boxes: int = 20
  seed: int = 0

  @classmethod
  def of(cls, evaluation: Any) -> "Decoding":
    """Reads the fields of `config.eval`."""
    names = (field.name for field in dataclasses.fields(cls))
    return cls(**{name: evaluation[name] for name in names})


class Each(NamedTuple):
  """The fields of `Sampling` in which the rows of a batch may differ.

  Attributes:
    limit: tokens of the row, at most; G where that is less.
  """

  temperature: Float[ArrayLike, " B"]
  top_k: Int[ArrayLike, " B"]
  top_p: Float[ArrayLike, " B"]
  limit: Int[ArrayLike, " B"]

  @classmethod
  def of(cls, sampling: Sampling, rows: int) -> "Each":
    """Makes all rows alike."""
    return cls(
      np.full(rows, sampling.temperature, np.float32),
      np.full(rows, sampling.top_k, np.int32),
      np.full(rows, sampling.top_p, np.float32),
      np.full(rows, sampling.max_new_tokens, np.int32),
    )


class Written(NamedTuple):
  """What is generated, and the log-probabilities of it.

  Attributes:
    ids: of the tokens.
    log_probability: of each among all; None where no alternatives were wanted,
      as the following.
    likely: ids of the A likeliest tokens at each place, these first.
    likely_log_probability: theirs.
  """

  ids: Int[ArrayLike, "B G"]
  log_probability: Float[ArrayLike, "B G"] | None = None
  likely: Int[ArrayLike, "B G A"] | None = None
  likely_log_probability: Float[ArrayLike, "B G A"] | None = None


def check_rng(temperature: float, rng: Key[Array, "..."] | None) -> None:
  """Raises ValueError where there is sampling but no key to sample with."""
  if temperature > 0 and rng is None:
    raise ValueError(
      f"temperature {temperature} samples: give rng=jax.random.key(seed)"
    )


def sample(
  each: Each,
  rng: Key[Array, "..."],
  step: Int[Array, ""],
  example: Int[Array, " B"],
  logits: Float[Array, "B V"],
  is_filtered: bool,
) -> Int[Array, " B"]:
  """Draws a token for each row, by the key of that row.

  Args:
    each: how; a row of temperature 0 takes the likeliest token.
    rng: a key, or one for each row.
    step: tokens that are there already.
    example: number that the row's key is folded with.
    logits: scores of the next token.
    is_filtered: whether any row has a top_k or top_p.
  """
  greedy = each.temperature <= 0
  scaled = logits / jnp.where(greedy, 1, each.temperature)[:, None]
  if is_filtered:
    scaled = keep_likely(scaled, each.top_k, each.top_p)
  in_axes = (0 if rng.ndim else None, None, 0, 0)
  drawn = jax.vmap(draw_token, in_axes)(rng, step, example, scaled)
  return jnp.where(greedy, jnp.argmax(logits, axis=-1), drawn).astype(jnp.int32)


def draw_token(
  rng: Key[Array, ""],
  step: Int[Array, ""],
  example: Int[Array, ""],
  logits: Float[Array, " V"],
) -> Int[Array, ""]:
  """Draws an index of `logits` by a key of this example and step alone."""
  key = jax.random.fold_in(jax.random.fold_in(rng, example), step)
  return jax.random.categorical(key, logits)


@jax.jit
def keys(seeds: Int[ArrayLike, " B"]) -> Key[Array, " B"]:
  """Makes a key of each seed, the same as jax.random.key(seed)."""
  return jax.vmap(jax.random.key)(seeds)


def keep_likely(
  logits: Float[Array, "B V"],
  top_k: Int[Array, "*B"],
  top_p: Float[Array, "*B"],
) -> Float[Array, "B V"]:
  """Sets all to -inf but the k likeliest, and of these what reaches p.

  As in transformers (`huggingface/transformers:generation/logits_process.py`),
  whose order these filters have: tokens as likely as the k-th stay, and p is
  reached by probabilities among what the first filter has left.

  Args:
    logits: scores.
    top_k, top_p: of each row, or of all.
  """
  count, vocabulary = logits.shape
  top_k = jnp.broadcast_to(top_k, count)[:, None]
  top_p = jnp.broadcast_to(top_p, count)[:, None]
  order = jnp.argsort(-logits, axis=-1)
  ranked = jnp.take_along_axis(logits, order, axis=-1)
  last = jnp.where(top_k > 0, jnp.minimum(top_k, vocabulary), vocabulary) - 1
  least = jnp.take_along_axis(ranked, last, axis=-1)
  ranked = jnp.where(ranked >= least, ranked, -jnp.inf)
  probabilities = jax.nn.softmax(ranked)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  kept = (before < top_p) | (top_p >= 1)
  rows = jnp.arange(count)[:, None]
  filtered = jnp.full_like(logits, -jnp.inf)
  return filtered.at[rows, order].set(jnp.where(kept, ranked, -jnp.inf))


def describe(
  alternatives: int, token: Int[Array, " B"], logits: Float[Array, "B V"]
) -> Written:
  """Returns a token and, if alternatives are wanted, the probabilities."""
  if not alternatives:
    return Written(token)
  every = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(every, token[:, None], axis=1)[:, 0]
  values, likely = jax.lax.top_k(every, alternatives)
  return Written(token, chosen, likely, values)


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

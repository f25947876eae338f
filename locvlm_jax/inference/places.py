"""Where rows stand in a `grammar.Grammar`, and which tokens may follow.

Letters: B rows, C numbers of a location, A tokens of the grammar.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Place(NamedTuple):
  """Where each row stands in the grammar."""

  node: Int[Array, " B"]  # what is written of the current number
  number: Int[Array, " B"]  # its index; C: the location is complete
  numbers: Int[Array, "B C"]  # those that are written
  # Of the location that this one has to come after; None: it is free.
  before: Int[Array, "B C"] | None = None


def least(
  tables: Mapping,
  number: Int[Array, " B"],
  numbers: Int[Array, "B C"],
  before: Int[Array, "B C"],
) -> Int[Array, " B"]:
  """Returns the least next number of a location that comes after `before`.

  While all numbers are those of `before`, the next one may not be less, and has
  to be greater where no later number can be. After [3,5,8,9], of bins 0 to 9,

    [       may go on with 3, since a later number can be greater
    [3,5,   with 9: after 8, only a number above 9 would be left
    [3,6,   with 0
  """
  order = jnp.arange(numbers.shape[1])
  is_written = order < number[:, None]
  tied = ((numbers == before) | ~is_written).all(1)
  anchor = jnp.clip(before[:, 0], 0, len(tables["shift"]) - 1)
  highest = tables["high"] + tables["shift"][anchor]
  later = order > number[:, None]
  rises = ((before < highest) & later).any(1)
  value = jnp.take_along_axis(before, number[:, None], axis=1)[:, 0]
  lowest = jnp.iinfo(jnp.int32).min
  return jnp.where(tied, jnp.where(rises, value, value + 1), lowest)


def _bounds(
  tables: Mapping,
  number: Int[Array, " B"],
  numbers: Int[Array, "B C"],
  before: Int[Array, "B C"] | None,
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
  """Returns the least and greatest value that the next number may take."""
  number = jnp.minimum(number, len(tables["low"]) - 1)
  anchor = jnp.minimum(numbers[:, 0], len(tables["shift"]) - 1)
  shift = tables["shift"][anchor, number]
  low = tables["low"][number] + shift
  above = tables["above"][number]
  corner = jnp.take_along_axis(numbers, jnp.maximum(above, 0)[:, None], axis=1)
  low = jnp.where(above >= 0, jnp.maximum(low, corner[:, 0]), low)
  if before is not None:
    low = jnp.maximum(low, least(tables, number, numbers, before))
  return low, tables["high"][number] + shift


def _may_become(
  tables: Mapping, node: Int[Array, "B A"], low: Array, high: Array
) -> Bool[Array, "B A"]:
  """Tells whether some number that begins as `node` is within the bounds."""
  intervals = tables["intervals"][jnp.maximum(node, 0)]
  first = jnp.maximum(intervals[..., 0], low[:, None, None])
  last = jnp.minimum(intervals[..., 1], high[:, None, None])
  return (node >= 0) & (first <= last).any(-1)


def legal(tables: Mapping, place: Place) -> Bool[Array, "B A"]:
  """Tells which tokens may follow."""
  last = len(tables["low"]) - 1
  low, high = _bounds(tables, place.number, place.numbers, place.before)
  longer = _may_become(tables, tables["next"][place.node], low, high)
  value = tables["whole"][place.node]
  ends = tables["is_whole"][place.node] & (low <= value) & (value <= high)
  number = jnp.minimum(place.number, last)
  numbers = write_number(place.numbers, number, value)
  enter = tables["enter"][number]
  following = _bounds(tables, number + 1, numbers, place.before)
  enters = _may_become(tables, enter, *following)
  enters = jnp.where((number == last)[:, None], enter >= 0, enters)
  return longer | (ends[:, None] & enters)


def write_number(
  numbers: Int[Array, "B C"], number: Int[Array, " B"], value: Int[Array, " B"]
) -> Int[Array, "B C"]:
  """Writes a value at the index `number` of each row."""
  here = jnp.arange(numbers.shape[1]) == number[:, None]
  return jnp.where(here, value[:, None], numbers)


def advance(
  tables: Mapping,
  place: Place,
  index: Int[Array, " B"],
  advances: Bool[Array, " B"],
) -> Place:
  """Moves the rows where `advances` past a legal token, given by its index."""
  last = len(tables["low"]) - 1
  number = jnp.minimum(place.number, last)
  enter = tables["enter"][number, index]
  longer = tables["next"][place.node, index]
  ends = advances & (longer < 0)
  value = tables["whole"][place.node]
  return Place(
    node=jnp.where(advances, jnp.where(ends, enter, longer), place.node),
    number=place.number + ends,
    numbers=jnp.where(
      ends[:, None], write_number(place.numbers, number, value), place.numbers
    ),
    before=place.before,
  )

"""From categories to an answer that lists all of their locations.

The answer grows by one sentence for each category, which `text.box_lists`
describes. First the model says whether there is any, by the first token in
which the two beginnings of the sentence differ:

  some   cup [          none   no cup.

and where there is, `lists` goes on from the bracket.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Int

from locvlm_jax.inference.answer import Answer, Listing
from locvlm_jax.inference.listing import lists
from locvlm_jax.inference.sampling import Decoding
from locvlm_jax.parallel import sharding
from locvlm_jax.text import box_lists, grammar
from locvlm_jax.text.coords import Coords
from locvlm_jax.text.tokenizer import Tokenizer

_NOTHING = np.zeros((0, 0), int)  # the numbers of no location


def check(decoding: Decoding, name: str) -> None:
  """Refuses what lists can't be decoded with.

  Raises:
    ValueError: beams, or a temperature, of what `name` asks for.
  """
  if decoding.beams > 1 or decoding.temperature:
    raise ValueError(
      f"{name} lists locations greedily, and eval.beams={decoding.beams},"
      f" eval.temperature={decoding.temperature}: ask it with 1 and 0, or"
      " without eval.constrained."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
  """How lists are written: their grammar, and the tokens of other texts."""

  grammar: grammar.ListGrammar
  tokenizer: Tokenizer

  @classmethod
  def of(cls, coords: Coords, text: Tokenizer) -> "Written":
    """Builds the grammar of lists in this form."""
    return cls(grammar.build_list(coords, text), text)

  def beginnings(self, said: str, name: str) -> tuple[list[int], list[int]]:
    """Returns the tokens after the question: there is none, there are some."""
    before = f" {said}" if said else ""
    none = f"{before} {box_lists.opening(name, False)}{box_lists.STOP}"
    some = f"{before} {box_lists.opening(name, True)}["
    return self.tokenizer.encode_after(none), self.tokenizer.encode_after(some)

  def sentence(self, name: str, numbers: Int[ArrayLike, "L C"]) -> str:
    """Writes the sentence of a category with L locations."""
    texts = map(self.grammar.one.text, numbers)
    opening = box_lists.opening(name, len(numbers))
    return opening + box_lists.AGAIN.join(texts) + box_lists.STOP


@dataclasses.dataclass(eq=False)
class _Row:
  """An answer that grows.

  Attributes:
    room: see `Listings.grow`.
    said: its text.
    found: of its categories.
    cut_off: whether the model had more to say, or might have had.
    is_over: whether it takes no more categories.
  """

  room: int | float
  said: str = ""
  found: list[Listing] = dataclasses.field(default_factory=list)
  cut_off: bool = False
  is_over: bool = False

  def take(self, name: str | None, written: Written) -> str | None:
    """Returns the next category if there is one, and room for it."""
    if name is None or self.is_over:
      return None
    needed = max(map(len, written.beginnings(self.said, name)))
    self.is_over = needed > self.room
    self.cut_off |= self.is_over
    return None if self.is_over else name

  def add(self, sentence: str, listing: Listing, most: int) -> None:
    """Adds the sentence of a category."""
    self.said = f"{self.said} {sentence}".strip()
    self.found.append(listing)
    self.cut_off |= len(listing.texts) == most

  @property
  def answer(self) -> Answer:
    """What there is of it."""
    return Answer(self.said, self.cut_off, lists=tuple(self.found))


# Makes a batch of the questions, given the tokens that each answer begins with.
MakeBatch = Callable[[list[list[int]]], dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Listings:
  """A model that lists locations.

  Attributes:
    model: a LocVLM.
    params: its parameters.
    written: how lists are written.
    most: locations of a category, at most.
    least: the probability of there being any above which they are listed.
  """

  model: Any
  params: Mapping
  written: Written
  most: int
  least: float = 0.5

  def answers(
    self, asked: Sequence[Sequence[str]], make_batch: MakeBatch
  ) -> list[Answer]:
    """Answers rows that each ask for some categories, one after the other.

    Args:
      asked: the categories of each row.
      make_batch: see `MakeBatch`.
    """
    *_, found = self.grow(asked, make_batch)
    return found

  def grow(
    self,
    asked: Sequence[Sequence[str]],
    make_batch: MakeBatch,
    rooms: Sequence[int | float] | None = None,
  ) -> Iterator[list[Answer]]:
    """Yields the answers as they grow, by a category at a time.

    Args:
      asked, make_batch: as of `answers`.
      rooms: tokens that each answer may take up to the bracket that opens its
        last list; it ends, cut off, before a category that would need more.
        None: any number.
    """
    rooms = rooms or [math.inf] * len(asked)
    rows = [_Row(room) for room in rooms]
    for names in itertools.zip_longest(*asked):
      fitting = [
        row.take(name, self.written)
        for row, name in zip(rows, names, strict=True)
      ]
      steps = self._step(fitting, [row.said for row in rows], make_batch)
      for row, name, step in zip(rows, fitting, steps, strict=True):
        if name is not None:
          row.add(*step, self.most)
      yield [row.answer for row in rows]

  def _step(self, names, said, make_batch) -> list[tuple[str, Listing]]:
    """Makes the next sentence of each row; rows without a name don't count."""
    begun = [
      self.written.beginnings("" if name is None else text, name or "")
      for text, name in zip(said, names, strict=True)
    ]
    some = self._some(begun, make_batch)
    is_asked = np.array([name is not None for name in names])
    wanted = (some > self.least) & is_asked
    if not wanted.any():
      pairs = zip(names, some.tolist(), strict=True)
      return [self._none(name or "", p) for name, p in pairs]
    batch = make_batch([opening for _, opening in begun])
    batch["valid"] = jnp.logical_and(batch.get("valid", True), wanted)
    found = lists.list_all(
      self.model, self.params, batch, self.written.grammar, self.most
    )
    rows = zip(names, some.tolist(), *map(sharding.fetch, found), strict=True)
    return [self._sentence(*row) for row in rows]

  def _some(self, begun, make_batch) -> np.ndarray:
    """Returns the probability that there is any, by row."""
    same = [_common(none, some) for none, some in begun]
    pairs = zip(begun, same, strict=True)
    ids = np.array([(none[n], some[n]) for (none, some), n in pairs], np.int32)
    openings = [some[:n] for (_, some), n in zip(begun, same, strict=True)]
    batch = make_batch(openings)
    return sharding.fetch(lists.choose(self.model, self.params, batch, ids))

  def _none(self, name: str, some: float) -> tuple[str, Listing]:
    return self.written.sentence(name, _NOTHING), Listing(name, some)

  def _sentence(
    self, name, some, numbers, count, log_probability, more
  ) -> tuple[str, Listing]:
    if not count:
      return self._none(name or "", some)
    texts = np.exp(log_probability[:count]).tolist()
    listing = Listing(name, some, tuple(texts), tuple(more[:count].tolist()))
    return self.written.sentence(name, numbers[:count]), listing


def _common(one: Sequence[int], other: Sequence[int]) -> int:
  """Counts the tokens that two texts begin with alike."""
  pairs = enumerate(zip(one, other, strict=False))
  return next(i for i, (a, b) in pairs if a != b)

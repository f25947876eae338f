"""From categories to an answer that lists all of their locations.

The answer grows by one sentence for each category, which `text.box_lists`
describes. First the model says whether there is any, by the first token in
which the two beginnings of the sentence differ:

  some   cup [          none   no cup.

and where there is, `lists` goes on from the bracket.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
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
  """

  model: Any
  params: Mapping
  written: Written
  most: int

  def answers(
    self, asked: Sequence[Sequence[str]], make_batch: MakeBatch
  ) -> list[Answer]:
    """Answers rows that each ask for some categories, one after the other.

    Args:
      asked: the categories of each row.
      make_batch: see `MakeBatch`.
    """
    said: list[str] = [""] * len(asked)
    found: list[list[Listing]] = [[] for _ in asked]
    full = [False] * len(asked)
    for names in itertools.zip_longest(*asked):
      for row, step in enumerate(self._step(names, said, make_batch)):
        if names[row] is not None:
          sentence, listing = step
          said[row] = f"{said[row]} {sentence}".strip()
          found[row].append(listing)
          full[row] |= len(listing.texts) == self.most
    return [
      Answer(text, cut_off, lists=tuple(listings))
      for text, cut_off, listings in zip(said, full, found, strict=True)
    ]

  def _step(self, names, said, make_batch) -> list[tuple[str, Listing]]:
    """Makes the next sentence of each row; rows without a name don't count."""
    begun = [
      self.written.beginnings(text, name or "")
      for text, name in zip(said, names, strict=True)
    ]
    some = self._some(begun, make_batch)
    wanted = (some > 0.5) & np.array([name is not None for name in names])
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

"""What a model answers: a text, and what is known about it besides."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Listing:
  """How sure a model is of the locations that it lists of a category.

  Attributes:
    label: the category.
    some: probability that there is any, against "no cup".
    texts: that of the text of each location, among all that could come there.
    more: that another location follows, after each.
  """

  label: str
  some: float
  texts: tuple[float, ...] = ()
  more: tuple[float, ...] = ()

  @property
  def scores(self) -> tuple[float, ...]:
    """Multiplies, of each location, that it comes and that it is this one."""
    comes = (self.some, *self.more)
    return tuple(a * b for a, b in zip(comes, self.texts, strict=False))

  @classmethod
  def of(cls, fields: Mapping[str, Any]) -> "Listing":
    """Reads one that json has kept."""
    texts, more = tuple(fields["texts"]), tuple(fields["more"])
    return cls(fields["label"], fields["some"], texts, more)


class Answer(str):
  """The text of an answer, which all that takes a text takes as it is.

  Attributes:
    cut_off: whether the model had more to say than it was allowed tokens.
    probability: of the location in it, where only locations were allowed: that
      of the whole text of the location among all that can be written.
    lists: of an answer that lists locations, where only such lists were
      allowed: in the order of the question.
    refined: the location of a second look, in [0, 1] of the square, which is
      finer than its text.
    unreadable: why a picture of the question could not be used: the text is
      then empty. None: all could.
  """

  __slots__ = ("cut_off", "lists", "probability", "refined", "unreadable")

  def __new__(
    cls,
    text: str,
    cut_off: bool = False,
    probability: float | None = None,
    unreadable: str | None = None,
    lists: Sequence[Listing] | None = None,
    refined: Sequence[float] | None = None,
  ):
    """Makes an answer of a text."""
    answer = super().__new__(cls, text)
    answer.cut_off = cut_off
    answer.probability = probability
    answer.unreadable = unreadable
    answer.lists = lists
    answer.refined = refined
    return answer

  @property
  def details(self) -> dict[str, Any]:
    """Returns what is known besides the text, as json takes it."""
    found = {
      "cut_off": self.cut_off,
      "probability": self.probability,
      "unreadable": self.unreadable,
      "refined": self.refined,
      "lists": self.lists and [dataclasses.asdict(x) for x in self.lists],
    }
    return {name: value for name, value in found.items() if value is not None}


def of(text: str, details: dict[str, Any] | None = None) -> Answer:
  """Makes an answer of a text and `details`, of which it takes what it has."""
  if isinstance(text, Answer):
    return text
  known = details or {}
  lists = known.get("lists")
  return Answer(
    text,
    known.get("cut_off", False),
    known.get("probability"),
    known.get("unreadable"),
    lists and tuple(map(Listing.of, lists)),
    known.get("refined"),
  )

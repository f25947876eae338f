"""What a model answers: a text, and what is known about it besides."""

from typing import Any


class Answer(str):
  """The text of an answer, which all that takes a text takes as it is.

  Attributes:
    cut_off: whether the model had more to say than it was allowed tokens.
    probability: of the location in it, where only locations were allowed: that
      of the whole text of the location among all that can be written.
    unreadable: why a picture of the question could not be used: the text is
      then empty. None: all could.
  """

  __slots__ = ("cut_off", "probability", "unreadable")

  def __new__(
    cls,
    text: str,
    cut_off: bool = False,
    probability: float | None = None,
    unreadable: str | None = None,
  ):
    """Makes an answer of a text."""
    answer = super().__new__(cls, text)
    answer.cut_off = cut_off
    answer.probability = probability
    answer.unreadable = unreadable
    return answer

  @property
  def details(self) -> dict[str, Any]:
    """Returns what is known besides the text, as json takes it."""
    found = {
      "cut_off": self.cut_off,
      "probability": self.probability,
      "unreadable": self.unreadable,
    }
    return {name: value for name, value in found.items() if value is not None}


def of(text: str, details: dict[str, Any] | None = None) -> Answer:
  """Makes an answer of a text and `details`, of which it takes what it has."""
  if isinstance(text, Answer):
    return text
  known = details or {}
  return Answer(
    text,
    known.get("cut_off", False),
    known.get("probability"),
    known.get("unreadable"),
  )

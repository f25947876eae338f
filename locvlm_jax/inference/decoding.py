"""How answers are decoded."""

import dataclasses
from typing import Any


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

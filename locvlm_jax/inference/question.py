"""What a model is asked: a question about pictures, a video, or nothing."""

import dataclasses
from typing import Any

from locvlm_jax.data.records import Turn


@dataclasses.dataclass(frozen=True)
class Question:
  """One question about one image.

  Attributes:
    id: unique within its task: the record's id, then what is asked.
    image: path of the image, or of several in their order.
    question: what the model is asked.
    history: earlier turns of the conversation (in-context examples).
    truth: what the scorer and the report need; only json values. Boxes are
      (x1, y1, x2, y2) in [0, 1] of the model's square input.
    location: whether every right answer is a location.
    mirrored: whether the image is shown with left and right exchanged.
  """

  id: str
  image: str | tuple[str, ...] | None
  question: str
  history: tuple[Turn, ...] = ()
  truth: dict[str, Any] = dataclasses.field(default_factory=dict)
  location: bool = False
  mirrored: bool = False

  @property
  def pictures(self) -> tuple[str, ...]:
    """The paths of all its images."""
    if self.image is None:
      return ()
    return (self.image,) if isinstance(self.image, str) else self.image

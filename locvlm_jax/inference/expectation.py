"""The location that a model expects, over many that are drawn from it."""

import dataclasses

import numpy as np

from locvlm_jax.data.media import images
from locvlm_jax.inference.predictor import Predictor
from locvlm_jax.inference.question import Question


def expect(
  model: Predictor, example: Question, num: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Gives mean and deviation of the location under the model, in [0, 1].

  Each number's mean and standard deviation over `num` legal locations drawn
  from the model. Where it wavers between two places, the mean lies between
  them and the deviation says so.

  Raises:
    BadImage: the picture can't be used.
  """
  draws = [
    dataclasses.replace(example, id=f"{example.id}#{i}") for i in range(num)
  ]
  drawn = model.decoded(temperature=1.0, beams=1, zoom=0.0)
  answers = drawn.locate(draws)
  if answers[0].unreadable:
    raise images.BadImage(answers[0].unreadable)
  values = np.array([model.spec.coords.parse(a)[0] for a in answers])
  return tuple(values.mean(0).tolist()), tuple(values.std(0).tolist())

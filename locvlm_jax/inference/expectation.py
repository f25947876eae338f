"""What a model's probabilities say of the location in an answer.

The location that it expects, over many that are drawn from it; and how likely
the one is that it has written.
"""

import dataclasses

import numpy as np

from locvlm_jax.data.media import images
from locvlm_jax.inference import decode
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


def probability(
  model: Predictor, example: Question, answer: str
) -> float | None:
  """Computes how likely the only location of a free answer is.

  The product over the tokens behind its open bracket, up to the answer's end
  or the word after it, of their probability among all tokens. A location that
  only legal tokens were allowed for has a little more (`constrained.Located`).

  Returns:
    None where the answer has no location, several, or one that can't be read.
  """
  tokens = _located(model, answer)
  if not tokens:
    return None
  before, location = tokens
  batch = dict(model.batch([example], [before + location]))
  length, width = int(batch["lengths"][0]), batch["tokens"].shape[1]
  place = np.arange(width)[None]
  mask = (place >= length - len(location)) & (place < length)
  found = decode.log_likelihood(
    model.model, model.params, batch | {"loss_mask": mask}
  )
  return float(np.exp(found[0]))


def _located(model: Predictor, answer: str) -> tuple[list, list] | None:
  """Splits an answer's tokens at the bracket of its only location."""
  placed = model.spec.coords.parse_all(answer)
  if len(placed) != 1 or placed[0].value is None:
    return None
  encode, (only,) = model.spec.tokenizer.encode_after, placed
  end = only.end + answer[only.end :].startswith(".")
  before = encode(f" {answer[: only.start + 1]}")
  whole = encode(f" {answer[:end]}")
  is_split = whole[: len(before)] == before
  return (before, whole[len(before) :]) if is_split else None

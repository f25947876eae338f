"""Answers spatial questions from the examples before them, without the image.

How much such an answer is right says how much the examples give away. In the
paper's in-context setting the two examples are about the third object and one
of the two that are asked about, and an example that has the asked object in the
same place of the sentence has the answer:

  The dog is on the left side of the ball.
  Which side of the ball is the cup?              left, as the dog is
"""

import functools
import re

from locvlm_jax.inference.question import Question
from locvlm_jax.text import english, prompts


def answer(question: Question, default: str) -> str:
  """Copies the keyword of the example that has the most in common.

  Of the examples with the same subject or the same reference as the question,
  or of all where there is none, it is the last one.

  Args:
    question: of a spatial task; `truth` has the names a and b that it asks
      about.
    default: what is answered without examples.

  Returns:
    "left", "right", "above" or "below".
  """
  a, b = (english.bare(question.truth[name]) for name in ("a", "b"))
  examples = [read_example(said) for _, said in question.history]
  known = [example for example in examples if example]
  shared = [x for x in known if x[0] == a or x[1] == b]
  return (shared or known or [(a, b, default)])[-1][2]


def read_example(answer: str) -> tuple[str, str, str] | None:
  """Reads (a, b, keyword) from the answer of an example; None if it is none.

  >>> read_example("The red cup is above the ball.")
  ('red cup', 'ball', 'above')
  """
  for keyword, pattern in _patterns().items():
    if found := pattern.fullmatch(answer):
      return found["a"], found["b"], keyword
  return None


@functools.cache
def _patterns() -> dict[str, re.Pattern]:
  return {
    keyword: re.compile(
      template.replace("{a}", "(?P<a>.+)").replace("{b}", "(?P<b>.+)")
    )
    for keyword, template in prompts.SPATIAL_ANSWERS.items()
  }

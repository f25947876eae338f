"""Text without images: numbers, order, and left / right / above / below.

It plays the part of LLaMA's corpus: what a language model knows of numbers
and of these words before it sees an image. Categories of both kinds, seen and
held out, are named.

Half of it is reading: a list of things, then questions about it. To find,
among words, what a word names is something an LLM brings to LLaVA.
"""

from locvlm_jax.microworld.scene import CATEGORIES, COLORS
from locvlm_jax.microworld.texts import numbers, places
from locvlm_jax.microworld.texts.wording import (
  Rng,
  draw,
  join,
  pick,
  sentence,
  yes_or_no,
)
from locvlm_jax.text.english import with_article
from locvlm_jax.text.prompts import Turn

_Things = list[tuple[str, str]]  # (category, color)


def text_item(rng: Rng) -> list[Turn]:
  """Makes one conversation: 3-6 turns of random kinds, or a reading."""
  if rng.random() < 0.5:
    return _reading(rng)
  return [pick(rng, _KINDS)(rng) for _ in range(int(rng.integers(3, 7)))]


def _reading(rng: Rng) -> list[Turn]:
  """Makes a list of different things with colors, then 6-9 questions."""
  names = draw(rng, CATEGORIES, int(rng.integers(2, 7)))
  colors = [pick(rng, COLORS) for _ in names]
  things = list(zip(names, colors, strict=True))
  turns = {}
  for _ in range(int(rng.integers(6, 10))):
    turns.setdefault(*pick(rng, _READING_KINDS)(rng, things))
  (first, answer), *rest = turns.items()
  return [(f"{_list(rng, things)} {first}", answer), *rest]


def _list(rng: Rng, things: list[tuple[str, str]]) -> str:
  forms = (
    [with_article(f"{color} {name}") for name, color in things],
    [f"{with_article(name)} is {color}" for name, color in things],
    [f"the {name} is {color}" for name, color in things],
  )
  return sentence(join(pick(rng, forms)))


def _read_color(rng: Rng, things) -> Turn:
  name, color = pick(rng, things)
  question = pick(
    rng, ("What color is the {}?", "What is the color of the {}?")
  )
  return question.format(name), sentence(color)


def _read_category(rng: Rng, things) -> Turn:
  name, color = pick(rng, things)
  if sum(c == color for _, c in things) > 1:
    return _read_color(rng, things)
  question = pick(rng, ("Which object is {}?", "What is the {} object?"))
  return question.format(color), sentence(with_article(name))


def _read_presence(rng: Rng, things) -> Turn:
  true = rng.random() < 0.5
  listed = [name for name, _ in things]
  absent = [c for c in CATEGORIES if c not in listed]
  name = pick(rng, listed if true else absent)
  question = pick(rng, ("Is there {}?", "Can you see {}?"))
  return question.format(with_article(name)), yes_or_no(true)


def _read_list(rng: Rng, things) -> Turn:
  listed = [with_article(f"{color} {name}") for name, color in things]
  question = pick(rng, ("What objects are there?", "What do you see?"))
  return question, sentence(join(listed))


_READING_KINDS = (
  _read_color,
  _read_color,
  _read_color,
  _read_category,
  _read_category,
  _read_presence,
  _read_presence,
  _read_list,
)
_KINDS = (*numbers.KINDS, *places.KINDS)

"""Questions and answers about what moves in a micro-world video."""

import re
from collections.abc import Callable

from locvlm_jax.microworld.scene import Clip, Thing
from locvlm_jax.microworld.texts import naming, questions
from locvlm_jax.microworld.texts.wording import (
  NUMBERS,
  Answer,
  Rng,
  distinct,
  join,
  pick,
  sentence,
  shuffled,
  yes_or_no,
)
from locvlm_jax.text.prompts import Turn


def conversation(clip: Clip, rng: Rng) -> list[Turn]:
  """Makes 4-6 turns about a video: what moves, how many, colors, presence."""
  found = distinct(
    int(rng.integers(4, 7)), lambda: pick(rng, _KINDS)(clip, rng)
  )
  return [
    (re.sub("picture|image", "video", question), pick(rng, (short, full)))
    for question, short, full in found
  ]


def _movers(clip: Clip) -> list[Thing]:
  """Lists the things that move."""
  return [
    t for t, m in zip(clip.frames[0].things, clip.moving, strict=True) if m
  ]


def _what_moves(clip: Clip, rng: Rng) -> Answer:
  question = pick(
    rng, ("What moves?", "What is moving?", "Which object moves?")
  )
  labels = [f"the {naming.label(t)}" for t in shuffled(rng, _movers(clip))]
  who = join(labels) if labels else "nothing"
  verb = "move" if len(labels) > 1 else "moves"
  return Answer(question, sentence(who), sentence(f"{who} {verb}"))


def _how_many_move(clip: Clip, rng: Rng) -> Answer:
  del rng
  number = len(_movers(clip))
  verb = "object moves" if number == 1 else "objects move"
  return Answer(
    "How many objects move?",
    sentence(NUMBERS[number]),
    sentence(f"{NUMBERS[number]} {verb}"),
  )


def _does_move(clip: Clip, rng: Rng) -> Answer:
  things = clip.frames[0].things
  k = int(rng.integers(len(things)))
  moves, what = clip.moving[k], things[k].category
  full = (
    f"Yes, the {what} moves." if moves else f"No, the {what} does not move."
  )
  return Answer(f"Does the {what} move?", yes_or_no(moves), full)


def _mover_color(clip: Clip, rng: Rng) -> Answer | None:
  del rng
  movers = _movers(clip)
  if len(movers) != 1:
    return None
  color = movers[0].color
  return Answer(
    "What color is the moving object?",
    sentence(color),
    sentence(f"the moving object is {color}"),
  )


def _in_first_frame(kind: Callable) -> Callable:
  """Makes a kind of question about a scene one about a video's first frame."""
  return lambda clip, rng: kind(clip.frames[0], rng)


_KINDS = (
  _what_moves,
  _what_moves,
  _how_many_move,
  _does_move,
  _does_move,
  _mover_color,
) + tuple(
  _in_first_frame(k)
  for k in (
    questions.what_objects,
    questions.what_color,
    questions.how_many,
    questions.presence,
    questions.colored_presence,
  )
)

"""Questions and answers about micro-world scenes: the general data.

It plays the part that CLIP's captions, LLaMA's corpus and LLaVA's
conversations play in the paper. Three things are kept out on purpose, because
they are what LocVLM's own objectives must teach: image coordinates appear in
no text about an image; "left" and "right" appear in 0.37 % and 1.13 % of the
conversations, as in LLaVA-Instruct-80K (paper Section 4.2); and no text uses
the held-out evaluation's wordings ("Is there a cup in the image?", "side",
"direction", "relative to").
Only the text without images relates numbers and left / right / above / below.
"""

from collections.abc import Callable

from locvlm_jax.microworld.scene import Scene
from locvlm_jax.microworld.texts import keywords, naming, questions
from locvlm_jax.microworld.texts.wording import (
  Answer,
  Rng,
  distinct,
  join,
  pick,
  sentence,
  shuffled,
)
from locvlm_jax.text.prompts import Turn

_ASKS_WHETHER = (
  "Is there ",
  "Can you see ",
  "Does the picture show ",
  "Does the image show ",
  "How many ",
)


def conversation(
  scene: Scene, rng: Rng, words: tuple[str, ...] = ()
) -> list[Turn]:
  """Makes 6-10 turns of general questions about a picture.

  First whether and how many, last what there is in all: in another order a
  question would be answered by reading the earlier turns, and nothing but the
  image may teach to see.

  Args:
    scene: what the picture shows.
    rng: decides all that is drawn.
    words: of left, right, above and below, that one turn mentions; empty: none.
  """
  wanted = int(rng.integers(5, 10))
  kinds = pick(rng, (questions.KINDS, questions.LOOKUPS))
  answers = _answers(scene, rng, wanted, kinds)
  if words:
    answers[int(rng.integers(len(answers)))] = keywords.answer(
      scene, words, rng
    )
  answers.sort(key=lambda answer: _gives_away(answer.question))
  turns = [(q, pick(rng, (short, short, full))) for q, short, full in answers]
  return [*turns, _description(scene, rng)]


def _gives_away(question: str) -> int:
  """Ranks how much a question and its answer say about those after it."""
  if question.startswith(_ASKS_WHETHER):
    return 0
  return 2 if question in questions.WHAT_OBJECTS else 1


def _description(scene: Scene, rng: Rng) -> Turn:
  question = pick(rng, ("Describe the picture.", "What do you see?"))
  listing = join(naming.groups(scene.things))
  return question, sentence(listing)


def lookups(scene: Scene, rng: Rng) -> list[Turn]:
  """Asks for the colors of all things but one.

  Nothing is asked about scenes that give them away. Only the category that is
  asked for tells which color is right: no two things are alike in either, and
  the last one, known by elimination, is not asked about.
  """
  things = scene.things
  alike = min(len({t.category for t in things}), len({t.color for t in things}))
  if not 2 <= len(things) == alike <= 4:
    return []
  answers = [questions.color_of(t, rng) for t in shuffled(rng, [*things])[1:]]
  return [(answer.question, answer.short) for answer in answers]


def short_questions(scene: Scene, rng: Rng, number: int) -> list[Turn]:
  """Makes distinct questions with answers of one word, for evaluation."""
  answers = _answers(scene, rng, 3 * number, questions.KINDS)
  short = [(x.question, x.short.lower().rstrip(".")) for x in answers]
  return [turn for turn in short if " " not in turn[1]][:number]


def _answers(
  scene: Scene, rng: Rng, wanted: int, kinds: tuple[Callable, ...]
) -> list[Answer]:
  """Draws questions of these kinds about different facts."""
  return distinct(wanted, lambda: pick(rng, kinds)(scene, rng))

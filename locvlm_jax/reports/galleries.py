"""Galleries: answers drawn at random, each with its picture and verdict."""

import copy
import dataclasses
from collections.abc import Sequence

from locvlm_jax.evals import calibration
from locvlm_jax.evals.calibration import Located
from locvlm_jax.reports import answers, headings, pictures
from locvlm_jax.reports.reading import Run


@dataclasses.dataclass(frozen=True)
class Answer:
  """What a model said, and what the scorer said about it."""

  text: str
  verdict: str


@dataclasses.dataclass(frozen=True)
class Tile:
  """One question and how it was answered.

  Attributes:
    picture: the image as a data URI.
    history: question and answer of the turns before.
    question: what was asked.
    answer: of the shown stage.
    correct: whether it counts as correct.
    wanted: the true answer, if it is words and another one was given.
    earlier: the answer of the earlier stage, if that was asked the same.
  """

  picture: str
  history: tuple[tuple[str, str], ...]
  question: str
  answer: Answer
  correct: bool
  wanted: str | None
  earlier: Answer | None


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Some answers of a task; `num_questions` is how many they are drawn from."""

  heading: headings.Heading
  num_questions: int
  tiles: tuple[Tile, ...]


def boxes(run: Run) -> Gallery:
  """Shows predicted boxes, right and wrong ones as often as they happen."""
  rows = answers.of_task(run.answers(run.shown_stage), "locpred")
  return _gallery(run, "locpred", len(rows), answers.draw_boxes(rows))


def wrong_boxes(run: Run) -> Gallery:
  """Shows predicted boxes that the scorer counts as wrong."""
  rows = answers.of_task(run.answers(run.shown_stage), "locpred")
  wrong = [row for row in rows if not answers.is_correct(row)]
  return _gallery(run, "locpred", len(wrong), answers.draw(wrong, 12, "wrong"))


def lists(run: Run) -> Gallery | None:
  """Shows answers that list boxes, of the first such task that was asked."""
  rows = run.answers(run.shown_stage)
  task = next((t for t in headings.LISTS if answers.of_task(rows, t)), None)
  if not task:
    return None
  mine = answers.of_task(rows, task)
  chosen = _expected(answers.draw_lists(mine), calibration.listed(mine))
  return _gallery(run, task, len(mine), chosen)


def _expected(rows: Sequence[dict], boxes: Sequence[Located]) -> list[dict]:
  """Gives boxes the IoU to expect as score; none, where too few tell it."""
  curve = None
  if len(boxes) >= calibration.LEAST:
    curve = calibration.fit(boxes, "", "", 1)
  found = copy.deepcopy(list(rows))
  for box in (box for row in found for box in row["result"]["boxes"]):
    known = curve and box["score"] is not None
    box["score"] = curve.expected(box["score"]) if known else None
  return found


def other_tasks(run: Run) -> tuple[Gallery, ...]:
  """Shows answers of the other tasks that the run has predictions of."""
  found = []
  for task in headings.GALLERIES:
    rows = answers.of_task(run.answers(run.shown_stage), task)
    if rows:
      chosen = answers.draw(rows, 12, task)
      found.append(_gallery(run, task, len(rows), chosen))
  return tuple(found)


def _gallery(run: Run, task: str, num: int, rows: Sequence[dict]) -> Gallery:
  earlier = {_key(row): row for row in run.answers(run.earlier_stage)}
  tiles = tuple(_tile(row, earlier.get(_key(row))) for row in rows)
  return Gallery(headings.heading(task), num, tiles)


def _key(row: dict) -> tuple:
  """What the same question has in common in two stages."""
  return row.get("task"), row.get("id")


def _tile(row: dict, earlier: dict | None) -> Tile:
  correct = answers.is_correct(row)
  return Tile(
    picture=pictures.data_uri(pictures.draw_answer(row)),
    history=tuple((str(q), str(a)) for q, a in row.get("history", [])),
    question=str(row.get("question")),
    answer=_answer(row),
    correct=correct,
    wanted=None if correct else answers.true_answer(row),
    earlier=None if earlier is None else _answer(earlier),
  )


def _answer(row: dict) -> Answer:
  return Answer(answers.short_answer(row), answers.verdict(row))

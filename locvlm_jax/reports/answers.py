"""Rows of predictions.jsonl: which are shown, and what the scorer said."""

import random
from collections.abc import Iterable, Sequence

SEED = 0  # of every random selection on the page
_LONGEST = 160  # characters of an answer that are shown


def of_task(rows: Iterable[dict], task: str) -> list[dict]:
  """Returns the rows of one task."""
  return [row for row in rows if row.get("task") == task]


def draw(rows: Sequence[dict], count: int, salt: str = "") -> list[dict]:
  """Draws `count` rows at random, always the same ones, in random order.

  Args:
    rows: what is drawn from; all of it, where there are no more.
    count: how many.
    salt: selections with different salts are independent.
  """
  rng = random.Random(f"{SEED}/{salt}")
  return rng.sample(list(rows), min(count, len(rows)))


def draw_boxes(rows: Iterable[dict]) -> list[dict]:
  """Draws the answers about boxes that the page and its picture show."""
  return draw(of_task(rows, "locpred"), 24, "locpred")


def draw_lists(rows: Iterable[dict]) -> list[dict]:
  """Draws answers that list boxes, or should: denials have nothing to show."""
  shown = [row for row in rows if _boxes(row) or _objects(row)]
  return draw(shown, 12, "lists")


def _boxes(row: dict) -> Sequence[dict]:
  """Returns the boxes that an answer lists, as the scorer has read them."""
  return row.get("result", {}).get("boxes", ())


def _objects(row: dict) -> Sequence:
  """Returns [category, box, crowd, ...] of all that should be listed."""
  return row.get("truth", {}).get("objects", ())


def is_correct(row: dict) -> bool:
  """Returns whether the scorer counts the answer as correct."""
  return bool(row.get("result", {}).get("correct"))


def verdict(row: dict) -> str:
  """Returns what the scorer said about the answer, in a few words."""
  result = row.get("result", {})
  if "location" in result and result["location"] is None:
    return str(result.get("error") or "no location")
  if "iou" in result:
    return f"IoU {result['iou']:.2f}"
  if "boxes" in result:
    return _of_list(row)
  return "right" if is_correct(row) else "wrong"


def _of_list(row: dict) -> str:
  """Counts what a list has found, and what else it names."""
  right = sum(box["iou"] >= 0.5 for box in _boxes(row))
  wrong = len(_boxes(row)) - right
  wanted = sum(not crowd for _, _, crowd, *_ in _objects(row))
  found = f"{right} of {wanted} found" if wanted else "there is none"
  return f"{found}, {wrong} wrong" if wrong else found


def short_answer(row: dict) -> str:
  """Returns the model's answer, cut where it is long."""
  answer = str(row.get("answer", ""))
  short = answer if len(answer) <= _LONGEST else answer[:_LONGEST] + " …"
  return short or "(nothing)"


def true_answer(row: dict) -> str | None:
  """Returns the annotated answer in words; None where it is a location."""
  truth = row.get("truth", {})
  keys = ["label", "answer"]
  if "location" not in row.get("result", {}):
    keys.append("category")
  return next((str(truth[key]) for key in keys if key in truth), None)

"""Detected boxes in the formats of others: COCO's results, YOLO's labels.

  results.json      [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]
  FOLDER/NAME.txt   a line "class cx cy w h score" each box, in shares of the
                    image; classes count from 0 in the order of the file

A box without a score has 1, as everybody writes who has none. `evaluate` writes
both beside its predictions.jsonl, as TASK_results.json and TASK_labels/.
"""

import json
import os
import shutil
from collections.abc import Sequence

from locvlm_jax import files
from locvlm_jax.evals import predictions
from locvlm_jax.evals.scorers import detection
from locvlm_jax.evals.scorers.detection import Detected
from locvlm_jax.evals.tasks.detection import Detection, detections
from locvlm_jax.evals.tasks.task import Task
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question


def write_beside(folder: str, tasks: Sequence[Task]) -> list[str]:
  """Writes the boxes of predictions.jsonl beside it, of its first seed.

  Args:
    folder: of predictions.jsonl.
    tasks: that were asked; what does not list boxes has no files.

  Returns:
    What there is to say of each, in a line.
  """
  names = [task.name for task in tasks if isinstance(task, Detection)]
  return [_write_task(folder, name) for name in names]


def _write_task(folder: str, task: str) -> str:
  questions, answers = _asked(os.path.join(folder, predictions.FILE), task)
  results = os.path.join(folder, f"{task}_results.json")
  labels = os.path.join(folder, f"{task}_labels", "")
  write(questions, answers, results)
  shutil.rmtree(labels, ignore_errors=True)  # of an earlier evaluation
  try:
    write(questions, answers, labels)
  except ValueError as error:
    return f"boxes of {task}: {results}; no {labels}, since {error}"
  return f"boxes of {task}: {results} (COCO), {labels} (YOLO)"


def _asked(path: str, task: str) -> tuple[list[Question], list[Answer]]:
  """Reads the questions of a task with its first seed, and their answers."""
  with open(path, encoding="utf-8") as f:
    rows = [row for row in map(json.loads, f) if row["task"] == task]
  first = min((row["seed"] for row in rows), default=0)
  rows = [row for row in rows if row["seed"] == first]
  answers = [answers_lib.of(row["answer"], row) for row in rows]
  return [predictions.question(row) for row in rows], answers


def write(
  questions: Sequence[Question], answers: Sequence[str], path: str
) -> None:
  """Writes COCO's results file, or YOLO's where the path ends in "/".

  Raises:
    ValueError: two images would share a file of YOLO's.
  """
  pairs = list(zip(questions, answers, strict=True))
  found = [(q, d) for q, a in pairs for d in detections(q, a)[0]]
  if not path.endswith("/"):
    rows = [_row(q, d) for q, d in found]
    files.write_lines(path, [json.dumps(rows) + "\n"])
    return
  labels = _labels(questions, found)
  os.makedirs(path, exist_ok=True)
  for name, lines in labels.items():
    files.write_lines(os.path.join(path, f"{name}.txt"), lines)


def _row(question: Question, found: Detected) -> dict:
  image = int(found.image) if found.image.isdigit() else found.image
  return detection.result(image, _known_as("ids", question, found), found)


def _known_as(key: str, question: Question, found: Detected) -> int:
  """Returns what the annotations call the category of a box."""
  place = question.truth["names"].index(found.category)
  return question.truth[key][place]


def _labels(questions, found) -> dict[str, list[str]]:
  """Lists the lines of each image's file; one without a box is empty."""
  names, lines = {}, {}
  for question in questions:
    image = question.truth["image"]
    name = os.path.splitext(question.truth["file"])[0]
    if names.setdefault(name, image) != image:
      raise ValueError(
        f"images {names[name]} and {image} would both be {name}.txt: write"
        " COCO's results file instead."
      )
    lines.setdefault(name, [])
  for question, box in found:
    name = os.path.splitext(question.truth["file"])[0]
    lines[name].append(_line(question, box))
  return lines


def _line(question: Question, found: Detected) -> str:
  width, height = question.truth["size"]
  x1, y1, x2, y2 = found.box
  shares = (
    (x1 + x2) / 2 / width,
    (y1 + y2) / 2 / height,
    (x2 - x1) / width,
    (y2 - y1) / height,
  )
  score = 1.0 if found.score is None else found.score
  numbers = " ".join(f"{v:.6f}" for v in shares)
  return f"{_known_as('classes', question, found)} {numbers} {score:.6g}\n"

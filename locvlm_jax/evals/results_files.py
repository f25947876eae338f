"""Detected boxes in the formats of others: COCO's results, YOLO's labels.

  results.json      [{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]
  FOLDER/NAME.txt   a line "class cx cy w h score" each box, in shares of the
                    image; classes count from 0 in the order of the file

A box without a score has 1, as everybody writes who has none.
"""

import json
import os
from collections.abc import Sequence

from locvlm_jax import files
from locvlm_jax.evals.scorers import detection
from locvlm_jax.evals.scorers.detection import Detected
from locvlm_jax.evals.tasks.detection import detections
from locvlm_jax.inference.question import Question


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
  os.makedirs(path, exist_ok=True)
  for name, lines in _labels(questions, found).items():
    files.write_lines(os.path.join(path, f"{name}.txt"), lines)


def _row(question: Question, found: Detected) -> dict:
  image = int(found.image) if found.image.isdigit() else found.image
  return detection.result(image, _known_as("ids", question, found), found)


def _known_as(key: str, question: Question, found: Detected) -> int:
  """Returns what the annotations call the category of a box."""
  place = question.truth["names"].index(found.category)
  return question.truth[key][place]


def _labels(questions, found) -> dict[str, list[str]]:
  """Lists the lines of each image's file; without a box it has none."""
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

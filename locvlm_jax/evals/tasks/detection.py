"""Detection: "Find every cup." -> all boxes, or that there is none.

Not in the paper. What is annotated is compared in pixels of the whole image, as
COCO does, so that an object which the geometry crops away counts as missed.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Record, Records
from locvlm_jax.evals import calibration
from locvlm_jax.evals.scorers import detection
from locvlm_jax.evals.scorers.detection import Detected, Truth
from locvlm_jax.evals.scorers.metrics import Unit, Units, known, mean
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.question import Question
from locvlm_jax.text import box_lists, english, prompts
from locvlm_jax.text.coords import Coords


@dataclasses.dataclass(frozen=True)
class Detection:
  """One question for each category, or for several together, of each image.

  Metrics: COCO's `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` by
  the model's scores, and `ap_unscored` with a score of 1 for every box;
  `f1_50`, `f1_95`, `f1_miou`; `none_right` and `some_right`, how often it says
  rightly that there is none or some; `duplicates`, the share of boxes on an
  object that has one already; `confidence_error` as of `LocPred`;
  `unreadable_boxes`; and how many boxes were listed and annotated, and
  questions asked.

  Attributes:
    name: what its metrics are called by.
    source: what it asks about.
    absent: categories an image that it does not show; None: of every category
      of the file, as COCO's AP wants it, whatever crop or crowd there is; of a
      file that says what was looked for in an image, of these.
    together: categories of a question.
  """

  name: str = "detect"
  source: str = "instances"
  absent: int | None = 2
  together: int = 1
  units: ClassVar[Units] = {
    "ap*": Unit.SHARE,
    "f1_*": Unit.SHARE,
    "none_right": Unit.SHARE,
    "some_right": Unit.SHARE,
    "duplicates": Unit.SHARE,
    "confidence_error": Unit.NUMBER,
    "unreadable_boxes": Unit.COUNT,
    "num*": Unit.COUNT,
  }

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Makes at most `limit` questions.

    Raises:
      ValueError: the model writes points, which no box can be compared with.
    """
    if view.coords.location == "point":
      raise ValueError(
        f"{self.name}: coords.location='point' has no boxes; ask pointing."
      )
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, rng in shuffled(records, view.seed):
      names = self._names(record, view, rng)
      size = self.together
      yield [
        _question(record, names[i : i + size], view)
        for i in range(0, len(names), size)
      ]

  def _names(self, record: Record, view: View, rng) -> list[str]:
    """Draws the categories that an image is asked for."""
    if self.absent is None:
      return [n for n in view.vocabulary if not _is_unknown(n, record)]
    transform = transform_of(record, view.geometry, view.image_size)
    there = objectives.detectable(record, transform)
    missing = objectives.absent(record, view.vocabulary)
    names = [name for name in view.vocabulary if name in there]
    names += [missing[i] for i in rng.permutation(len(missing))[: self.absent]]
    return [names[i] for i in rng.permutation(len(names))]

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns `correct`, `boxes` in pixels with their IoU, `unreadable`."""
    found, unreadable = detections(question, answer)
    truths = truths_of(question)
    ious = {}
    for name in question.truth["names"]:
      mine = [d for d in found if d.category == name]
      there = [(t.box, t.crowd) for t in truths if t.category == name]
      matched = detection.match([d.box for d in mine], there)
      ious |= {d: v for d, v in zip(mine, matched.ious, strict=True)}
    rows = [
      {
        "label": d.category,
        "box": [round(v, 2) for v in d.box],
        "score": d.score,
        "iou": ious[d],
      }
      for d in found
    ]
    wanted = sum(not t.crowd for t in truths)
    right = sum(row["iou"] >= 0.5 for row in rows)
    correct = right == wanted == len(rows)
    return {"correct": correct, "boxes": rows, "unreadable": unreadable}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Computes the metrics named in the class's docstring."""
    pairs = list(zip(questions, answers, strict=True))
    read = [detections(q, a) for q, a in pairs]
    found = [d for part, _ in read for d in part]
    truths = [t for q in questions for t in truths_of(q)]
    matches = detection.group(truths, found)
    doubled = [x for m in matches for x in m.duplicate]
    return known(
      _average_precisions(questions, truths, found)
      | detection.f1_scores(matches)
      | _presence(pairs)
      | {
        "duplicates": mean(doubled),
        "confidence_error": self._confidence_error(pairs),
        "unreadable_boxes": sum(n for _, n in read),
        "num_boxes": len(found),
        "num_objects": sum(not t.crowd for t in truths),
        "num": len(questions),
      }
    )

  def _confidence_error(self, pairs) -> float | None:
    rows = [{"result": self.judge(q, a)} for q, a in pairs]
    points = calibration.reliability(calibration.listed(rows))
    return calibration.error(points)


def _is_unknown(name: str, record: Record) -> bool:
  """Says whether nobody knows all objects of a category in an image.

  Where annotations list what was looked for and is absent, as LVIS does, all
  else was not looked for; and how many a crowd is of was not either.
  """
  if record.absent is None:
    return False
  kept = [o for o in record.objects if o.category == name]
  return any(o.crowd for o in kept) or not (kept or name in record.absent)


def _average_precisions(questions, truths, found) -> dict[str, float | None]:
  """Computes COCO's AP by the scores, if there are any, and without them."""
  images = sorted({q.truth["image"] for q in questions}, key=_as_in_the_file)
  ids = {}
  for q in questions:
    ids |= dict(zip(q.truth["names"], q.truth["ids"], strict=True))
  orders = {"images": images, "categories": sorted(ids, key=ids.get)}
  ap = detection.average_precision
  unscored = ap(truths, found, is_scored=False, **orders)["ap"]
  is_scored = all(d.score is not None for d in found)
  scored = ap(truths, found, **orders) if is_scored else {}
  return {"ap": scored.get("ap"), "ap_unscored": unscored} | scored


def _as_in_the_file(image: str) -> tuple[bool, int, str]:
  """Sorts ids of images as COCO does: numbers by their value."""
  is_number = image.isdecimal()
  return not is_number, int(image) if is_number else 0, image


def _question(record: Record, names: Sequence[str], view: View) -> Question:
  """Asks for every object of some categories."""
  ids = view.category_ids or range(1, len(view.vocabulary) + 1)
  known_as = dict(zip(view.vocabulary, ids, strict=True))
  truth = {
    "image": record.id,
    "names": list(names),
    "ids": [known_as[name] for name in names],
    "classes": [list(view.vocabulary).index(name) for name in names],
    "objects": [
      [o.category, list(o.box), o.crowd, o.area]
      for o in record.objects
      if o.category in names
    ],
    "file": os.path.basename(record.image or ""),
    "size": [record.width, record.height],
    "coords": dataclasses.asdict(view.coords),
    "geometry": view.geometry,
    "image_size": view.image_size,
  }
  name = f"{record.id}/{','.join(names)}"
  return Question(
    name, record.image, prompts.detect(names), truth=truth, listed=tuple(names)
  )


def truths_of(question: Question) -> list[Truth]:
  """Lists what is annotated of the categories of a question."""
  image = question.truth["image"]
  return [
    Truth(image, category, tuple(box), crowd, area)
    for category, box, crowd, area in question.truth["objects"]
  ]


def detections(question: Question, answer: str) -> tuple[list[Detected], int]:
  """Reads the boxes of an answer, in pixels, cut off at the image's edges.

  Boxes of what was not asked for are no detections.

  Returns:
    (boxes, how many could not be read).
  """
  truth = question.truth
  coords = Coords(**truth["coords"])
  read = box_lists.read(answer, coords)
  scores = _scores(answer, len(read.listed))
  transform = geometry.make(
    truth["geometry"], *truth["size"], truth["image_size"]
  )
  names = {_key(name): name for name in truth["names"]}
  found = []
  for (label, box), score in zip(read.listed, scores, strict=True):
    if name := names.get(_key(label)):
      pixels = transform.invert_box(box)
      limits = (*truth["size"], *truth["size"])
      cut = [min(max(v, 0.0), m) for v, m in zip(pixels, limits, strict=True)]
      found.append(Detected(truth["image"], name, tuple(cut), score))
  return found, read.unreadable


def _key(name: str) -> str:
  """Returns what a category and its label in an answer have in common."""
  return english.bare(box_lists.called(name)).casefold()


def _scores(answer: str, num: int) -> Sequence[float | None]:
  """Returns the scores of an answer's boxes, where it has them."""
  lists = answers_lib.of(answer).lists or ()
  scores = [score for listing in lists for score in listing.scores]
  return scores if len(scores) == num else [None] * num


def _presence(pairs) -> dict[str, float | None]:
  """Computes how often an answer says rightly that there is none, or some."""
  right = {True: [], False: []}
  for question, answer in pairs:
    listed = {d.category for d in detections(question, answer)[0]}
    there = {t.category for t in truths_of(question)}
    for name in question.truth["names"]:
      right[name in there].append((name in listed) == (name in there))
  return {"some_right": mean(right[True]), "none_right": mean(right[False])}

"""Images that evaluations ask about, their questions, and known scores."""

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Object, Record
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.text.coords import Coords

BOXES = Coords("ivb", 100, "box")
POINTS = Coords("ivb", 100, "point")
VOCABULARY = ("ball", "bus", "cat", "cup", "dog", "hot dog", "kite", "owl")


def thing(category, box, crowd=False):
  return Object(category, tuple(map(float, box)), crowd)


def record(id="1", turns=(), crowds=(), width=100, **objects):
  """An image 100 high; `cup=(x1, y1, x2, y2)` in pixels, or a list of boxes."""
  found = []
  for category, boxes in objects.items():
    for box in boxes if isinstance(boxes, list) else [boxes]:
      name = category.replace("_", " ")
      found.append(thing(name, box, name in crowds))
  return Record(id, f"{id}.jpg", width, 100, tuple(found), tuple(turns))


# The scene drawn in evals/tasks/spatial.py.
DRAWN = record(
  cup=(5, 10, 30, 40), dog=(5, 60, 30, 90), ball=(70, 60, 90, 80),
  cat=(40, 10, 60, 30),
)  # fmt: skip


def ask(
  task,
  records,
  coords=BOXES,
  limit=None,
  seed=0,
  geometry="square",
  size=100,
  vocabulary=VOCABULARY,
):
  """The questions of a task about these records."""
  view = View(coords, geometry, size, vocabulary, seed)
  return EVALS[task].questions(records, view, limit)


def rate(task, questions, answers):
  """The metrics of these answers."""
  return EVALS[task].score(questions, answers)

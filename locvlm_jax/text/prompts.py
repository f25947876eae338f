"""Every wording, in one versioned file.

The paper's own texts are in its appendices B and E, which are not public, so
these are ours. A template holds slots:

  {obj}     a category or caption without its leading article: "red cup"
  {a_obj}   the same with an article: "a red cup"
  {text}    an expression or caption as it was written: "two red cups"
  {loc}     a location as `coords` writes it
  {a} {b}   two objects of a spatial question

`fill` puts text into the slots. Wordings marked held out are for evaluation
alone: no training text may match `is_held_out`.
"""

import dataclasses
import re
from collections.abc import Sequence

from locvlm_jax.text import english

TEMPLATE_VERSION = "3"  # goes into every result; raise it with any change

Turn = tuple[str, str]  # (question, answer)

# LocPred and NegPred ask the same questions (paper section 3.3).

_WHERE = (
  "Where is the {obj}?",
  "Where is the {obj} in this image?",
  "Where is the {obj} in the image?",
  "Where in the image is the {obj}?",
  "Where can the {obj} be found?",
  "Where do you see the {obj}?",
  "Locate the {obj}.",
  "Locate the {obj} in the image.",
  "Find the {obj}.",
  "Find the {obj} in this image.",
  "Point out the {obj}.",
  "Show me where the {obj} is.",
  "Tell me where the {obj} is.",
  "Can you locate the {obj}?",
  "Can you find the {obj} in the picture?",
  "What is the location of the {obj}?",
  "What is the position of the {obj}?",
  "At what location is the {obj}?",
  "Give the location of the {obj}.",
  "Give the coordinates of the {obj}.",
  "State the coordinates of the {obj} in the image.",
  "What are the coordinates of the {obj}?",
)

LOC_PRED = {
  "box": (
    *_WHERE,
    "Give the bounding box of the {obj}.",
    "What is the bounding box of the {obj}?",
    "Draw a box around the {obj}.",
    "Which box encloses the {obj}?",
  ),
  "point": (
    *_WHERE,
    "Give the centre point of the {obj}.",
    "What is the centre of the {obj}?",
    "Point at the middle of the {obj}.",
    "Which point marks the {obj}?",
  ),
}

# Short, and few: a wording that the question does not determine costs tokens
# and teaches nothing about where things are.
LOC_PRED_ANSWERS = ("It is at {loc}.", "At {loc}.")

# Every one holds "no" or "not" before its first full stop, which is what
# POPE's scorer looks for (RUCAIBox/POPE:evaluate.py).
NEG_PRED_ANSWERS = (
  "There is no {obj} in the image.",
  "There is no {obj}.",
  "There is no {obj} here.",
  "There is no {obj} in this picture.",
  "No {obj} is in the image.",
  "No {obj} can be seen.",
  "The image has no {obj}.",
  "The image shows no {obj}.",
  "I see no {obj} in the image.",
  "The {obj} is not in the image.",
)

_WHAT = (
  "What is at {loc}?",
  "What is at {loc} in this image?",
  "What is located at {loc}?",
  "What do you see at {loc}?",
  "What can be seen at {loc}?",
  "What object is at {loc}?",
  "Which object is at {loc}?",
  "Which object is located at {loc} in the image?",
  "Name the object at {loc}.",
  "Identify the object at {loc}.",
  "Describe {loc}.",
  "Describe the object at {loc}.",
  "Describe what is at {loc}.",
  "Tell me what is at {loc}.",
  "Say what the image shows at {loc}.",
)

REV_LOC = {
  "box": (
    *_WHAT,
    "What is inside the box {loc}?",
    "Describe the region {loc}.",
    "Which object fills the box {loc}?",
    "Name what the box {loc} encloses.",
  ),
  "point": (
    *_WHAT,
    "What is at the point {loc}?",
    "Describe the object around {loc}.",
    "Which object has its centre at {loc}?",
    "Name what lies at the point {loc}.",
  ),
}

REV_LOC_ANSWERS = ("{a_obj}", "{obj}")
REV_LOC_TEXT_ANSWERS = ("{text}",)  # "her left hand" takes no other article

# Every object of a category, or of several: `box_lists` writes the answers.
DETECT = (
  "Find every {obj}.",
  "Find every {obj} in the image.",
  "Find all of these: {obj}.",
  "Detect: {obj}.",
  "List all boxes of: {obj}.",
  "Where are all of these: {obj}?",
)

# ---------------------------------------------------------------- held out

# The wording of POPE and of kahnchana/locvlm's object probe.
PRESENCE = ("Is there {a_obj} in the image?",)
PRESENCE_VIDEO = ("Is there {a_obj} in the video?",)


@dataclasses.dataclass(frozen=True)
class Spatial:
  """A question about where {a} lies from {b}; the answer holds one keyword.

  Attributes:
    axis: "x" or "y".
    question: with the slots {a} and {b}.
    keywords: the answer where {a} has the smaller coordinate, and the larger.
  """

  axis: str
  question: str
  keywords: tuple[str, str]


_X, _Y = ("left", "right"), ("above", "below")

# The choices come in both orders, since a model that knows nothing may repeat
# the one it read first.
_SPATIAL_TEMPLATES = (
  "Which side of the {b} is the {a} on, <> or ><?",
  "In which direction from the {b} is the {a}: <> or ><?",
  "Relative to the {b}, where is the {a}: <> or ><?",
)


def _spatial(
  axis: str, keywords: tuple[str, str], templates: tuple[str, ...]
) -> tuple[Spatial, ...]:
  """Makes each template with its choices in either order."""
  orders = (keywords, keywords[::-1])
  return tuple(
    Spatial(axis, t.replace("<>", one).replace("><", two), keywords)
    for t in templates
    for one, two in orders
  )


# The first is the one wording that the authors published
# (kahnchana/locvlm:dataset/coco_spatial_dataset.py).
SPATIAL_DIRECT = (
  Spatial("x", "Which side of the {b} is the {a}?", _X),
  *_spatial("x", _X, _SPATIAL_TEMPLATES),
  *_spatial("y", _Y, _SPATIAL_TEMPLATES),
)

# Wordings that general data about pictures may hold, and that are asked in
# evaluation as well: a language model of two million parameters understands no
# paraphrase of a question, LLaMA does.
SPATIAL_TRAINED = (
  *_spatial(
    "x",
    _X,
    (
      "Is the {a} <> or >< of the {b}?",
      "Is the {a} to the <> or to the >< of the {b}?",
      "Does the {a} lie <> or >< of the {b}?",
      "Where is the {a} from the {b}, <> or ><?",
    ),
  ),
  *_spatial(
    "y",
    _Y,
    (
      "Is the {a} <> or >< the {b}?",
      "Is the {a} <> the {b} or >< it?",
      "Does the {a} lie <> or >< the {b}?",
      "Where is the {a} from the {b}, <> or ><?",
    ),
  ),
)

# The wordings of the authors' script, by axis.
SPATIAL_RELEASED = {
  "x": SPATIAL_DIRECT[0].question,
  "y": "Where is the {a} relative to the {b}?",
}

# The two answers that a likelihood scorer compares, and the form of the
# answers in the two examples that go before an in-context question.
SPATIAL_ANSWERS = {
  "left": "The {a} is on the left side of the {b}.",
  "right": "The {a} is on the right side of the {b}.",
  "above": "The {a} is above the {b}.",
  "below": "The {a} is below the {b}.",
}


def spatial_icl(
  spatial: Spatial, examples: list[tuple[str, str, str]]
) -> list[Turn]:
  """Makes the turns before an in-context question (paper section 4.2).

  Args:
    spatial: the wording, the same as the final question's.
    examples: (a, b, keyword), two in the paper.
  """
  return [
    (fill(spatial.question, a=a, b=b), fill(SPATIAL_ANSWERS[keyword], a=a, b=b))
    for a, b, keyword in examples
  ]


# What LLaVA 1.5 appends to the questions of GQA and VQAv2
# (LLaVA:docs/Evaluation.md).
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."

COUNT = "How many {obj} are in the image?"
POINT = LOC_PRED["point"][-2]  # as trained

HELD_OUT = (
  COUNT,
  *PRESENCE,
  *PRESENCE_VIDEO,
  *(spatial.question for spatial in SPATIAL_DIRECT),
  *SPATIAL_RELEASED.values(),
)

# ------------------------------------------------------------------ filling

_SLOT = re.compile(r"\{(\w+)\}")


def of_video(template: str) -> str:
  """Turns a wording about an image into one about a video.

  >>> of_video("There is no {obj} in this picture.")
  'There is no {obj} in this video.'
  """
  return re.sub(r"\b(image|picture)\b", "video", template)


def detect(names: Sequence[str], template: str = DETECT[0]) -> str:
  """Asks for every object of some categories.

  >>> detect(["cup", "the plate"])
  'Find every cup, plate.'
  """
  return fill(template, obj=", ".join(map(english.bare, names)))


def fill(
  template: str, *, obj: str = "", loc: str = "", a: str = "", b: str = ""
) -> str:
  """Puts text into the slots of a template, once: never into filled text.

  >>> fill("Where is the {obj}?", obj="the red cup")
  'Where is the red cup?'
  """
  slots = {
    "loc": loc,
    "obj": english.bare(obj),
    "a": english.bare(a),
    "b": english.bare(b),
    "text": obj,
  }
  slots["a_obj"] = english.with_article(obj)
  return _SLOT.sub(lambda m: slots[m[1]], template)


def named(question: str) -> str:
  """Finds what a question of loc_pred asks for; "" in any other question.

  >>> named("Where is the red cup in this image?")
  'red cup'
  """
  templates = (t for texts in LOC_PRED.values() for t in texts)
  found = (re.fullmatch(_of_object(t), question.strip()) for t in templates)
  names = [match[1] for match in found if match]
  return min(names, key=len, default="")


def listed(question: str) -> tuple[str, ...]:
  """Finds of which categories a question asks for every object; () if none.

  >>> listed("Find every cup, plate in the image.")
  ('cup', 'plate')
  """
  found = (re.fullmatch(_of_object(t), question.strip()) for t in DETECT)
  texts = [match[1] for match in found if match]
  names = map(english.bare, min(texts, key=len, default="").split(","))
  return tuple(dict.fromkeys(name for name in names if name))


def _of_object(template: str) -> str:
  """Makes a pattern of a template with one slot, whatever its capitals."""
  before, after = template.split("{obj}")
  return f"(?i:{re.escape(before)})(.+?)(?i:{re.escape(after)})"


def _pattern(template: str) -> re.Pattern:
  words = re.split(_SLOT.pattern, template.lower())[::2]
  return re.compile(".+?".join(map(re.escape, words)))


_HELD_OUT_PATTERNS = tuple(map(_pattern, HELD_OUT))


def is_held_out(text: str) -> bool:
  """Says whether `text` holds a wording that is kept for evaluation."""
  text = text.lower()
  return any(pattern.search(text) for pattern in _HELD_OUT_PATTERNS)

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


def _spatial(axis: str, keywords: tuple[str, str]) -> tuple[Spatial, ...]:
  """Each template with its choices in either order."""
  orders = (keywords, keywords[::-1])
  return tuple(
    Spatial(axis, t.replace("<>", one).replace("><", two), keywords)
    for t in _SPATIAL_TEMPLATES
    for one, two in orders
  )


# The first is the one wording that the authors published
# (kahnchana/locvlm:dataset/coco_spatial_dataset.py).
SPATIAL_DIRECT = (
  Spatial("x", "Which side of the {b} is the {a}?", _X),
  *_spatial("x", _X),
  *_spatial("y", _Y),
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
  """The turns before an in-context question (paper section 4.2).

  Args:
    spatial: the wording, the same as the final question's.
    examples: (a, b, keyword), two in the paper.
  """
  return [
    (
      fill(spatial.question, a=a, b=b),
      fill(SPATIAL_ANSWERS[keyword], a=a, b=b),
    )
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

# After a question that wants no sentence (`LLaVA:docs/Evaluation.md`).
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."

_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"(a|an|the)\s+", re.IGNORECASE)

# Vowels that sound like consonants, and the other way about.
_A = re.compile(r"(uni|ufo|use|usu|ut[ei]|eu|ewe|one\b|once\b|u\b|u-)")
_AN = re.compile(r"(hour|honest|honou?r|heir|[fhlmnrsx](-|\b))")
_PLURAL = re.compile(
  r".*\b(scissors|skis|stairs|pants|jeans|shorts|trousers|glasses|sunglasses"
  r"|goggles|binoculars|headphones|pliers|tweezers|tongs|clothes)"
)


def bare(noun: str) -> str:
  """`noun` without a leading article: "the red cup" -> "red cup"."""
  noun = noun.strip()
  return noun[m.end() :] if (m := _ARTICLE.match(noun)) else noun


def with_article(noun: str) -> str:
  """`noun` with an article: "a cup", "an umbrella", "scissors".

  A noun that brings its own article keeps it.
  """
  noun = noun.strip()
  word = noun.lower()
  if not noun or _ARTICLE.match(noun) or _PLURAL.fullmatch(word):
    return noun
  vowel = word[0] in "aeiou" and not _A.match(word)
  return f"an {noun}" if vowel or _AN.match(word) else f"a {noun}"


_PLURALS = {
  "person": "people", "man": "men", "woman": "women", "child": "children",
  "mouse": "mice", "knife": "knives", "sheep": "sheep", "skis": "skis",
  "scissors": "scissors", "broccoli": "broccoli",
}  # fmt: skip


def plural(noun: str) -> str:
  """The plural of a category: "cup" -> "cups", "wine glass" -> "wine glasses".

  >>> plural("baseball glove"), plural("person"), plural("bus")
  ('baseball gloves', 'people', 'buses')
  """
  rest, space, last = noun.rpartition(" ")
  if last in _PLURALS:
    return rest + space + _PLURALS[last]
  if re.search(r"(s|x|z|ch|sh)$", last):
    return noun + "es"
  if re.search(r"[^aeiou]y$", last):
    return noun[:-1] + "ies"
  return noun + "s"


def of_video(template: str) -> str:
  """A wording about an image, about a video.

  >>> of_video("There is no {obj} in this picture.")
  'There is no {obj} in this video.'
  """
  return re.sub(r"\b(image|picture)\b", "video", template)


a = with_article  # the short name for callers: prompts.a("cup")


def fill(
  template: str, *, obj: str = "", loc: str = "", a: str = "", b: str = ""
) -> str:
  """Puts text into the slots of a template, once: never into filled text.

  >>> fill("Where is the {obj}?", obj="the red cup")
  'Where is the red cup?'
  """
  slots = {"loc": loc, "obj": bare(obj), "a": bare(a), "b": bare(b),
           "text": obj}  # fmt: skip
  slots["a_obj"] = with_article(obj)
  return _SLOT.sub(lambda m: slots[m[1]], template)


def _pattern(template: str) -> re.Pattern:
  words = re.split(_SLOT.pattern, template.lower())[::2]
  return re.compile(".+?".join(map(re.escape, words)))


_HELD_OUT_PATTERNS = tuple(map(_pattern, HELD_OUT))


def is_held_out(text: str) -> bool:
  """Whether `text` holds a wording that is kept for evaluation."""
  text = text.lower()
  return any(pattern.search(text) for pattern in _HELD_OUT_PATTERNS)


# ------------------------------------------------------ conversation formats

EOS = "</s>"  # stands for the tokenizer's own, whatever its name


@dataclasses.dataclass(frozen=True)
class Format:
  """How a conversation becomes text; <img> is where the image goes.

    {start}<img>\\n{question}{assistant} {answer}{end}{user}{question}...

  Attributes:
    name: the key in FORMATS; LLaVA's `--version`.
    start: the text before the first question and its image.
    user: the text before a later question.
    assistant: the text after a question.
    end: what follows an answer, is trained with it and stops generation;
      EOS in it is the token.
    bos: whether a later question has a token of its own that starts it.
    questions: False where an image stands alone and its caption follows.
  """

  name: str
  start: str = ""
  user: str = "USER: "
  assistant: str = " ASSISTANT:"
  end: str = EOS
  bos: bool = False
  questions: bool = True


def _chat(who: str) -> str:
  return (
    f"A chat between a curious {who} and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the"
    f" {who}'s questions."
  )


_LLAMA_2 = (
  "You are a helpful language and vision assistant. You are able to understand"
  " the visual content that the user provides, and assist the user with a"
  " variety of tasks using natural language."
)

# Facts from LLaVA:llava/conversation.py and llava/train/train.py. There,
# "plain" appends no end-of-text token, and "v0" is rendered with line breaks
# for training and without them for evaluation: here always as in training.
FORMATS = {
  f.name: f
  for f in (
    Format("plain", user="", assistant="", end="\n", questions=False),
    Format(
      "v0",
      start=_chat("human") + "\n\n### Human: ",
      user="Human: ",
      assistant="\n### Assistant:",
      end="\n###",
    ),
    Format("v1", start=_chat("user") + " USER: "),
    Format(
      "llama_2",
      start=f"[INST] <<SYS>>\n{_LLAMA_2}\n<</SYS>>\n\n",
      user="[INST] ",
      assistant=" [/INST]",
      end=" " + EOS,
      bos=True,
    ),
    Format("bare", start="USER: "),  # ours: v1 without the system text
  )
}

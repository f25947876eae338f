"""VQA's accuracy against ten human answers, equal to the official script's.

An answer scores min(1, n / 3), n the number of other annotators who gave it,
averaged over leaving out each annotator. With 3 of 10 annotators in agreement:

  left out        matches among the other nine    score
  one of the 3    2                               2/3     three times
  one of the 7    3                               1       seven times
                                                  -> 0.9

Both sides are normalized first, but only where the annotators disagree: where
all ten wrote "2", the answer "two" is wrong
(`GT-Vision-Lab/VQA:PythonEvaluationTools/vqaEvaluation/vqaEval.py`).
"""

import collections
import re
from collections.abc import Sequence

from locvlm_jax.evals.scorers.metrics import Unit

UNITS = {"accuracy": Unit.PERCENT, "accuracy.*": Unit.PERCENT}
_NUMBERS = {
  word: str(i)
  for i, word in enumerate(
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
     "nine", "ten")
  )
} | {"none": "0"}  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_COMMA = re.compile(r"\d,\d")
# Meant to spare the point of "2.5" alone, it also spares the one of ".5".
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = int(re.UNICODE)  # given as a flag, it arrives as the count: 32

# What the official table can write with an apostrophe; it finds each with any
# single apostrophe left out. Those with a capital ("Im") never meet a word in
# lower case.
_APOSTROPHES = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
  hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd
  it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
  not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
  shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
  someone'll someone's something'd something'd've something'll that's there'd
  there'd've there're there's they'd they'd've they'll they're they've 'twas
  wasn't we'd've we've weren't what'll what're what's what've when's where'd
  where's where've who'd who'd've who'll who's who've why'll why're why's won't
  would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
  you're you've
"""


def _one_left_out(word: str) -> list[str]:
  places = [i for i, letter in enumerate(word) if letter == "'"]
  return [word[:i] + word[i + 1 :] for i in places]


_CONTRACTIONS = {
  short: word for word in _APOSTROPHES.split() for short in _one_left_out(word)
} | {"somebody'd": "somebodyd"}  # the table has this one the wrong way round


def strip_lines(answer: str) -> str:
  """Turns line breaks and tabs into spaces, with none at either end."""
  return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize(answer: str) -> str:
  """Applies the official normalization: punctuation, case, numbers, articles.

  A mark of punctuation vanishes where the answer has it beside a space or has
  a number like 1,000; elsewhere it becomes a space.

  >>> normalize("The two t-shirts.")
  '2 t shirts'
  >>> normalize("dont know - 1,000?")
  "don't know 1000"
  """
  text = answer
  thousands = _NUMBER_COMMA.search(answer)
  for mark in _PUNCTUATION:
    beside = mark + " " in answer or " " + mark in answer
    text = text.replace(mark, "" if beside or thousands else " ")
  text = _PERIOD.sub("", text, count=_MOST_PERIODS)
  words = (_NUMBERS.get(word, word) for word in text.lower().split())
  words = (word for word in words if word not in _ARTICLES)
  return " ".join(_CONTRACTIONS.get(word, word) for word in words)


def evalai(answer: str) -> str:
  """Applies LLaVA's processor of answers that go to the EvalAI server.

  Lower case and without "," and "?" before all else, an ending 's apart, and
  then `normalize`; whatever the annotators said
  (`haotian-liu/LLaVA:llava/eval/m4c_evaluator.py`).

  >>> evalai("The dog's, 1,000?")
  "dog 's 1000"
  """
  text = answer.lower().replace(",", "").replace("?", "")
  return normalize(strip_lines(text.replace("'s", " 's").strip()))


def accuracy(answer: str, humans: Sequence[str]) -> float:
  """Computes the accuracy of one answer, in [0, 1].

  Args:
    answer: the model's.
    humans: the annotators' answers, ten of them in VQA.

  Raises:
    ValueError: no human answers.
  """
  if not humans:
    raise ValueError("VQA's accuracy needs human answers; this one has none.")
  answer, humans = strip_lines(answer), [strip_lines(h) for h in humans]
  if len(set(humans)) > 1:
    answer, humans = normalize(answer), [normalize(h) for h in humans]
  same = humans.count(answer)
  scores = [min(1.0, (same - (human == answer)) / 3) for human in humans]
  return sum(scores) / len(scores)


def scores(
  answers: Sequence[str], humans: Sequence[Sequence[str]], kinds: Sequence[str]
) -> dict[str, float]:
  """Computes `accuracy` and `accuracy.KIND`, in percent as the official script.

  Args:
    answers: the model's.
    humans: the annotators' for each of them.
    kinds: the answer type of each question ("yes/no", "number", "other").
  """
  groups = collections.defaultdict(list)
  for answer, truth, kind in zip(answers, humans, kinds, strict=True):
    value = accuracy(answer, truth)
    groups["accuracy"].append(value)
    groups[f"accuracy.{kind}"].append(value)
  return {name: _percent(values) for name, values in groups.items()}


def _percent(values: Sequence[float]) -> float:
  return round(100 * float(sum(values)) / len(values), 2)

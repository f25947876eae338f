"""Scores of any model's answers, read from a file.

Predictions are json lines or a json list of rows with an id (question_id,
questionId or id) and a text (text, answer, prediction or pred): LLaVA's answer
files, and the upload formats of VQA and GQA. POPE's, which have no id, are
taken in the order of the questions. `evaluate` writes its questions beside its
answers, so that its own file needs no references.
"""

import dataclasses
import datetime
import json
import os
import sys
from collections.abc import Sequence

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.question_view import View
from locvlm_jax.data.sources import refer
from locvlm_jax.data.sources.questions import read as read_questions
from locvlm_jax.evals import judging, predictions, results_files
from locvlm_jax.evals.scorers import gqa_scores, judge, vqa_accuracy
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.tasks.benchmark import Benchmark, to_question
from locvlm_jax.evals.tasks.detection import Detection
from locvlm_jax.evals.tasks.region import Region
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.question import Question
from locvlm_jax.text.coords import Coords

_IDS = ("question_id", "questionId", "id")
_TEXTS = ("text", "answer", "prediction", "pred")


@dataclasses.dataclass(frozen=True)
class Request:
  """What is scored, and how.

  Attributes:
    task: a name of `EVALS`.
    predictions: the file of the answers.
    references: the benchmark's file of questions, or of expressions; "" for
      predictions of `evaluate`.
    answers: the benchmark's file of answers, where they stand apart; of GQA
      the valid and plausible ones.
    upload: a file to write for the benchmark's server; "" for none.
    judge_url: of a service with /chat/completions that judges open answers; ""
      for none.
    judge_model: the model of that service.
    judge_protocol: how it is asked, a name of `judge.PROTOCOLS`.
    judge_requests: how many answers it is asked about at once.
    verdicts: the file that its verdicts are written to as they come; "": one
      beside the predictions.
  """

  task: str
  predictions: str
  references: str = ""
  answers: str = ""
  upload: str = ""
  judge_url: str = ""
  judge_model: str = ""
  judge_protocol: str = "locvlm"
  judge_requests: int = 8
  verdicts: str = ""


def score(request: Request) -> dict:
  """Scores a file of answers; with a judge, adds its name and the date.

  Raises:
    ValueError: an unknown task, or files that do not fit together.
    DataError: a file is missing or malformed.
  """
  if request.task not in EVALS:
    names = ", ".join(sorted(EVALS))
    raise ValueError(f"task {request.task!r}: not one of {names}.")
  task, path = EVALS[request.task], request.predictions
  rows = _rows(path)
  if request.references:
    questions = _references(task, request.references, request.answers)
    answers = _in_order(questions, rows, path)
  else:
    questions, answers = _of_evaluate(task, rows, path)
  if request.upload:
    _write_upload(task, questions, answers, request.upload)
  metrics = _scores(task, questions, answers, path)
  if request.judge_url:
    metrics |= _judged(request, questions, answers)
  return metrics


def _scores(task, questions, answers, path: str) -> dict:
  """Scores answers; rows of evaluate hold all that it needs of questions.

  Raises:
    DataError: somebody has changed these rows.
  """
  try:
    return task.score(questions, answers)
  except (KeyError, TypeError, AttributeError, IndexError) as e:
    raise errors.DataError(
      f"{path}: its questions lack what {task.name} is scored by ({e!r})."
    ) from None


def _rows(path: str) -> list[dict]:
  try:
    rows = reading.read_json(path)
  except errors.DataError:
    rows = reading.read_jsonl(path)
  rows = [rows] if isinstance(rows, dict) else rows  # a single line
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise ValueError(f"{path}: neither json lines nor a list of rows.")
  return rows


def _references(task, path: str, answers: str) -> list[Question]:
  """Reads the questions of a benchmark, without their images."""
  if isinstance(task, Benchmark):
    return [to_question(q) for q in read_questions(task.name, path, answers)]
  if not isinstance(task, Region):
    raise ValueError(
      f"{task.name} makes its own questions: score the predictions.jsonl of"
      " evaluate, without --references."
    )
  split = task.source.partition("_")[2]
  records = refer.Regions(path, os.path.dirname(os.path.abspath(path)), split)
  # Only the references are needed: how the questions put boxes is no matter.
  view = View(Coords("ivb", 224, "box"), "square", 224, (), seed=0)
  return task.questions(records, view)


def _in_order(questions, rows, path: str) -> list[str]:
  """Puts the answers into the order of the questions."""
  said = [_first(row, _TEXTS, i, path) for i, row in enumerate(rows, 1)]
  if not any(key in row for row in rows for key in _IDS):
    if len(rows) != len(questions):
      raise ValueError(
        f"{path}: {len(rows)} answers without ids to {len(questions)}"
        " questions."
      )
    return said
  ids = [_first(row, _IDS, i, path) for i, row in enumerate(rows, 1)]
  answers = _once(ids, said, path)
  if others := len(answers.keys() - {q.id for q in questions}):
    print(f"{path}: {others} answers to other questions", file=sys.stderr)
  if missing := [q.id for q in questions if q.id not in answers]:
    raise ValueError(
      f"{path}: {len(missing)} of {len(questions)} questions have no answer;"
      f" the first is {missing[0]}."
    )
  return [answers[q.id] for q in questions]


def _once(ids, answers, path: str) -> dict[str, str]:
  """Joins ids and answers; one that is there twice has to be the same."""
  found = {}
  for number, answer in zip(ids, answers, strict=True):
    if found.setdefault(number, answer) != answer:
      raise ValueError(
        f"{path}: question {number} has two answers: {found[number]!r:.50} and"
        f" {answer!r:.50}."
      )
  return found


def _first(row: dict, keys: Sequence[str], line: int, path: str) -> str:
  for key in keys:
    if key in row and row[key] is None:
      raise ValueError(f'{path}: row {line}: {key} is null. Give "" for none.')
    if key in row:
      return reading.word(row, key, f"{path}: row {line}")
  raise ValueError(f"{path}: row {line} has none of {', '.join(keys)}.")


def _of_evaluate(task, rows, path: str) -> tuple[list[Question], list[str]]:
  """Reads questions and answers of `evaluate`, those of its first seed."""
  mine = [r for r in rows if r.get("task") == task.name]
  if not mine or "truth" not in mine[0]:
    raise ValueError(
      f"{path}: no answers of evaluate to {task.name}; give --references."
    )
  try:
    mine = [r for r in mine if r["seed"] == mine[0]["seed"]]
    questions = [predictions.question(r) for r in mine]
  except (KeyError, TypeError, ValueError) as e:
    raise errors.DataError(f"{path}: not what evaluate writes ({e!r}).") from e
  said = [_first(r, ("answer",), i, path) for i, r in enumerate(mine, 1)]
  for i, question in enumerate(questions, 1):
    reading.text({"id": question.id}, "id", f"{path}: row {i} of {task.name}")
  _once([q.id for q in questions], said, path)
  answers = {
    q.id: (q, answers_lib.of(a, r))
    for q, a, r in zip(questions, said, mine, strict=True)
  }
  if unread := len({r["id"] for r in mine if "unreadable" in r}):
    print(
      f"{path}: {unread} questions have no answer: their pictures could not be"
      " used.",
      file=sys.stderr,
    )
  return [q for q, _ in answers.values()], [a for _, a in answers.values()]


def _write_upload(task, questions, answers, path: str) -> None:
  """Writes what the server of VQA or GQA takes, or COCO's or YOLO's boxes."""
  if isinstance(task, Detection):
    results_files.write(questions, answers, path)
    return
  pairs = list(zip(questions, answers, strict=True))
  if task.name == "vqav2":
    rows = [
      {"question_id": int(q.id), "answer": vqa_accuracy.evalai(a)}
      for q, a in pairs
    ]
  elif task.name == "gqa":
    rows = [
      {"questionId": q.id, "prediction": gqa_scores.from_text(a)}
      for q, a in pairs
    ]
  else:
    raise ValueError(
      f"{task.name} has no upload format; vqav2, gqa and detect have."
    )
  with open(path, "w", encoding="utf-8") as f:
    json.dump(rows, f)


def _judged(request: Request, questions, answers) -> dict:
  """Asks a language model about the answers; adds its name and the date."""
  if not request.judge_model:
    raise ValueError("--judge_url needs --judge_model.")
  if "answers" not in questions[0].truth:
    raise ValueError(f"{request.task} has exact scores: no judge is asked.")
  protocol = judge.PROTOCOLS[request.judge_protocol]
  asked = [
    judging.Asked(q.id, q.question, q.truth["answers"][0], a)
    for q, a in zip(questions, answers, strict=True)
  ]
  path = request.verdicts or (
    f"{request.predictions}.{request.task}.verdicts.jsonl"
  )
  rows = judging.judge_all(
    judge.Judge(request.judge_url, request.judge_model, protocol),
    asked,
    path,
    request.judge_requests,
    lambda line: print(line, file=sys.stderr, flush=True),
  )
  return judging.scores(rows) | {
    "judge": request.judge_model,
    "judge_protocol": protocol.name,
    "judged_on": datetime.date.today().isoformat(),
    "verdicts": path,
  }

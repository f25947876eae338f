"""Scores of any model's answers: `python -m locvlm_jax.evals.score`.

  --task vqav2 --references QUESTIONS --answers ANNOTATIONS --predictions FILE
  --task rd_refcocog_val --references refcocog_val.json --predictions FILE
  --task spatial --predictions runs/b2/predictions.jsonl

Prints json. Predictions are json lines or a json list of rows with an id
(question_id, questionId or id) and a text (text, answer, prediction or pred):
LLaVA's answer files, and the upload formats of VQA and GQA. POPE's, which have
no id, are taken in the order of the questions. `evaluate` writes its questions
beside its answers, so that its own file needs no references.

--upload OUT writes what the benchmark's server takes. --judge_url and
--judge_model let a language model judge open answers, over OpenAI's interface.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.sources import questions, refer
from locvlm_jax.evals.scorers import gqa_scores, judge
from locvlm_jax.evals.scorers import vqa_accuracy as vqa
from locvlm_jax.evals.tasks import EVALS, benchmark, region
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords

_IDS = ("question_id", "questionId", "id")
_TEXTS = ("text", "answer", "prediction", "pred")


def main(argv: Sequence[str]) -> None:
  """Arguments to json."""
  args = _parser().parse_args(argv)
  try:
    print(json.dumps(score(args), indent=2))
  except ValueError as e:
    sys.exit(f"error: {' '.join(str(e).split())}")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m locvlm_jax.evals.score",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add(
    "--task",
    required=True,
    choices=sorted(EVALS),
    metavar="NAME",
    help=", ".join(EVALS),
  )
  add("--predictions", required=True, help="the answers")
  add("--references", help="the benchmark's questions, or expressions")
  add(
    "--answers",
    default="",
    help="its answers, where apart; of GQA the valid and plausible ones",
  )
  add("--upload", help="write what the benchmark's server takes")
  add("--judge_url", help="of a service with /chat/completions")
  add("--judge_model", help="its model")
  return parser


def score(args: argparse.Namespace) -> dict:
  """The metrics; with a judge its name and the date.

  Raises:
    ValueError: files that do not fit together, or that are missing.
  """
  task = EVALS[args.task]
  rows = _rows(args.predictions)
  if args.references:
    examples = _references(task, args.references, args.answers)
    said = _joined(examples, rows, args.predictions)
  else:
    examples, said = _own(task, rows, args.predictions)
  if args.upload:
    _write_upload(task, examples, said, args.upload)
  metrics = task.score(examples, said)
  if args.judge_url:
    metrics |= _judged(args, examples, said)
  return metrics


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
  """One example a question, without its image."""
  if isinstance(task, benchmark.Benchmark):
    found = questions.read(task.name, path, answers)
    return [benchmark.asked(q) for q in found]
  if not isinstance(task, region.Region):
    raise ValueError(
      f"{task.name} makes its own questions: score the predictions.jsonl of"
      " evaluate, without --references."
    )
  split = task.source.partition("_")[2]
  records = refer.Regions(path, os.path.dirname(os.path.abspath(path)), split)
  form = coords.Coords("ivb", 224, "box")  # of the question, which is not read
  return task.examples(records, form, "square", 224, (), seed=0)


def _joined(examples, rows, path: str) -> list[str]:
  """The answers in the order of the examples."""
  said = [_first(row, _TEXTS, i, path) for i, row in enumerate(rows, 1)]
  if not any(key in row for row in rows for key in _IDS):
    if len(rows) != len(examples):
      raise ValueError(
        f"{path}: {len(rows)} answers without ids to {len(examples)} questions."
      )
    return said
  ids = [_first(row, _IDS, i, path) for i, row in enumerate(rows, 1)]
  answers = dict(zip(ids, said, strict=True))
  if missing := [e.id for e in examples if e.id not in answers]:
    raise ValueError(
      f"{path}: {len(missing)} of {len(examples)} questions have no answer;"
      f" the first is {missing[0]}."
    )
  return [answers[e.id] for e in examples]


def _first(row: dict, keys: Sequence[str], line: int, path: str) -> str:
  for key in keys:
    if key in row:
      return str(row[key])
  raise ValueError(f"{path}: row {line} has none of {', '.join(keys)}.")


def _own(task, rows, path: str) -> tuple[list[Question], list[str]]:
  """Questions and answers of `evaluate`, of its first seed."""
  mine = [r for r in rows if r.get("task") == task.name]
  if not mine or "truth" not in mine[0]:
    raise ValueError(
      f"{path}: no answers of evaluate to {task.name}; give --references."
    )
  mine = [r for r in mine if r["seed"] == mine[0]["seed"]]
  examples = [
    Question(
      r["id"],
      None,
      r["question"],
      tuple(tuple(t) for t in r["history"]),
      r["truth"],
    )
    for r in mine
  ]
  return examples, [r["answer"] for r in mine]


def _write_upload(task, examples, said, path: str) -> None:
  pairs = list(zip(examples, said, strict=True))
  if task.name == "vqav2":
    rows = [
      {"question_id": int(e.id), "answer": vqa.evalai(a)} for e, a in pairs
    ]
  elif task.name == "gqa":
    rows = [
      {"questionId": e.id, "prediction": gqa_scores.from_text(a)}
      for e, a in pairs
    ]
  else:
    raise ValueError(f"{task.name} has no upload format; vqav2 and gqa have.")
  with open(path, "w", encoding="utf-8") as f:
    json.dump(rows, f)


def _judged(args, examples, said) -> dict:
  """What a model says of the answers, which model, and when."""
  if not args.judge_model:
    raise ValueError("--judge_url needs --judge_model.")
  if "answers" not in examples[0].truth:
    raise ValueError(f"{args.task} has exact scores: no judge is asked.")
  ask = judge.Judge(args.judge_url, args.judge_model)
  verdicts = []
  for i, (example, answer) in enumerate(zip(examples, said, strict=True)):
    verdicts.append(ask(example.question, example.truth["answers"][0], answer))
    if i % 100 == 99:
      print(f"judged {i + 1} of {len(said)}", file=sys.stderr, flush=True)
  return judge.scores(verdicts) | {
    "judge": args.judge_model,
    "judged_on": datetime.date.today().isoformat(),
  }


if __name__ == "__main__":
  main(sys.argv[1:])

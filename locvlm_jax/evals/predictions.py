"""predictions.jsonl: one row for each question, its answer and judgement.

A row is {task, seed, id, image, question, history, answer, truth, result}, with
"size" where the annotation states that of the image, and what
`Answer.details` says of the answer. The rows of an interrupted evaluation are
kept where manifest.json, which has all that the answers depend on, is still the
same; those of unreadable images are asked again, for a file can be mended.
"""

import collections
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from locvlm_jax import files
from locvlm_jax.evals.tasks.task import Task
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question

FILE = "predictions.jsonl"
MANIFEST = "manifest.json"


def row(
  task: Task, question: Question, answer: str, seed: int = 0
) -> dict[str, Any]:
  """Makes the row of one answer; `seed` is the one of the questions."""
  found = {
    "task": task.name,
    "seed": seed,
    "id": question.id,
    "image": question.image,
    "question": question.question,
    "history": [list(turn) for turn in question.history],
    "answer": str(answer),
    **answers_lib.of(answer).details,
    "truth": question.truth,
    "result": task.judge(question, answer),
  }
  if all(question.size):
    found["size"] = list(question.size)
  return found


def question(row: Mapping[str, Any]) -> Question:
  """Reads the question of a row, without its image: it is only scored."""
  history = tuple(tuple(turn) for turn in row["history"])
  return Question(row["id"], None, row["question"], history, row["truth"])


def write(
  out: TextIO,
  task: Task,
  seed: int,
  questions: Sequence[Question],
  answers: Sequence[str],
) -> None:
  """Appends the rows of one batch, and sees to it that they are on disk."""
  for asked, answer in zip(questions, answers, strict=True):
    line = json.dumps(row(task, asked, answer, seed), allow_nan=False)
    out.write(line + "\n")
  out.flush()


def part_name(task: str, seed: int) -> str:
  """Names the answers to one task's questions of one seed."""
  return f"{task}, seed {seed}"


def resume(folder: str, manifest: Mapping) -> dict[str, dict[str, Answer]]:
  """Reads the answers that an earlier run with the same manifest has left.

  Afterwards predictions.jsonl has the rows of these answers and no others, and
  manifest.json is `manifest`.

  Returns:
    {part_name: {id of the question: answer}}.
  """
  path, about = os.path.join(folder, FILE), os.path.join(folder, MANIFEST)
  lines, answers = [], {}
  if os.path.exists(path) and _read(about) == json.loads(json.dumps(manifest)):
    lines, answers = finished(path)
  files.write_lines(path, lines)
  files.write_json(about, manifest)
  if lines:
    print(f"{len(lines)} answers are there already", flush=True)
  return answers


def _read(path: str) -> object:
  """Reads json; None where there is no such file."""
  if not os.path.exists(path):
    return None
  with open(path, encoding="utf-8") as f:
    return json.load(f)


def finished(path: str) -> tuple[list[str], dict[str, dict[str, Answer]]]:
  """Reads the whole lines of a file of rows, and their answers.

  The last line may have been cut off by a kill. Rows about images that could
  not be used are left out.

  Returns:
    (lines, {part_name: {id of the question: answer}}).
  """
  lines, answers = [], collections.defaultdict(dict)
  with open(path, encoding="utf-8") as f:
    for line in f:
      try:
        found = json.loads(line)
        if "unreadable" in found:
          continue
        part = part_name(found["task"], found["seed"])
        answers[part][found["id"]] = answers_lib.of(found["answer"], found)
      except (json.JSONDecodeError, KeyError, TypeError):
        break
      lines.append(line)
  return lines, dict(answers)

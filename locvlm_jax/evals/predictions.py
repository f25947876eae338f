"""The rows of predictions.jsonl."""

import collections
import json
from typing import Any

from locvlm_jax.evals.tasks import task as task_lib
from locvlm_jax.inference.question import Question


def finished(path: str) -> tuple[list[str], dict[tuple[str, int], dict]]:
  """(whole lines of a file of rows, {(task, seed): {id: answer}}).

  The last line may have been cut off by a kill.
  """
  lines, answers = [], collections.defaultdict(dict)
  with open(path, encoding="utf-8") as f:
    for line in f:
      try:
        row = json.loads(line)
        answers[row["task"], row["seed"]][row["id"]] = row["answer"]
      except (json.JSONDecodeError, KeyError, TypeError):
        break
      lines.append(line)
  return lines, answers


def row(
  task: task_lib.Task, example: Question, answer: str, seed: int = 0
) -> dict[str, Any]:
  """One line of `predictions.jsonl`."""
  return {
    "task": task.name,
    "seed": seed,
    "id": example.id,
    "image": example.image,
    "question": example.question,
    "history": [list(t) for t in example.history],
    "answer": answer,
    "truth": example.truth,
    "result": task.judge(example, answer),
  }


def write(out, task, seed, examples, answers) -> None:
  for example, answer in zip(examples, answers, strict=False):
    line = json.dumps(row(task, example, answer, seed), allow_nan=False)
    out.write(line + "\n")
  out.flush()

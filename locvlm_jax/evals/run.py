"""Asks a model the questions of one task and scores its answers."""

import collections
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO, runtime_checkable

from locvlm_jax.evals.example import Example

GenerateFn = Callable[[Sequence[Example]], Sequence[str]]


@runtime_checkable
class Task(Protocol):
  """What every entry of `EVALS` has.

  `source` says which validation records `examples` wants: "instances",
  "novel" or "conversations". `judge` looks at one answer, `score`
  at all of them.
  """

  name: str
  source: str

  def examples(
    self, records, coords, geometry, image_size, vocabulary, seed, limit=None
  ) -> list[Example]: ...

  def judge(self, example: Example, answer: str) -> dict[str, Any]: ...

  def score(
    self, examples: Sequence[Example], answers: Sequence[str]
  ) -> dict[str, float]: ...


def run(
  task: Task,
  examples: Sequence[Example],
  generate_fn: GenerateFn,
  *,
  batch_size: int,
  done: Mapping[str, str] | None = None,
  seed: int = 0,
  out: TextIO | None = None,
  log: Callable[[str], None] | None = None,
) -> dict[str, float]:
  """Metrics of one task.

  Examples are asked in the order of their lengths, so that little is padding.

  Args:
    task: an entry of `EVALS`.
    examples: what `task.examples` gave.
    generate_fn: `batch_size` examples -> as many answers. Always called with
      full batches, so that it compiles once: the last one is filled up with
      copies of its last example, whose answers are dropped.
    batch_size: examples a call.
    done: answers that are there already, by the example's id.
    seed: of the examples; goes into the rows.
    out: where prediction rows go, one json object a line: {task, seed, id,
      image, question, history, answer, truth, result}.
    log: where progress lines go; None for silence.
  """
  assert batch_size > 0, batch_size
  answers, start = dict(done or {}), time.monotonic()
  waiting = sorted((e for e in examples if e.id not in answers), key=_length)
  for first in range(0, len(waiting), batch_size):
    part = waiting[first : first + batch_size]
    padded = part + [part[-1]] * (batch_size - len(part))
    got = list(generate_fn(padded))
    assert len(got) == batch_size, (len(got), batch_size)
    answers |= {e.id: a for e, a in zip(part, got, strict=False)}
    if out is not None:
      _write(out, task, seed, part, got)
    if log is not None:
      seconds = time.monotonic() - start
      log(_progress(task.name, first + len(part), len(waiting), seconds))
  return task.score(examples, [answers[e.id] for e in examples])


def _length(example: Example) -> int:
  """Characters of the prompt; pictures are alike within a task."""
  turns = sum(len(text) for turn in example.history for text in turn)
  return turns + len(example.question)


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
  task: Task, example: Example, answer: str, seed: int = 0
) -> dict[str, Any]:
  """One line of `predictions.jsonl`."""
  return {
    "task": task.name, "seed": seed, "id": example.id, "image": example.image,
    "question": example.question, "history": [list(t) for t in example.history],
    "answer": answer, "truth": example.truth,
    "result": task.judge(example, answer),
  }  # fmt: skip


def _write(out, task, seed, examples, answers) -> None:
  for example, answer in zip(examples, answers, strict=False):
    line = json.dumps(row(task, example, answer, seed), allow_nan=False)
    out.write(line + "\n")
  out.flush()


def _progress(name: str, done: int, total: int, seconds: float) -> str:
  rate = done / max(seconds, 1e-9)
  left = (total - done) / rate
  return f"eval {name}: {done}/{total}  {rate:.1f}/s  {left:.0f} s left"

"""Asks a model the questions of one task and scores its answers."""

import json
import time
from collections.abc import Callable, Sequence
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
  out: TextIO | None = None,
  log: Callable[[str], None] | None = None,
) -> dict[str, float]:
  """Metrics of one task.

  Args:
    task: an entry of `EVALS`.
    examples: what `task.examples` gave.
    generate_fn: `batch_size` examples -> as many answers. Always called with
      full batches, so that it compiles once: the last one is filled up with
      copies of its last example, whose answers are dropped.
    batch_size: examples a call.
    out: where prediction rows go, one json object a line: {task, id, image,
      question, history, answer, truth, result}.
    log: where progress lines go; None for silence.
  """
  assert batch_size > 0, batch_size
  answers, start = [], time.monotonic()
  for first in range(0, len(examples), batch_size):
    part = list(examples[first : first + batch_size])
    padded = part + [part[-1]] * (batch_size - len(part))
    got = list(generate_fn(padded))
    assert len(got) == batch_size, (len(got), batch_size)
    answers += got[: len(part)]
    if out is not None:
      _write(out, task, part, got)
    if log is not None:
      seconds = time.monotonic() - start
      log(_progress(task.name, len(answers), len(examples), seconds))
  return task.score(examples, answers)


def row(task: Task, example: Example, answer: str) -> dict[str, Any]:
  """One line of `predictions.jsonl`."""
  return {
    "task": task.name, "id": example.id, "image": example.image,
    "question": example.question, "history": [list(t) for t in example.history],
    "answer": answer, "truth": example.truth,
    "result": task.judge(example, answer),
  }  # fmt: skip


def _write(out, task, examples, answers) -> None:
  for example, answer in zip(examples, answers, strict=False):
    out.write(json.dumps(row(task, example, answer), allow_nan=False) + "\n")
  out.flush()


def _progress(name: str, done: int, total: int, seconds: float) -> str:
  rate = done / max(seconds, 1e-9)
  left = (total - done) / rate
  return f"eval {name}: {done}/{total}  {rate:.1f}/s  {left:.0f} s left"

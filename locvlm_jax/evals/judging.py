"""Verdicts of a judge on many answers, several at a time.

Each verdict is a line of json, written as it comes:

  {"id", "key", "judge", "protocol", "reply", "match", "score"}

`key` is a hash of question, true answer, given answer, judge and protocol, so
that the same command goes on with what is missing, and another judge, or other
answers, are never mixed in. A reply without a verdict is kept, with null for
match and score.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from locvlm_jax import files
from locvlm_jax.evals.scorers.judge import Judge
from locvlm_jax.evals.scorers.metrics import known, mean


@dataclasses.dataclass(frozen=True)
class Asked:
  """One answer that is judged."""

  id: str
  question: str
  truth: str
  answer: str


def judge_all(
  judge: Judge,
  asked: Sequence[Asked],
  path: str,
  at_once: int,
  log: Callable[[str], None],
) -> list[dict[str, Any]]:
  """Returns the rows of all answers, in their order.

  Args:
    judge: who is asked.
    asked: the answers.
    path: the file of verdicts; those in it are not asked for again.
    at_once: requests that are under way together.
    log: where progress goes.

  Raises:
    ValueError: the judge failed; what it said until then is in the file.
  """
  keys = [_key(judge, x) for x in asked]
  found = _read(path)
  waiting = {k: x for k, x in zip(keys, asked, strict=True) if k not in found}
  if len(waiting) < len(asked):
    log(f"{len(asked) - len(waiting)} verdicts are in {path} already")
  with open(path, "a", encoding="utf-8") as out:
    for number, row in enumerate(_rows(judge, waiting, at_once), 1):
      out.write(json.dumps(row) + "\n")
      out.flush()
      found[row["key"]] = row
      if number % 100 == 0:
        log(f"judged {number} of {len(waiting)}")
  return [found[key] for key in keys]


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
  """Averages verdicts.

  `judge_accuracy` (a share) and `judge_score` (0 to 5) are those of the
  replies with a verdict; `judge_num` counts all, `judge_unparsable` the others.
  """
  given = [row for row in rows if row["match"] is not None]
  return known(
    {
      "judge_accuracy": mean([row["match"] for row in given]),
      "judge_score": mean([row["score"] for row in given]),
      "judge_num": len(rows),
      "judge_unparsable": len(rows) - len(given),
    }
  )


def _rows(
  judge: Judge, waiting: dict[str, Asked], at_once: int
) -> Iterator[dict[str, Any]]:
  """Yields rows as they come; after a failure those that had begun."""
  failed = threading.Event()

  def row(key: str, asked: Asked) -> dict[str, Any] | None:
    if failed.is_set():
      return None
    try:
      return _row(judge, key, asked)
    except BaseException:
      failed.set()
      raise

  pool, error = concurrent.futures.ThreadPoolExecutor(at_once), None
  try:
    begun = [pool.submit(row, *pair) for pair in waiting.items()]
    for future in concurrent.futures.as_completed(begun):
      error = error or future.exception()
      if not future.exception() and future.result():
        yield future.result()
  finally:
    failed.set()  # also where this process is interrupted
    pool.shutdown(cancel_futures=True)
  if error:
    raise error


def _row(judge: Judge, key: str, asked: Asked) -> dict[str, Any]:
  reply = judge(asked.question, asked.truth, asked.answer)
  verdict = None
  with contextlib.suppress(ValueError):
    verdict = judge.protocol.read(reply)
  return {
    "id": asked.id,
    "key": key,
    "judge": judge.model,
    "protocol": judge.protocol.name,
    "reply": reply,
    "match": verdict.match if verdict else None,
    "score": verdict.score if verdict else None,
  }


def _key(judge: Judge, asked: Asked) -> str:
  of = [judge.model, judge.protocol.name, *dataclasses.astuple(asked)]
  return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:24]


def _read(path: str) -> dict[str, dict[str, Any]]:
  """Reads the whole lines of a file, and cuts off one that a kill left."""
  if not os.path.exists(path):
    return {}
  found, lines = {}, []
  with open(path, encoding="utf-8") as f:
    for line in f:
      try:
        row = json.loads(line)
        found[row["key"]] = {"match": row["match"], "score": row["score"]}
      except (ValueError, KeyError, TypeError):
        break
      lines.append(line)
  files.write_lines(path, lines)
  return found

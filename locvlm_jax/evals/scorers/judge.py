"""A language model that judges open answers, over OpenAI's interface.

Such scores move with the model behind them by several points: its name and the
date belong to the number, and scores of two judges are not comparable.
"""

import dataclasses
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence

from locvlm_jax.evals.scorers.metrics import known, mean

KEY = "LOCVLM_JUDGE_KEY"  # the environment variable with the service's key
_TASK = (
  "You grade answers to questions about a video. Say whether the given answer"
  " means the same as the reference answer; other words for the same thing are"
  ' right. Reply with json alone: {"match": true or false, "score": 0 to 5},'
  " where 5 is a full match."
)


@dataclasses.dataclass(frozen=True)
class Judge:
  """`model` at `url`, which ends in /v1 or the like.

  Raises:
    ValueError: the service cannot be reached, refuses, or sends no verdict.
  """

  url: str
  model: str
  timeout: float = 60.0

  def __call__(
    self, question: str, truth: str, answer: str
  ) -> tuple[bool, float]:
    """Asks for (whether `answer` is right, a score of 0 to 5)."""
    asked = f"Question: {question}\nReference: {truth}\nAnswer: {answer}"
    content = self._complete(
      [{"role": "system", "content": _TASK}, {"role": "user", "content": asked}]
    )
    return verdict(content)

  def _complete(self, messages: list[dict]) -> str:
    body = {"model": self.model, "messages": messages, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
      headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
      self.url.rstrip("/") + "/chat/completions",
      json.dumps(body).encode(),
      headers,
    )
    try:
      with urllib.request.urlopen(request, timeout=self.timeout) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]
    except (OSError, ValueError, LookupError, TypeError) as e:
      raise ValueError(
        f"judge {self.model} at {self.url}: {e}. Give its address up to /v1,"
        f" and its key, where it wants one, in {KEY}."
      ) from None


def verdict(content: str) -> tuple[bool, float]:
  """Reads a judge's reply as (right, a score of 0 to 5).

  Raises:
    ValueError: no verdict in it.
  """
  try:
    found = json.loads(re.search(r"\{.*?\}", content, re.DOTALL)[0])
    return bool(found["match"]), min(5.0, max(0.0, float(found["score"])))
  except (TypeError, KeyError, ValueError):
    raise ValueError(
      f"the judge's reply is no verdict: {content!r:.200}"
    ) from None


def scores(verdicts: Sequence[tuple[bool, float]]) -> dict[str, float]:
  """Averages verdicts: `judge_accuracy` (a share), `judge_score` (0 to 5)."""
  return known(
    {
      "judge_accuracy": mean([match for match, _ in verdicts]),
      "judge_score": mean([score for _, score in verdicts]),
    }
  )

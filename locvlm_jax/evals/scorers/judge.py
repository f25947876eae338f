"""A language model that judges open answers, over OpenAI's interface.

Such scores move with the model behind them by several points: its name and the
date belong to the number, and scores of two judges, or of two protocols, are
not comparable.

  protocol        asks for a reply of                      at a temperature of
  locvlm          {"match": true or false, "score": 0-5}   0
  video_chatgpt   {'pred': 'yes' or 'no', 'score': 0-5}    the service's own

The second is word for word that of the paper's predecessor, down to the score
of 4.8 that it counts as 4
(`mbzuai-oryx/Video-ChatGPT:quantitative_evaluation/evaluate_activitynet_qa.py`).
"""

import ast
import dataclasses
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import NamedTuple

KEY = "LOCVLM_JUDGE_KEY"  # the environment variable with the service's key
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # may pass: asked again
_LONGEST_WAIT = 60.0  # seconds before it is asked again


class Verdict(NamedTuple):
  """What a reply says: whether an answer is right, and a score of 0 to 5."""

  match: bool
  score: float


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How a judge is asked, and how its reply is read.

  Attributes:
    name: of the protocol.
    system: what it is told first.
    question: with the slots {question}, {truth} and {answer}.
    read: a reply -> its verdict; raises ValueError where it has none.
    temperature: of its reply; None: the service's own.
  """

  name: str
  system: str
  question: str
  read: Callable[[str], Verdict]
  temperature: float | None = None

  def messages(self, question: str, truth: str, answer: str) -> list[dict]:
    """Writes the messages that ask about one answer."""
    slots = {"question": question, "truth": truth, "answer": answer}
    asked = re.sub(r"\{(\w+)\}", lambda m: slots[m[1]], self.question)
    return [
      {"role": "system", "content": self.system},
      {"role": "user", "content": asked},
    ]


def read_match(reply: str) -> Verdict:
  """Reads {"match": true, "score": 5}, with whatever around it.

  Raises:
    ValueError: no verdict in it.
  """
  try:
    found = json.loads(re.search(r"\{.*?\}", reply, re.DOTALL)[0])
    score = min(5.0, max(0.0, float(found["score"])))
    return Verdict(bool(found["match"]), score)
  except (TypeError, KeyError, ValueError):
    raise _no_verdict(reply) from None


def read_pred(reply: str) -> Verdict:
  """Reads {'pred': 'yes', 'score': 4.8}; the score counts without fractions.

  As the original does, a reply that is anything else has no verdict.

  Raises:
    ValueError: no verdict in it.
  """
  try:
    found = ast.literal_eval(reply.strip())
    said, score = found["pred"].lower(), float(int(found["score"]))
    if not ("yes" in said or "no" in said):
      raise KeyError(said)
    return Verdict("yes" in said, score)
  except (
    AttributeError, KeyError, MemoryError, OverflowError, RecursionError,
    SyntaxError, TypeError, ValueError,
  ):  # fmt: skip
    raise _no_verdict(reply) from None


def _no_verdict(reply: str) -> ValueError:
  return ValueError(f"the judge's reply is no verdict: {reply!r:.200}")


LOCVLM = Protocol(
  "locvlm",
  "You grade answers to questions about a video. Say whether the given answer"
  " means the same as the reference answer; other words for the same thing are"
  ' right. Reply with json alone: {"match": true or false, "score": 0 to 5},'
  " where 5 is a full match.",
  "Question: {question}\nReference: {truth}\nAnswer: {answer}",
  read_match,
  temperature=0.0,
)
# The words of the original, which the numbers of the paper's Table 6 depend on.
VIDEO_CHATGPT = Protocol(
  "video_chatgpt",
  "You are an intelligent chatbot designed for evaluating the correctness of"
  " generative outputs for question-answer pairs. Your task is to compare the"
  " predicted answer with the correct answer and determine if they match"
  " meaningfully. Here's how you can accomplish the task:------##INSTRUCTIONS:"
  " - Focus on the meaningful match between the predicted answer and the"
  " correct answer.\n- Consider synonyms or paraphrases as valid matches.\n-"
  " Evaluate the correctness of the prediction compared to the answer.",
  "Please evaluate the following video-based question-answer pair:\n\nQuestion:"
  " {question}\nCorrect Answer: {truth}\nPredicted Answer: {answer}\n\nProvide"
  " your evaluation only as a yes/no and score where the score is an integer"
  " value between 0 and 5, with 5 indicating the highest meaningful match."
  " Please generate the response in the form of a Python dictionary string"
  " with keys 'pred' and 'score', where value of 'pred' is  a string of 'yes'"
  " or 'no' and value of 'score' is in INTEGER, not STRING.DO NOT PROVIDE ANY"
  " OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python dictionary"
  " string. For example, your response should look like this:"
  " {'pred': 'yes', 'score': 4.8}.",
  read_pred,
)
PROTOCOLS = {p.name: p for p in (LOCVLM, VIDEO_CHATGPT)}


@dataclasses.dataclass(frozen=True)
class Judge:
  """`model` at `url`, which ends in /v1 or the like; call it for a reply.

  Raises:
    ValueError: the service cannot be reached or refuses, after all tries.

  Attributes:
    url: of the service.
    model: that judges.
    protocol: how it is asked.
    timeout: seconds for one reply.
    tries: how often one question is asked of a service that is busy.
    wait: seconds before the second try; twice as many before each further one.
  """

  url: str
  model: str
  protocol: Protocol = LOCVLM
  timeout: float = 60.0
  tries: int = 6
  wait: float = 1.0

  def __call__(self, question: str, truth: str, answer: str) -> str:
    """Asks about an answer, and returns the reply."""
    messages = self.protocol.messages(question, truth, answer)
    body = {"model": self.model, "messages": messages}
    if self.protocol.temperature is not None:
      body["temperature"] = self.protocol.temperature
    for number in range(1, self.tries + 1):
      try:
        return self._complete(body)
      except (OSError, ValueError, LookupError, TypeError) as error:
        if number == self.tries or not _may_pass(error):
          raise self._failed(error) from None
        time.sleep(_pause(error, self.wait * 2 ** (number - 1)))
    raise AssertionError(self.tries)

  def _complete(self, body: dict) -> str:
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
        text = json.load(reply)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
      error.close()  # it holds the connection
      raise
    if not isinstance(text, str):
      raise TypeError(f"its reply has {text!r:.40} for a text")
    return text

  def _failed(self, error: Exception) -> ValueError:
    return ValueError(
      f"judge {self.model} at {self.url}: {error}. Give its address up to /v1,"
      f" and its key, where it wants one, in {KEY}. The same command goes on"
      " where it stopped."
    )


def _may_pass(error: Exception) -> bool:
  """Tells whether another try may succeed."""
  if isinstance(error, urllib.error.HTTPError):
    return error.code in _BUSY
  return isinstance(error, OSError)


def _pause(error: Exception, usual: float) -> float:
  """Returns the seconds to wait: what the service says, or the usual."""
  said = getattr(error, "headers", None) and error.headers.get("Retry-After")
  seconds = float(said) if said and said.isdigit() else usual
  return min(seconds, _LONGEST_WAIT)

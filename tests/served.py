"""A live server whose answers are written by rule, without a model."""

import base64
import contextlib
import http.client
import io
import json
import queue
import threading
import time
import types

from PIL import Image

from locvlm_jax.inference.confidence import Calibration
from locvlm_jax.serving.batching import Batcher
from locvlm_jax.serving.chat import Served
from locvlm_jax.serving.http import app, requests, web
from locvlm_jax.serving.limits import Limits
from locvlm_jax.serving.rows import DETAILED, LISTED, LOCATED, Part, Token
from locvlm_jax.text.coords import Coords

SMALL = Limits(
  body_bytes=60_000,
  pixels=10_000,
  pictures=2,
  prompt_tokens=20,
  new_tokens=12,
  choices=3,
  categories=3,
  queue=6,
  seconds=20.0,
  read_seconds=0.4,
  connections=40,
)


class Rules:
  """Answers with the last line of the question, word by word.

  A box for located ones, two cups and nothing else for listed ones. `delay`
  seconds go by between two words.
  """

  def __init__(self):
    self.delay, self.batches, self.answers = 0.0, [], {}

  def count(self, question):
    return len(question.question.split()) + 64 * len(question.pictures)

  def text_tokens(self, row):
    turns = sum(len(t.split()) for turn in row.question.history for t in turn)
    return len(row.question.question.split()) + turns

  def is_long(self, row):
    return self.text_tokens(row) > 10

  def write(self, rows, ended):
    self.batches.append(rows)
    if rows[0].kind == LOCATED:
      box = "It is at [24,24,71,71]."
      yield [Part(box, 8, "stop", (), (0.01,)) for _ in rows]
      return
    if rows[0].kind == LISTED:
      for num in range(1, max(len(r.question.listed) for r in rows) + 1):
        yield [self._list(row.question.listed, num) for row in rows]
      return
    longest = max(len(self._words(row)) for row in rows)
    for num in range(1, longest + 1):
      time.sleep(self.delay)
      yield [self._part(row, num) for row in rows]
      if all(ended()):
        return

  def _list(self, names, num):
    cups = "cup [24,24,71,71] [48,24,71,71]."
    texts = [cups if name == "cup" else f"no {name}." for name in names]
    finish = "stop" if num >= len(names) else ""
    scores = (0.01, 0.1) if "cup" in names[:num] else ()
    return Part(" ".join(texts[:num]), 9, finish, (), scores)

  def _words(self, row):
    asked = row.question.question
    words = self.answers.get(asked, asked.splitlines()[-1]).split()
    return [*words, f"<{row.seed}>"] if row.kind == DETAILED else words

  def _part(self, row, num):
    words = self._words(row)
    text = " ".join(words[: min(num, row.limit)])
    finish = "length" if num >= row.limit else ""
    finish = "stop" if num >= len(words) else finish
    for stop in row.stop:
      text, found, _ = text.partition(stop)
      finish = "stop" if found else finish
    tokens = tuple(Token(w, -0.5, ((w, -0.5),) * 20) for w in text.split())
    kept = tokens if row.kind == DETAILED else ()
    return Part(text.strip(), min(num, row.limit, len(words)), finish, kept)


SPEC = types.SimpleNamespace(
  coords=Coords("ivb", 96, "box"), geometry="pad", image_size=96
)


# Of the probabilities 0.01 and 0.1.
CALIBRATION = Calibration((-4.6052, -2.3026), (0.25, 0.75), 100, "detect", "")


class Client:
  """Sends requests to a server of this machine."""

  def __init__(self, port: int, rules: Rules, batcher: Batcher):
    self.port, self.rules, self.batcher = port, rules, batcher

  def send(self, method, path, body=None, headers=None):
    """(status, headers, content)."""
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
    with contextlib.closing(connection):
      headers = {"Content-Type": "application/json"} | (headers or {})
      connection.request(method, path, body, headers)
      response = connection.getresponse()
      return response.status, dict(response.getheaders()), response.read()

  def ask(self, *content, **fields):
    """(status, json) of one user's message."""
    parts = list(content) or ["what is this"]
    message = {"role": "user", "content": [
      {"type": "image_url", "image_url": {"url": part}}
      if part.startswith("data:") else {"type": "text", "text": part}
      for part in parts
    ]}  # fmt: skip
    body = {"model": "rules", "messages": [message]} | fields
    status, _, found = self.send("POST", CHAT, json.dumps(body))
    return status, json.loads(found)

  def events(self, *content, **fields):
    """The objects of a stream; the last line has to be [DONE]."""
    message = {"role": "user", "content": " ".join(content)}
    body = {"model": "rules", "messages": [message], "stream": True} | fields
    status, headers, found = self.send("POST", CHAT, json.dumps(body))
    assert status == 200 and "event-stream" in headers["content-type"]
    *lines, done, end = found.decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


CHAT = "/v1/chat/completions"


def uri(width: int = 40, height: int = 20, color="red", kind="PNG") -> str:
  """A picture as a data URI."""
  out = io.BytesIO()
  Image.new("RGB", (width, height), color).save(out, kind)
  data = base64.b64encode(out.getvalue()).decode()
  return f"data:image/{kind.lower()};base64,{data}"


@contextlib.contextmanager
def running(
  limits: Limits = SMALL, token: str = "", served=None, examples=(), lists=True
):
  """Serves on a free port of this machine, in threads."""
  rules, batcher = Rules(), None
  if served is None:
    batcher = Batcher(rules.write, 4, limits.queue)
    served = Served(
      "rules", 1, SPEC, rules, batcher, limits, lists, {LISTED: CALIBRATION}
    )
  hosts = requests.hosts_of("127.0.0.1")
  made = app.make(served, examples)
  guarded = requests.Guard(made, token, hosts, app.is_open)
  listener, servers = web.listen("127.0.0.1", 0), queue.SimpleQueue()
  thread = threading.Thread(
    target=web.run, args=(guarded, listener, limits, servers.put)
  )
  thread.start()
  try:
    yield Client(listener.getsockname()[1], rules, served.batcher)
  finally:
    servers.get().should_exit = True  # it may only just begin
    thread.join()
    served.batcher.close()

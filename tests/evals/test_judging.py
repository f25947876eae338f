"""Many answers before a judge: at once, again, and after an interruption."""

import http.server
import json
import threading

import pytest

from locvlm_jax.evals import judging
from locvlm_jax.evals.scorers import judge

ASKED = [judging.Asked(str(i), "Who?", "man", f"answer {i}") for i in range(9)]
YES = "{'pred': 'yes', 'score': 5}"


class _Service:
  """A service that answers by a rule, and knows what it was asked.

  Attributes:
    rule: (number of the request, what is asked) -> (status, reply).
  """

  def __init__(self, rule):
    self.bodies, self.busiest, lock, inside = [], 0, threading.Lock(), []
    service = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self):
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        with lock:
          service.bodies.append(body)
          number = len(service.bodies)
          inside.append(number)
          service.busiest = max(service.busiest, len(inside))
        status, text = rule(number, body["messages"][1]["content"])
        with lock:
          inside.remove(number)
        self.send_response(status)
        self.end_headers()
        content = {"choices": [{"message": {"content": text}}]}
        self.wfile.write(json.dumps(content).encode())

      def log_message(self, *_):
        pass

    self._server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    self._thread = threading.Thread(target=self._server.serve_forever)
    self.url = f"http://localhost:{self._server.server_port}/v1"

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._thread.join()
    self._server.server_close()


def _judge(service, **change):
  return judge.Judge(
    service.url, "m", judge.VIDEO_CHATGPT, **{"wait": 0.0} | change
  )


def _run(service, path, at_once=3, asked=ASKED, **change):
  log = []
  who = _judge(service, **change)
  return judging.judge_all(who, asked, str(path), at_once, log.append), log


def test_several_requests_are_under_way_at_once(tmp_path):
  together = threading.Barrier(3, timeout=10)

  def rule(number, text):
    together.wait()  # nobody answers before there are three
    return 200, YES

  with _Service(rule) as service:
    rows, _ = _run(service, tmp_path / "v.jsonl")
  assert service.busiest == 3
  assert judging.scores(rows) == {
    "judge_accuracy": 1,
    "judge_score": 5,
    "judge_num": 9,
    "judge_unparsable": 0,
  }
  assert "temperature" not in service.bodies[0]


def test_a_busy_service_is_asked_again_and_a_refusal_is_final(tmp_path):
  with _Service(lambda n, _: (429 if n < 4 else 200, YES)) as service:
    rows, _ = _run(service, tmp_path / "v.jsonl", asked=ASKED[:1])
  assert len(service.bodies) == 4 and rows[0]["match"]
  with _Service(lambda n, _: (401, "")) as service:
    with pytest.raises(ValueError, match="judge m at .*: HTTP Error 401"):
      _run(service, tmp_path / "w.jsonl", at_once=1)
  assert len(service.bodies) == 1
  with _Service(lambda n, _: (503, "")) as service:
    with pytest.raises(ValueError, match="HTTP Error 503.*goes on where"):
      _run(service, tmp_path / "x.jsonl", at_once=1, asked=ASKED[:1], tries=3)
  assert len(service.bodies) == 3


def test_replies_without_a_verdict_are_kept_and_counted(tmp_path):
  path = tmp_path / "v.jsonl"

  def rule(_, text):
    return 200, "I cannot say." if "answer 4" in text else YES

  with _Service(rule) as service:
    rows, _ = _run(service, path)
    again, _ = _run(service, path)  # nor are they asked for again
  found = judging.scores(rows)
  assert found == judging.scores(again) and len(service.bodies) == 9
  assert (found["judge_num"], found["judge_unparsable"]) == (9, 1)
  assert found["judge_accuracy"] == 1
  (kept,) = (
    row
    for row in map(json.loads, path.read_text().splitlines())
    if row["match"] is None
  )
  assert (kept["id"], kept["reply"]) == ("4", "I cannot say.")


def test_a_rerun_asks_for_what_is_missing_alone(tmp_path):
  path = tmp_path / "v.jsonl"
  with _Service(lambda n, _: (200 if n <= 5 else 400, YES)) as service:
    with pytest.raises(ValueError, match="HTTP Error 400"):
      _run(service, path, at_once=1)
  lines = path.read_text().splitlines()
  assert len(lines) == 5
  path.write_text(path.read_text() + '{"id": "5", "key')  # cut off by a kill
  with _Service(lambda n, _: (200, YES)) as service:
    rows, log = _run(service, path)
  assert len(service.bodies) == 4 and len(rows) == 9
  assert "5 verdicts are in" in log[0]
  assert len(path.read_text().splitlines()) == 9


def test_verdicts_of_another_judge_or_answer_are_not_mixed_in(tmp_path):
  path = tmp_path / "v.jsonl"
  with _Service(lambda n, _: (200, YES)) as service:
    _run(service, path)
    other = judge.Judge(service.url, "other", judge.VIDEO_CHATGPT)
    judging.judge_all(other, ASKED, str(path), 2, print)
    ours = judge.Judge(service.url, "m", judge.LOCVLM)
    judging.judge_all(ours, ASKED, str(path), 2, print)
    changed = [judging.Asked("0", "Who?", "man", "another answer")]
    _run(service, path, asked=changed)
  assert len(service.bodies) == 3 * 9 + 1

"""The scores of prediction files, of any model."""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import benchmark_files
import pytest
from benchmark_files import FILES
from eval_scenes import ask

from locvlm_jax import errors
from locvlm_jax.data.sources import questions as published
from locvlm_jax.evals import scoring
from locvlm_jax.evals.scorers import judge

REAL = pathlib.Path(os.environ.get("LOCVLM_TEST_DATA", "nowhere"))


@pytest.fixture
def files(tmp_path):
  return benchmark_files.write(tmp_path)


def _score(*arguments: str) -> dict:
  """Scores what flags such as --task=gqa say."""
  named = (flag.removeprefix("--").split("=", 1) for flag in arguments)
  return scoring.score(scoring.Request(**dict(named)))


def _lines(path, rows) -> str:
  path.write_text("\n".join(map(json.dumps, rows)))
  return str(path)


def test_a_prediction_file_may_have_any_of_the_known_forms(files, tmp_path):
  asked, answers = files[0]["vqav2"]
  more = ("--task=vqav2", f"--references={asked}", f"--answers={answers}")
  llava = _lines(tmp_path / "a.jsonl", [{"question_id": 421, "text": "Yes."}])
  upload = f"--upload={tmp_path / 'up.json'}"
  got = _score(*more, f"--predictions={llava}", upload)
  # 7 of 10 said yes: with any one of them left out there are still 3.
  assert got["accuracy"] == got["evalai.accuracy.yes/no"] == 100.0
  sent = json.loads((tmp_path / "up.json").read_text())
  assert sent == [{"question_id": 421, "answer": "yes"}]
  assert _score(*more, f"--predictions={tmp_path / 'up.json'}") == got
  pope = ("--task=pope_random", f"--references={files[0]['pope_random'][0]}")
  no_ids = _lines(tmp_path / "b.jsonl", [{"question": "", "answer": "no"}])
  assert _score(*pope, f"--predictions={no_ids}")["accuracy"] == 1.0
  with pytest.raises(ValueError, match="1 of 1 questions have no answer; .* 1"):
    _score(*pope, f"--predictions={llava}")
  with pytest.raises(ValueError, match="row 1 has none of text, answer"):
    bad = _lines(tmp_path / "c.jsonl", [{"id": 1}])
    _score(*pope, f"--predictions={bad}")


def test_gqa_has_validity_with_its_file_of_choices(files, tmp_path):
  path = tmp_path / "gqa.json"
  (question,) = FILES["gqa"][0].values()
  types = {"structural": "query", "detailed": "positionChoose"}
  path.write_text(json.dumps({"007": question | {"types": types}}))
  choices = tmp_path / "choices.json"
  found = {"valid": ["left", "right"], "plausible": ["right"]}
  choices.write_text(json.dumps({"007": found}))
  said = _lines(
    tmp_path / "said.jsonl", [{"questionId": "007", "prediction": "left"}]
  )
  flags = ("--task=gqa", f"--references={path}", f"--predictions={said}")
  got = _score(*flags, f"--answers={choices}")
  assert (got["validity"], got["plausibility"]) == (100.0, 0.0)
  assert "validity" not in _score(*flags)
  choices.write_text("{}")
  assert "validity" not in _score(*flags, f"--answers={choices}")
  choices.write_text(json.dumps({"008": found}))
  with pytest.raises(errors.DataError, match="'007' is missing"):
    _score(*flags, f"--answers={choices}")


def test_answers_of_evaluate_need_no_references(files, tmp_path):
  source = published.Questions("gqa", *files[0]["gqa"], files[1])
  (question,) = ask("gqa", source)
  assert (
    question.question == "Which?\nAnswer the question using a single"
    " word or phrase."
  )
  row = {
    "task": "gqa",
    "seed": 0,
    "id": "007",
    "question": "Which?",
    "history": [],
    "answer": "Left.",
    "truth": question.truth,
  }
  path = _lines(tmp_path / "predictions.jsonl", [row, {**row, "seed": 1}])
  got = _score("--task=gqa", f"--predictions={path}")
  assert got["accuracy"] == 100.0 and got["num"] == 1
  with pytest.raises(ValueError, match="no answers of evaluate to vqa;"):
    _score("--task=vqa", f"--predictions={path}")


def test_scoring_needs_no_jax_and_explains_itself():
  code = (
    "import sys; from locvlm_jax.evals import scoring; print('jax' in"
    " sys.modules)"
  )
  run = [sys.executable, "-c", code]
  assert subprocess.check_output(run, text=True) == "False\n"
  command = [sys.executable, "-m", "locvlm_jax.evals.score"]
  done = subprocess.run([*command, "--help"], capture_output=True, text=True)
  assert done.returncode == 0 and "--judge_url" in done.stdout
  nowhere = ["--task=gqa", "--predictions=nowhere.json"]
  done = subprocess.run([*command, *nowhere], capture_output=True, text=True)
  assert done.returncode == 70 and "Traceback" not in done.stderr
  assert done.stderr.startswith("error: nowhere.json: no such file")


class _Service(http.server.BaseHTTPRequestHandler):
  """Says that an answer matches where it holds the word "man"."""

  seen: list = []

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    self.seen.append((self.path, self.headers["Authorization"], body))
    match = "Answer: a man" in body["messages"][1]["content"]
    text = f'Well: {{"match": {str(match).lower()}, "score": {5 * match}}}'
    reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    self.send_response(200)
    self.end_headers()
    self.wfile.write(reply)

  def log_message(self, *_):
    pass


def test_a_judge_is_asked_and_named(files, tmp_path, monkeypatch):
  monkeypatch.setenv(judge.KEY, "canary")
  service = http.server.HTTPServer(("localhost", 0), _Service)
  thread = threading.Thread(target=service.serve_forever)
  thread.start()
  try:
    path = _lines(tmp_path / "p.jsonl", [{"id": 5, "text": "a man"}])
    got = _score(
      "--task=msvd_qa",
      f"--references={files[0]['msvd_qa'][0]}",
      f"--predictions={path}",
      "--judge_model=m",
      f"--judge_url=http://localhost:{service.server_port}/v1",
    )
  finally:
    service.shutdown()
    thread.join()
    service.server_close()
  assert got["judge_accuracy"] == 1.0 and got["judge_score"] == 5.0
  assert got["judge"] == "m" and got["judged_on"].startswith("20")
  ((path, key, body),) = _Service.seen
  assert path == "/v1/chat/completions" and key == "Bearer canary"
  assert body["model"] == "m" and body["temperature"] == 0
  assert "canary" not in json.dumps(got)


COUNTS = (
  ("pope_random", "pope/at_HEAD/coco_pope_random.json", "", 3000),
  ("pope_random", "pope/at_e3e3926/coco_pope_random.json", "", 2910),
  ("vqav2", "vqav2/vqa_questions_valid.json.gz",
   "vqav2/vqa_annotatons_valid.json.gz", 8977),
  ("gqa", "gqa_ood/ood_testdev_head.json", "", 1733),
  ("gqa", "gqa_ood/ood_testdev_tail.json", "", 1063),
  ("activitynet_qa", "activitynet_qa/test_q.json", "activitynet_qa/test_a.json",
   8000),
  ("msvd_qa", "msvd_qa/val_qa.json", "", 6415),
  ("msrvtt_qa", "msrvtt_qa/test.csv", "", 130),
  ("tgif_qa", "tgif_qa/Test_frameqa_question.csv", "", 402),
)  # fmt: skip


@pytest.mark.skipif(not REAL.exists(), reason="LOCVLM_TEST_DATA is not set")
@pytest.mark.parametrize("name, asked, answers, num", COUNTS)
def test_real_files_are_read_and_scored(name, asked, answers, num, tmp_path):
  """What the annotators say is right, most of what they do not is wrong."""
  paths = [str(REAL / p) if p else "" for p in (asked, answers)]
  found = published.read(name, *paths)
  assert len(found) == num and all(len(q.answers) for q in found)
  oracle = [
    {"id": q.id, "text": max(q.answers, key=q.answers.count)} for q in found
  ]
  garbage = [{"id": q.id, "text": "xyzzy."} for q in found]
  best, worst = (
    _score(
      f"--task={name}",
      f"--references={paths[0]}",
      f"--answers={paths[1]}",
      f"--predictions={_lines(tmp_path / 'p.jsonl', rows)}",
    )
    for rows in (oracle, garbage)
  )
  metric = "accuracy" if "accuracy" in best else "exact"
  assert best["num"] == num and best[metric] > {"vqav2": 90}.get(name, 0.99)
  assert worst[metric] <= {"pope_random": 0.52}.get(name, 0.0)


def test_an_answer_that_is_null_or_there_twice_is_refused(
  files, tmp_path, capsys
):
  asked = files[0]["msvd_qa"][0]
  flags = ("--task=msvd_qa", f"--references={asked}")

  def score(*rows):
    path = _lines(tmp_path / "p.jsonl", rows)
    return _score(*flags, f"--predictions={path}")

  with pytest.raises(ValueError, match="p.jsonl: row 1: text is null"):
    score({"id": 5, "text": None})
  with pytest.raises(ValueError, match="question 5 has two answers: 'man' and"):
    score({"id": 5, "text": "man"}, {"id": 5, "text": "woman"})
  once = score({"id": 5, "text": "man"})
  assert score({"id": 5, "text": "man"}, {"id": 5, "text": "man"}) == once
  assert score({"id": 5, "text": "man"}, {"id": 6, "text": "x"}) == once
  assert "1 answers to other questions" in capsys.readouterr().err


def test_answers_of_evaluate_count_once_and_missing_ones_are_told(
  tmp_path, capsys
):
  row = {
    "task": "msvd_qa", "seed": 0, "id": "5", "question": "who?", "history": [],
    "answer": "", "truth": {"answers": ["man"], "kind": "who"},
    "unreadable": "cut off",
  }  # fmt: skip
  path = _lines(tmp_path / "predictions.jsonl", [row, row])
  assert _score("--task=msvd_qa", f"--predictions={path}")["num"] == 1
  assert "1 questions have no answer" in capsys.readouterr().err
  rows = [row, {**row, "answer": "man"}]
  path = _lines(tmp_path / "predictions.jsonl", rows)
  with pytest.raises(ValueError, match="question 5 has two answers"):
    _score("--task=msvd_qa", f"--predictions={path}")

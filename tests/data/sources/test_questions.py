"""Readers of published benchmarks, and the scores of prediction files."""

import gzip
import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from zygote import run

from locvlm_jax import errors
from locvlm_jax.data.sources import questions
from locvlm_jax.evals import scoring
from locvlm_jax.evals.scorers import captions, judge, synonyms
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.text import coords

FORM = coords.Coords("ivb", 32, "box")
REAL = pathlib.Path(os.environ.get("LOCVLM_TEST_DATA", "nowhere"))
HUMANS = ["yes"] * 7 + ["no"] * 3
FILES = {
  "pope_random": (
    [{"question_id": 1, "image": "COCO_val2014_000000000042.jpg",
      "text": "Is there a dog in the image?", "label": "no"}], None),
  "vqav2": (
    {"questions": [{"question_id": 421, "image_id": 42, "question": "A dog?"}]},
    {"annotations": [{"question_id": 421, "answer_type": "yes/no",
                      "answers": [{"answer": a} for a in HUMANS]}]}),
  "gqa": (
    {"007": {"imageId": "42", "question": "Which?", "answer": "left",
             "isBalanced": True, "types": {"structural": "query"}}}, None),
  "activitynet_qa": (
    [{"question_id": "v_a_3", "video_name": "a", "question": "a dog"}],
    [{"question_id": "v_a_3", "answer": "no", "type": 3}]),
  "msvd_qa": ([{"id": 5, "video_id": 7, "question": "who sings?",
                "answer": "man"}], None),
  "msrvtt_qa": ("video,question,answer,qid,type\n7,who sings,man,5,2\n", None),
  "tgif_qa": (
    "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\n"
    "g_1\twhat FRAMEQAlaces it ?\tcat\t0\tFRAMEQA9\t1\n"
    "g_1\twhat FRAMEQAlaces it ?\tcat\t0\tFRAMEQA9\t1\n", None),
}  # fmt: skip
MEDIA = (
  "COCO_val2014_000000000042.jpg",
  "42.jpg",
  "v_a.mkv",
  "vid7.avi",
  "video7.mp4",
  "g_1.gif",
)
WANTED = {
  "pope_random": ("1", "Is there a dog in the image?", ("no",), ""),
  "vqav2": ("421", "A dog?", tuple(HUMANS), "yes/no"),
  "gqa": ("007", "Which?", ("left",), ""),
  "activitynet_qa": ("v_a_3", "a dog", ("no",), "3"),
  "msvd_qa": ("5", "who sings?", ("man",), "who"),
  "msrvtt_qa": ("5", "who sings?", ("man",), "who"),
  "tgif_qa": ("FRAMEQA9", "what replaces it ?", ("cat",), "object"),
}


@pytest.fixture
def files(tmp_path):
  """Name -> (questions, answers), and a folder of empty media."""
  found = {}
  for name, (asked, answers) in FILES.items():
    path, more = tmp_path / f"{name}.json", tmp_path / f"{name}_answers.json.gz"
    if isinstance(asked, str):
      path = path.with_suffix(".csv")
      path.write_text(asked)
    elif name.startswith("pope"):
      path.write_text("\n".join(map(json.dumps, asked)))
    else:
      path.write_text(json.dumps(asked))
    if answers is not None:
      more.write_bytes(gzip.compress(json.dumps(answers).encode()))
    found[name] = str(path), str(more) if answers is not None else ""
  for name in MEDIA:
    (tmp_path / name).touch()
  return found, str(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_questions_find_their_media(name, files):
  source = questions.Questions(name, *files[0][name], files[1])
  (q,) = source
  assert (q.id, q.text, q.answers, q.kind) == WANTED[name]
  assert os.path.exists(q.image) and source.missing == 0


@pytest.mark.parametrize("name", FILES)
def test_the_score_of_right_and_wrong_answers(name, files):
  task = EVALS[name]
  records = questions.Questions(name, *files[0][name], files[1])
  examples = task.examples(records, FORM, "square", 32, (), seed=0)
  (right,) = (e.truth["answers"][0] for e in examples)
  main = {"pope_random": "accuracy", "vqav2": "accuracy", "gqa": "accuracy"}
  metric = main.get(name, "exact")
  assert task.score(examples, [right])[metric] in (1.0, 100.0)
  assert task.score(examples, ["Yes zebra."])[metric] == 0.0
  assert task.score(examples, [right])["num"] == 1
  assert task.judge(examples[0], right + ".")["correct"]


def test_media_that_are_not_there_are_counted(files, tmp_path):
  path = tmp_path / "more.json"
  row = FILES["msvd_qa"][0][0]
  path.write_text(json.dumps([row, {**row, "id": 6, "video_id": 8}]))
  source = questions.Questions("msvd_qa", str(path), "", files[1])
  assert len(source) == 1 and source.missing == 1
  examples = EVALS["msvd_qa"].examples(source, FORM, "square", 32, (), seed=0)
  assert EVALS["msvd_qa"].score(examples, ["man"])["missing"] == 1
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.DataError, match="of 2 questions .* such as vid7"):
    questions.Questions("msvd_qa", str(path), "", str(tmp_path / "empty"))


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("msvd_qa", "{}", "not a list of questions"),
    ("msvd_qa", "[]", "no questions"),
    ("msvd_qa", '[{"id": 1}]', "question 0: field 'video_id' is missing"),
    ("gqa", "[]", "not an object"),
    (
      "vqav2",
      '{"questions": [{"question_id": 1, "image_id": "1"}]}',
      "image_id '1' is not an integer",
    ),
    ("pope_random", '{"question_id": 1}', "line 1: field 'image'"),
    (
      "msvd_qa",
      json.dumps(
        [FILES["msvd_qa"][0][0] | {"answer": a} for a in ("man", "dog")]
      ),
      "two questions have",
    ),
  ],
)
def test_bad_files_are_named(name, content, message, tmp_path):
  path = tmp_path / "bad.json"
  path.write_text(content)
  with pytest.raises(errors.DataError, match="bad.json.*" + message):
    questions.read(name, str(path))


def test_a_question_without_an_answer_is_named(files, tmp_path):
  (tmp_path / "other.json").write_text('{"annotations": []}')
  with pytest.raises(errors.DataError, match="421 has no answer in .*other"):
    questions.read("vqav2", files[0]["vqav2"][0], str(tmp_path / "other.json"))


@pytest.mark.parametrize(
  "answer, truth, right",
  [
    ("He is riding a bicycle.", "bike", True),
    ("There are 2 of them.", "two", True),
    ("Two men are dancing.", "man", True),
    ("No, he is not.", "yes", False),
    ("yes", "yes", True),
    ("Yes", "no", False),
    ("", "dog", False),
    ("hotdogs", "dog", False),
    ("the ice cream cone", "ice cream", True),
  ],
)
def test_a_sentence_gives_an_answer(answer, truth, right):
  assert synonyms.matches(answer, truth) is right


def _score(*flags: str) -> dict:
  """Scores what flags such as --task=gqa say."""
  named = (flag.removeprefix("--").split("=", 1) for flag in flags)
  return scoring.score(scoring.Request(**dict(named)))


def _lines(path, rows) -> str:
  path.write_text("\n".join(map(json.dumps, rows)))
  return str(path)


def test_prediction_files_of_any_form(files, tmp_path):
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


def test_gqa_with_its_file_of_choices(files, tmp_path):
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
  source = questions.Questions("gqa", *files[0]["gqa"], files[1])
  (example,) = EVALS["gqa"].examples(source, FORM, "square", 32, (), seed=0)
  assert (
    example.question == "Which?\nAnswer the question using a single"
    " word or phrase."
  )
  row = {
    "task": "gqa",
    "seed": 0,
    "id": "007",
    "question": "Which?",
    "history": [],
    "answer": "Left.",
    "truth": example.truth,
  }
  path = _lines(tmp_path / "predictions.jsonl", [row, {**row, "seed": 1}])
  got = _score("--task=gqa", f"--predictions={path}")
  assert got["accuracy"] == 100.0 and got["num"] == 1
  with pytest.raises(ValueError, match="no answers of evaluate to vqa;"):
    _score("--task=vqa", f"--predictions={path}")


def test_scoring_needs_no_jax():
  code = (
    "import sys; from locvlm_jax.evals import scoring; print('jax' in"
    " sys.modules)"
  )
  run = [sys.executable, "-c", code]
  assert subprocess.check_output(run, text=True) == "False\n"


def test_the_command_prints_the_scores_of_a_file(files, tmp_path):
  asked = files[0]["pope_random"][0]
  said = _lines(tmp_path / "said.jsonl", [{"question_id": 1, "text": "No."}])
  done = run(
    "evals.score",
    "--task=pope_random",
    f"--references={asked}",
    f"--predictions={said}",
  )
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)["accuracy"] == 1.0
  done = run("evals.score", "--task=pope", f"--predictions={said}")
  assert done.returncode == 78
  assert "'pope': not one of " in done.stderr and "pope_random" in done.stderr


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


def test_a_judge_that_fails_is_told():
  with pytest.raises(ValueError, match="judge m at http://localhost:1/v1"):
    judge.Judge("http://localhost:1/v1", "m", timeout=1.0)("a", "b", "c")
  for reply in ("no idea", '{"match": true}', '{"match": true, "score": "x"}'):
    with pytest.raises(ValueError, match="is no verdict"):
      judge.verdict(reply)
  assert judge.verdict('{"match": false, "score": 9}') == (False, 5.0)


def test_without_java_there_is_no_meteor(monkeypatch):
  monkeypatch.setenv("PATH", "")
  with pytest.raises(ValueError, match="need a Java runtime and pip install"):
    captions.scores(["a cup"], [["a cup"]])


@pytest.mark.skipif(bool(captions.missing()), reason=captions.missing())
def test_meteor_is_that_of_the_added_counts():
  """Two captions, of which one is its reference and the other is empty.

  Function words weigh .25, others .75 (delta): of 1.75 + 1.0 in the references
  1.75 are found, R = .63636, P = 1, and with alpha .85 the F-mean is
  R / (.85 + .15 R) = .67308; one chunk has no penalty. The mean is .5.
  """
  got = captions.scores(["a red cup", ""], [["a red cup"], ["a dog"]])
  assert got["meteor"] == pytest.approx(67.3077, abs=1e-3)
  assert got["cider"] > 100


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
  found = questions.read(name, *paths)
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


@pytest.mark.skipif(not REAL.exists(), reason="LOCVLM_TEST_DATA is not set")
def test_all_questions_of_the_real_clips_find_them():
  folder = REAL / "msrvtt_qa"
  source = questions.Questions(
    "msrvtt_qa", str(folder / "test.csv"), "", str(folder / "videos")
  )
  assert len(source) == 130 and source.missing == 0

"""Our tasks as lmms-eval reads them: the same questions, the same scores."""

import dataclasses
import json
import pathlib
import re

import pytest
from PIL import Image, ImageOps

from configs import micro
from locvlm_jax import assemble, errors
from locvlm_jax.config import freeze
from locvlm_jax.evals.harness import lmms_requests, lmms_tasks
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference.question import Question

TASKS = ("spatial_trained", "hallucination", "revloc", "locpred", "vqa")


@pytest.fixture(scope="module")
def written(microworld, tmp_path_factory):
  """{task: its questions}, and the folder that has them for lmms-eval."""
  root = microworld(num_train=2, num_val=8)
  config = micro.get_config("tiny")
  config.root = root
  config = freeze(config)
  out, asked = str(tmp_path_factory.mktemp("tasks")), {}
  for name in TASKS:
    asked[name] = assemble.questions(config, EVALS[name], seed=0, samples=6)
    told = lmms_tasks.write(
      out, EVALS[name], asked[name], max_new_tokens=7, temperature=0.0
    )
    assert told == f"locvlm_{name}"
  return asked, pathlib.Path(out)


def docs(folder, name):
  lines = (folder / f"locvlm_{name}.jsonl").read_text().splitlines()
  return list(map(json.loads, lines))


@pytest.mark.parametrize("name", TASKS)
def test_scores_are_those_of_the_task(written, name):
  asked, folder = written
  task = EVALS[name]
  answers = ["At [10,20,30,40], a red ball on the left, no."] * len(asked[name])
  kept = [
    lmms_tasks.process_results(doc, [answer])
    for doc, answer in zip(docs(folder, name), answers, strict=True)
  ]
  wanted = task.score(asked[name], answers)
  text = (folder / f"locvlm_{name}.yaml").read_text()
  listed = re.findall(r"- metric: (\S+)", text)
  assert listed and set(listed) == set(kept[0])
  for metric in listed:
    found = lmms_tasks.aggregate([k[metric] for k in kept])
    assert found == pytest.approx(wanted.get(metric, float("nan")), nan_ok=True)
  assert "max_new_tokens: 7" in text and "do_sample: false" in text


@pytest.mark.parametrize("name", TASKS)
def test_a_conversation_is_the_question_again(written, name):
  asked, folder = written
  for question, doc in zip(asked[name], docs(folder, name), strict=True):
    messages = lmms_tasks.doc_to_messages(doc)
    again = lmms_requests.question_of(question.id, messages)
    assert again.question == question.question
    assert again.history == question.history
    assert len(again.pictures) == len(question.pictures)
    read = lmms_tasks.question(doc)
    assert dataclasses.replace(read, image=None, truth={}) == (
      dataclasses.replace(question, image=None, truth={})
    )
    assert read.truth == json.loads(json.dumps(question.truth))


def test_every_field_of_a_question_is_kept(tmp_path):
  path, turns = str(tmp_path / "a.png"), (("Where?", "There."),)
  truth, listed = {"boxes": [[1, 2]]}, ("cup",)
  question = Question(
    "1", path, "And?", turns, truth, True, listed, True, (30, 40)
  )
  read = lmms_tasks.question(lmms_tasks._doc(EVALS["revloc"], question, []))
  assert read == dataclasses.replace(question, image=(path,))


def test_videos_go_by_their_path_and_pictures_as_they_are_seen(tmp_path):
  clip = Question("1", "clips/a.gif", "What moves?", truth={})
  doc = lmms_tasks._doc(EVALS["msvd_qa"], clip, [])
  part = lmms_tasks.doc_to_messages(doc)[0]["content"][0]
  assert part["type"] == "video" and pathlib.Path(part["url"]).is_absolute()
  picture = Image.effect_noise((20, 10), 50).convert("RGB")
  picture.save(tmp_path / "a.png")
  question = Question(
    "1", str(tmp_path / "a.png"), "Left?", truth={}, mirrored=True
  )
  doc = lmms_tasks._doc(EVALS["revloc"], question, [])
  (seen,) = lmms_tasks.doc_to_visual(doc)
  assert seen.tobytes() == ImageOps.mirror(picture).tobytes()
  (tmp_path / "a.png").write_bytes(b"no picture")
  with pytest.raises(errors.DataError, match="a.png"):
    lmms_tasks.doc_to_messages(doc)


def test_a_mirrored_video_is_refused_before_anything_is_asked():
  clip = Question("1", "a.gif", "What moves?", truth={}, mirrored=True)
  with pytest.raises(errors.DataError, match="video_vqa.*mirrored"):
    lmms_tasks._doc(EVALS["video_vqa"], clip, [])


def test_nothing_is_written_without_questions(tmp_path):
  with pytest.raises(errors.DataError, match="no questions"):
    lmms_tasks.write(
      str(tmp_path), EVALS["gqa"], [], max_new_tokens=1, temperature=0.0
    )


def test_what_a_task_says_of_decoding_is_done_or_refused():
  read = lmms_requests.decoding_of
  usual = {"max_new_tokens": 16, "do_sample": False, "num_beams": 1}
  assert read(usual | {"temperature": 0.7}).temperature == 0
  sampled = read({"temperature": 0.7, "top_p": 0.9, "until": "\n"})
  assert (sampled.temperature, sampled.top_p) == (0.7, 0.9)
  assert sampled.stop == ("\n",)
  for bad in ({"num_beams": 4}, {"repetition_penalty": 2.0}):
    with pytest.raises(ValueError, match=next(iter(bad))):
      read(usual | bad)


@pytest.mark.parametrize(
  "roles, message",
  [
    (("system", "user"), "'system'.*'user'"),
    (("user", "assistant"), "last message"),
    (("user", "user"), "'assistant'"),
  ],
)
def test_a_conversation_of_another_kind_is_refused(roles, message):
  messages = [lmms_tasks._message(role, "x") for role in roles]
  with pytest.raises(ValueError, match=message):
    lmms_requests.question_of("1", messages)

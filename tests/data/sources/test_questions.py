"""Readers of published benchmarks."""

import json
import os
import pathlib

import benchmark_files
import pytest
from benchmark_files import FILES, HUMANS

from locvlm_jax import errors
from locvlm_jax.data.sources import questions

REAL = pathlib.Path(os.environ.get("LOCVLM_TEST_DATA", "nowhere"))
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
  return benchmark_files.write(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_questions_find_their_media(name, files):
  source = questions.Questions(name, *files[0][name], files[1])
  (q,) = source
  assert (q.id, q.text, q.answers, q.kind) == WANTED[name]
  assert os.path.exists(q.image) and source.missing == 0


def test_media_that_are_not_there_are_counted(files, tmp_path):
  path = tmp_path / "more.json"
  row = FILES["msvd_qa"][0][0]
  path.write_text(json.dumps([row, {**row, "id": 6, "video_id": 8}]))
  source = questions.Questions("msvd_qa", str(path), "", files[1])
  assert len(source) == 1 and source.missing == 1
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
  "said, message",
  [
    (["red", "blue"], "annotation 0: answers 0: 'red' is no object with"),
    ([{"raw_answer": "red"}], "annotation 0: answers 0: field 'answer'"),
    ([{"answer": None}], "annotation 0: answers 0: answer None is neither"),
    (None, "annotation 0: answers None is no list"),
    ("red", "annotation 0: answers 'red' is no list"),
  ],
)
def test_answers_that_are_not_vqas_are_named(said, message, files, tmp_path):
  rows = {"annotations": [{"question_id": 421, "answers": said}]}
  (tmp_path / "other.json").write_text(json.dumps(rows))
  with pytest.raises(errors.DataError, match=f"other.json: {message}"):
    questions.read("vqav2", files[0]["vqav2"][0], str(tmp_path / "other.json"))


@pytest.mark.skipif(not REAL.exists(), reason="LOCVLM_TEST_DATA is not set")
def test_all_questions_of_the_real_clips_find_them():
  folder = REAL / "msrvtt_qa"
  source = questions.Questions(
    "msrvtt_qa", str(folder / "test.csv"), "", str(folder / "videos")
  )
  assert len(source) == 130 and source.missing == 0

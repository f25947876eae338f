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


@pytest.mark.parametrize("label", ["No", "NO", " no", "no"])
def test_a_label_counts_in_any_case(label, tmp_path):
  row = FILES["pope_random"][0][0] | {"label": label}
  path = tmp_path / "pope.json"
  path.write_text(json.dumps(row))
  (question,) = questions.read("pope_random", str(path))
  assert question.answers == ("no",)


def test_answers_of_gqa_count_in_any_case(tmp_path):
  row = FILES["gqa"][0]["007"] | {"answer": "Left"}
  path = tmp_path / "gqa.json"
  path.write_text(json.dumps({"007": row}))
  (question,) = questions.read("gqa", str(path))
  assert question.answers == ("left",) and question.notes["answer"] == "left"


def _changed(name, key, value) -> tuple[object, object]:
  """The files of a benchmark, with a field of their only answer changed."""
  asked, answers = json.loads(json.dumps(FILES[name]))
  if name == "vqav2":
    answers["annotations"][0][key] = value
  elif name == "gqa":
    asked["007"][key] = value
  else:
    (answers or asked)[0][key] = value
  return asked, answers


@pytest.mark.parametrize(
  "name, key, value",
  [
    ("pope_random", "label", None),
    ("pope_random", "label", "maybe"),
    ("pope_random", "label", True),
    ("vqav2", "answers", [{"answer": None}]),
    ("gqa", "answer", None),
    ("activitynet_qa", "answer", None),
    ("msvd_qa", "answer", None),
  ],
)
def test_an_answer_that_is_none_is_refused(name, key, value, tmp_path):
  paths = []
  for i, content in enumerate(_changed(name, key, value)):
    path = tmp_path / f"{i}.json"
    path.write_text(json.dumps(content) if name[:4] != "pope" or i else "")
    if name.startswith("pope") and not i:
      path.write_text(json.dumps(content[0]))
    paths.append(str(path) if content else "")
  with pytest.raises(errors.DataError, match=r"\d.json: "):
    questions.read(name, *paths)


@pytest.mark.parametrize("name", ["vqav2", "activitynet_qa"])
def test_two_different_answers_to_one_question_are_refused(name, tmp_path):
  asked, answers = json.loads(json.dumps(FILES[name]))
  rows = answers["annotations"] if name == "vqav2" else answers
  rows.append(dict(rows[0]))
  paths = [tmp_path / "q.json", tmp_path / "a.json"]
  for path, content in zip(paths, (asked, answers), strict=True):
    path.write_text(json.dumps(content))
  assert len(questions.read(name, *map(str, paths))) == 1
  key, value = ("answers", []) if name == "vqav2" else ("answer", "yes")
  rows[1][key] = value
  paths[1].write_text(json.dumps(answers))
  with pytest.raises(errors.DataError, match="has another answer before"):
    questions.read(name, *map(str, paths))


def test_a_blank_line_among_questions_is_named(tmp_path):
  row = json.dumps(FILES["pope_random"][0][0])
  path = tmp_path / "pope.json"
  path.write_text(f"{row}\n\n{row}\n")
  with pytest.raises(errors.DataError, match="line 2: not json"):
    questions.read("pope_random", str(path))


@pytest.mark.parametrize(
  "name, beside",
  [
    ("pope_random", "COCO_val2014_000000000042.txt"),
    ("pope_random", "COCO_val2014_000000000042.json"),
    ("pope_random", "._COCO_val2014_000000000042.jpg"),
    ("msvd_qa", "vid7.jpg"),
    ("msvd_qa", "vid7.srt"),
  ],
)
def test_what_has_the_stem_of_a_picture_or_video_is_not_taken_for_it(
  name, beside, files, tmp_path
):
  wanted = questions.Questions(name, *files[0][name], files[1])[0].image
  (tmp_path / beside).touch()
  found = questions.Questions(name, *files[0][name], files[1])[0].image
  assert found == wanted


def test_of_two_pictures_of_one_stem_none_is_taken(files, tmp_path):
  (tmp_path / "COCO_val2014_000000000042.png").touch()
  with pytest.raises(errors.DataError, match="042.jpg or COCO_.*042.png"):
    questions.Questions("pope_random", *files[0]["pope_random"], files[1])

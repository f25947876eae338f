"""Published benchmarks: their questions as asked, and their official scores."""

import json

import benchmark_files
import pytest
from benchmark_files import FILES
from eval_scenes import ask, rate

from locvlm_jax.data.sources import questions as published
from locvlm_jax.evals.scorers.metrics import find_unit
from locvlm_jax.evals.tasks import EVALS


@pytest.fixture
def files(tmp_path):
  return benchmark_files.write(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_the_score_of_right_and_wrong_answers(name, files):
  task = EVALS[name]
  records = published.Questions(name, *files[0][name], files[1])
  questions = ask(name, records)
  (right,) = (q.truth["answers"][0] for q in questions)
  main = {"pope_random": "accuracy", "vqav2": "accuracy", "gqa": "accuracy"}
  metric = main.get(name, "exact")
  assert task.score(questions, [right])[metric] in (1.0, 100.0)
  assert task.score(questions, ["Yes zebra."])[metric] == 0.0
  assert task.score(questions, [right])["num"] == 1
  assert all(find_unit(task.units, m) for m in task.score(questions, [right]))
  assert task.judge(questions[0], right + ".")["correct"]


def test_a_score_counts_questions_whose_media_are_not_there(files, tmp_path):
  path, row = tmp_path / "more.json", FILES["msvd_qa"][0][0]
  path.write_text(json.dumps([row, {**row, "id": 6, "video_id": 8}]))
  source = published.Questions("msvd_qa", str(path), "", files[1])
  questions = ask("msvd_qa", source)
  assert rate("msvd_qa", questions, ["man"])["missing"] == 1


def test_a_sentence_with_gqas_answer_counts_in_the_lenient_score_alone(files):
  source = published.Questions("gqa", *files[0]["gqa"], files[1])
  questions = ask("gqa", source)
  (truth,) = (q.truth["answers"][0] for q in questions)
  scores = rate("gqa", questions, [f"It is {truth}, I think."])
  assert (scores["accuracy"], scores["accuracy_lenient"]) == (0, 100)


def test_without_the_true_answers_only_the_questions_are_counted(files):
  source = published.Questions("vqav2", files[0]["vqav2"][0], "", files[1])
  sizes = {"num": 1, "missing": 0}
  assert rate("vqav2", ask("vqav2", source), ["yes"]) == sizes

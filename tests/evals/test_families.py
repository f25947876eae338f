"""One field puts benchmarks in the words of a family of models."""

import json

import benchmark_files
import pytest
import region_files
from eval_scenes import BOXES, DRAWN, VOCABULARY, rate

from configs import base, micro
from locvlm_jax import assemble, checks
from locvlm_jax.config import freeze
from locvlm_jax.data.question_view import View
from locvlm_jax.data.sources import questions as published
from locvlm_jax.evals import paper
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.text.families import FAMILIES

SHORT = "\nAnswer the question using a single word or phrase."


def first(task, records, family):
  """The first question of a task to a model of this family."""
  words = FAMILIES[family]
  view = View(words.coords(BOXES), "pad", 100, VOCABULARY, 0, words)
  return EVALS[task].questions(records, view)[0]


@pytest.mark.parametrize(
  "task, family, ending",
  [
    ("pope_random", "locvlm", "?"),
    ("pope_random", "llava15", "?" + SHORT),
    ("pope_random", "kosmos2", "? Answer:"),
    ("gqa", "locvlm", "?" + SHORT),
    ("gqa", "plain", "?"),
    ("gqa", "llava15", "?" + SHORT),
    ("vqav2", "llava15", "?" + SHORT),
    ("vqav2", "kosmos2", "? Answer:"),
    ("msvd_qa", "llava15", "?"),
  ],
)
def test_benchmarks_are_asked_in_the_familys_words(
  task, family, ending, tmp_path
):
  names, media = benchmark_files.write(tmp_path)
  records = published.Questions(task, *names[task], media)
  asked = first(task, records, family).question
  assert asked.endswith(records[0].text.removesuffix("?") + ending)


def test_hallucination_is_asked_as_pope_is():
  assert first("hal_coco", [DRAWN], "llava15").question.endswith(SHORT)
  assert first("hal_coco", [DRAWN], "locvlm").question.endswith("image?")


def test_numbers_are_asked_for_in_the_familys_words():
  assert first("counting", [DRAWN], "locvlm").question.endswith("?" + SHORT)
  assert first("counting", [DRAWN], "plain").question.endswith("image?")


def test_no_suffix_is_put_to_micro_models():
  words = FAMILIES[micro.get_config().eval.prompts]
  assert words.short == words.yes_no == "{text}"


def test_regions_are_described_and_found_in_the_familys_words(tmp_path):
  regions = region_files.regions(region_files.write(tmp_path))
  regions = [r for r in regions if r.id == "2_0"]  # of 200 x 100, padded
  asked = first("rd_refcoco_testB", regions, "llava15").question
  words, _, box = asked.partition(": ")
  assert words == "Please provide a short description for this region"
  truth = first("rd_refcoco_testB", regions, "locvlm").truth["box"]
  assert json.loads(box.rstrip(".")) == [round(v, 2) for v in truth]
  where = first("rec_refcoco_testB", regions, "llava15")
  assert where.question.endswith("this sentence describes: left edge.")
  right = [json.dumps([round(v, 2) for v in where.truth["box"]])]
  assert rate("rec_refcoco_testB", [where], right)["acc_iou75"] == 1
  asked = first("rd_refcoco_testB", regions, "kosmos2").question
  assert asked == f"It {BOXES.encode(tuple(truth))} is"
  where = first("rec_refcoco_testB", regions, "kosmos2")
  assert where.question == "left edge"


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"eval.prompts": "gpt"}, "eval.prompts='gpt': not one of locvlm, plain"),
    (
      {"eval.prompts": "llava15", "geometry": "square"},
      "geometry='pad', and geometry='square': set --config.geometry=pad",
    ),
    (
      {"eval.prompts": "llava15", "geometry": "pad", "eval.constrained": True},
      "no grammar for eval.constrained=True",
    ),
    ({"coords.form": "llava15"}, "coords.form='llava15': not one of"),
  ],
)
def test_words_that_do_not_fit_the_model_are_refused(fields, message):
  c = base.get_config("tiny")
  c.update_from_flattened_dict(fields)
  with pytest.raises(ValueError) as error:
    checks.check(freeze(c))
  assert message in str(error.value)


def test_questions_of_a_config_are_in_the_words_that_it_names(tmp_path):
  path = region_files.write(tmp_path)
  c = base.get_config("tiny")
  c.geometry, c.eval.prompts = "pad", "llava15"
  c.eval.refcoco_testB.update(questions=path, media=str(tmp_path))
  task = EVALS["rd_refcoco_testB"]
  (asked, *_) = assemble.questions(freeze(c), task, seed=0, samples=0)
  assert asked.question.startswith("Please provide a short description")


def test_a_table_says_whose_words_the_questions_were_in(tmp_path):
  path = tmp_path / "results.json"
  path.write_text(json.dumps({"metrics": {}, "prompts": "llava15"}))
  assert "in the words of llava15" in paper.table(5, str(tmp_path))
  path.write_text(json.dumps({"metrics": {}}))  # of an earlier version
  assert "in the words of" not in paper.table(5, str(tmp_path))

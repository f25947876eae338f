"""Units: what a metric's number counts, and how people read it."""

import pytest

from locvlm_jax.evals import units
from locvlm_jax.evals.scorers import captions, gqa_scores, pope, vqa_accuracy
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.units import Unit

NAMES = (
  ("pope_random.accuracy", Unit.SHARE),
  ("hallucination.yes_rate", Unit.SHARE),
  ("spatial_paper.direct.left_right.all", Unit.SHARE),
  ("spatial.icl.above_below.num", Unit.COUNT),
  ("msvd_qa.match.who", Unit.SHARE),
  ("vqav2.evalai.accuracy.yes/no", Unit.PERCENT),
  ("gqa.accuracy", Unit.PERCENT),
  ("gqa.distribution", Unit.NUMBER),
  ("rd_refcocog_val.meteor", Unit.PERCENT),
  ("rd_refcocog_val.num_references", Unit.COUNT),
  ("rec_refcoco_val.center_error", Unit.SIDE),
  ("counting.mean_error", Unit.NUMBER),
  ("tgif_qa.missing", Unit.COUNT),
)


@pytest.mark.parametrize("name, unit", NAMES)
def test_a_metric_and_its_deviation_have_the_unit_its_task_states(name, unit):
  assert units.of(name) == units.of(f"{name}.std") == unit


def test_the_unit_in_a_results_file_goes_before_the_one_stated_today():
  assert units.of("gqa.accuracy", {"gqa.accuracy": "share"}) == Unit.SHARE
  assert units.of("gqa.accuracy", {}) == Unit.PERCENT


@pytest.mark.parametrize("name", ["other.accuracy", "gqa.other", "accuracy"])
def test_a_metric_that_no_task_has_is_a_plain_number(name):
  assert units.of(name) == Unit.NUMBER


@pytest.mark.parametrize(
  "value, name, text",
  [
    (0.59, "pope_random.accuracy", "59.0 %"),
    (20.2, "rd_refcocog_val.meteor", "20.2 %"),
    (63.33, "vqav2.accuracy", "63.3 %"),
    (1234.0, "gqa.missing", "1,234"),
    (7.0, "rd_refcocog_val.num_references", "7"),
    (1.25, "counting.mean_error", "1.250"),
    (0.0312, "locpred.center_error", "0.031"),
  ],
)
def test_a_percentage_is_not_multiplied_again(value, name, text):
  assert units.shown(value, units.of(name)) == text


def test_only_a_share_is_a_percentage():
  assert (
    units.percent(0.5, Unit.SHARE) == units.percent(50.0, Unit.PERCENT) == 50
  )
  with pytest.raises(ValueError, match="count"):
    units.percent(3.0, Unit.COUNT)


def test_every_task_states_a_unit_for_every_score_of_its_scorer():
  stated = {"pope_random": pope, "gqa": gqa_scores, "vqav2": vqa_accuracy}
  stated |= {"rd_refcocog_val": captions}
  for name, scorer in stated.items():
    assert scorer.UNITS.items() <= EVALS[name].units.items()

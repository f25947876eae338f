"""Numbers on the page: in their units, counts apart, tasks in order."""

import json

import pytest
from paths import ROOT

from locvlm_jax.reports import tables

SHOWN = {
  "rd_refcocog_val.meteor": (20.2, "20.2 %"),
  "rd_refcocog_val.cider": (60.25, "60.2 %"),
  "rd_refcocog_val.num_references": (2573, "2,573"),
  "gqa.accuracy": (47.31, "47.3 %"),
  "gqa.missing": (12, "12"),
  "vqav2.evalai.accuracy": (50.3, "50.3 %"),
  "counting.mean_error": (1.25, "1.250"),
  "counting.no_number": (3, "3"),
  "counting.num.std": (1.0, "1"),
  "locpred.center_error": (0.0312, "0.031"),
  "hallucination.accuracy": (0.59, "59.0 %"),
  "hallucination.accuracy.std": (0.011, "1.1 %"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_metric_is_shown_in_its_unit(name):
  value, shown = SHOWN[name]
  results = tables.results({"a": {"metrics": {name: value}}})
  (task,) = results.main or results.counts
  assert task.rows[0].values == (shown,)
  assert bool(results.counts) == ("." not in shown)


def test_units_of_the_results_file_go_before_those_of_today():
  stage = {
    "metrics": {"gqa.accuracy": 0.473, "mine.found": 3},
    "units": {"gqa.accuracy": "share", "mine.found": "count"},
  }
  assert tables.format_metric(stage, "gqa.accuracy") == "47.3 %"
  results = tables.results({"a": stage})
  assert [t.task for t in results.main] == ["gqa"]
  assert [t.task for t in results.counts] == ["mine"]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.5"])
def test_what_is_no_finite_number_is_a_dash(value):
  stage = {"metrics": {"locpred.acc_iou50": value}}
  assert tables.format_metric(stage, "locpred.acc_iou50") == "–"
  assert tables.format_metric({}, "locpred.acc_iou50") == "–"


def test_a_file_without_units_is_shown_as_before():
  path = ROOT / "locvlm_jax/assets/micro_reference/results.json"
  stages = json.loads(path.read_text())["stages"]
  for stage in stages.values():
    del stage["units"]  # as those of older files
    for name, value in stage["metrics"].items():
      kind = name.rsplit(".", 1)[-1]
      shown = f"{100 * value:.1f} %"
      if kind in ("mean_iou", "center_error"):
        shown = f"{value:.3f}"
      elif kind in (
        "parse_failures",
        "unclear",
        "no_keyword",
        "both_keywords",
        "cut_off",
      ):
        shown = f"{value:,.0f}"
      elif kind.startswith("num"):
        shown = f"{value:,.0f}"
      assert tables.format_metric(stage, name) == shown, name


def test_counts_are_apart_but_for_how_many_questions_a_task_has():
  metrics = {
    "spatial.num": 20,
    "spatial.icl.num": 10,
    "spatial.icl.all": 0.5,
    "revloc.num": 5,
    "other.x": 1.0,
  }
  results = tables.results({"a": {"metrics": metrics}, "b": {}})
  assert results.models == ("a",)
  labels = [[row.label for row in task.rows] for task in results.main]
  assert labels == [["num"], ["num", "icl · all"], ["x"]]
  assert [task.task for task in results.main] == ["revloc", "spatial", "other"]
  labels = [[row.label for row in task.rows] for task in results.counts]
  assert labels == [["num"], ["num", "icl · num"]]

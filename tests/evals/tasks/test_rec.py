"""Where is "the red one"? Boxes of referring expressions."""

import pytest
import region_files
from eval_scenes import POINTS, ask, rate


@pytest.fixture
def regions(tmp_path):
  return region_files.regions(region_files.write(tmp_path))


def test_an_expression_is_asked_for_as_often_as_it_stands_in_the_file(regions):
  questions = ask("rec_refcoco_testB", regions)
  assert len(questions) == 5
  first = next(q for q in questions if q.id == "1_0/0")
  assert first.question == "Where is the cup?" and first.location
  metrics = rate(
    "rec_refcoco_testB", [first] * 3, ["[10,20,40,60]", "[10,20,40,39]", "?"]
  )
  assert metrics["acc_iou50"] == pytest.approx(1 / 3)
  assert metrics["mean_iou"] == pytest.approx(
    (1 + 0.5) / 3, abs=0.05
  )  # of bins
  assert metrics["num"] == 3


def test_a_region_that_a_crop_removes_is_asked_for_and_missed(regions):
  """The crop of 200 x 100 begins at x = 50, the region ends at 40."""
  questions = ask("rec_refcoco_testB", regions, geometry="center_crop")
  gone = next(q for q in questions if q.id == "2_0/0")
  assert gone.truth["box"] == pytest.approx([-0.5, 0.0, -0.1, 0.4])
  metrics = rate("rec_refcoco_testB", [gone], ["[0,0,40,40]"])
  assert metrics["acc_iou50"] == metrics["mean_iou"] == 0


def test_points_are_asked_for_too(regions):
  questions = ask("rec_refcoco_testB", regions, POINTS)
  first = next(q for q in questions if q.id == "1_0/0")
  metrics = rate("rec_refcoco_testB", [first] * 2, ["[20,30]", "[50,30]"])
  assert metrics["acc_in_box"] == 0.5

"""The reliability curve of the page."""

from locvlm_jax.reports.reliability import make_reliability


def rows_of(num):
  return [
    {
      "task": "locpred",
      "probability": 0.001 * (i + 1) / num,
      "result": {"iou": i / num},
    }
    for i in range(num)
  ]


def test_groups_of_boxes_lie_where_expected_and_true_iou_are():
  found = make_reliability(rows_of(200))
  assert found.num == 200 and len(found.dots) == 10
  assert float(found.error) < 0.05
  assert found.median_probability == "0.00051"
  across = [float(dot.x) for dot in found.dots]
  up = [float(dot.y) for dot in found.dots]
  assert across == sorted(across) and up == sorted(up, reverse=True)
  edge = found.left, found.bottom
  assert all(edge[0] <= v <= edge[1] for v in across + up)
  assert "20 boxes: " in found.dots[0].label


def test_without_probabilities_there_is_no_curve():
  assert make_reliability([]) is None
  assert make_reliability(rows_of(20)) is None
  old = [{"task": "locpred", "result": {"iou": 0.5}}] * 200
  assert make_reliability(old) is None

"""The drawing of how the cost grows, and the batches that it is measured on."""

import numpy as np

from benchmarks import scaling
from locvlm_jax.experiments import page


def test_a_chart_shows_work_by_cost_as_a_share_of_the_best():
  drawn = scaling.chart("length", "positions", [(256, 10, 1), (512, 20, 4)])
  (line,) = drawn.lines
  assert [v.mean for v in line.values] == [100.0, 50.0]
  assert drawn.ticks == ((0.0, "256"), (1.0, "512"))
  text = page.figure([drawn])
  assert "positions" in text and "chance<" not in text


def test_trees_have_every_question_once_and_the_image_once_a_row():
  rows = scaling.tree_batch(4, 8)
  assert rows["segments"].shape == rows["tokens"].shape
  assert len(rows["images"]) == 2
  np.testing.assert_array_equal(np.unique(rows["segments"]), [-1, 1, 2, 3, 4])
  assert (rows["segments"] == -1).sum() == 2 * 65
  wider = scaling.padded(rows)
  assert wider["tokens"].shape == wider["segments"].shape == (2, 192)
  assert (wider["segments"] == 0).sum() == 2 * (192 - 65 - 4 * 27)
  assert wider["lengths"].tolist() == [65 + 4 * 27] * 2

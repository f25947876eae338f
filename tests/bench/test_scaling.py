"""The drawing of how the cost grows, and the batches that it is measured on."""

import json
import re

import numpy as np
import pytest

from benchmarks import many_records, scaling
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


def test_axes_that_the_file_has_are_not_measured_again(monkeypatch, tmp_path):
  calls = []

  def measure(value):
    calls.append(value)
    if value == 3:
      raise KeyboardInterrupt
    return value, 2.0 * value, 1.0

  axes = {"first": (measure, (1, 2), "a"), "second": (measure, (3,), "b")}
  monkeypatch.setattr(scaling, "AXES", axes)
  path = str(tmp_path / "scaling.json")
  with pytest.raises(KeyboardInterrupt):
    scaling.measured(["first", "second"], path, small=False)
  assert json.loads((tmp_path / "scaling.json").read_text()).keys() == {"first"}
  found = scaling.measured(["first"], path, small=False)
  assert calls == [1, 2, 3]
  assert found["first"]["points"] == [[1, 2.0, 1.0], [2, 4.0, 1.0]]


@pytest.mark.parametrize("num", [1, 2, 4096, 4097, 9000])
def test_a_file_of_many_records_has_as_many_as_are_asked_for(tmp_path, num):
  path = tmp_path / "records.json"
  many_records.write(str(path), num)
  assert len(json.loads(path.read_text())) == num


def test_charts_stand_three_in_a_row_at_most():
  drawn = scaling.chart("length", "positions", [(256, 10, 1), (512, 20, 4)])
  text = page.figure([drawn] * 3)
  places = re.findall(r'<g transform="translate\((\d+) 0\)"', text)
  assert len(set(places)) == 3
  text = page.figure([drawn] * 4)
  assert f"translate(0 {drawn.height})" in text
  assert f'width="{3 * drawn.width}"' in text

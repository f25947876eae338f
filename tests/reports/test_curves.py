"""Loss curves: all that is finite is drawn, and axes have round numbers."""

import math

import pytest

from locvlm_jax.reports import curves


def test_losses_that_are_not_finite_are_counted_and_left_out():
  rows = [{"step": i, "loss": 4 / (i + 1)} for i in range(2000)]
  curve = curves.make_curve(
    [*rows, {"step": 2000, "loss": math.nan}, {"lr": 1}]
  )
  assert curve.num_not_finite == 1
  assert "nan" not in curve.losses + curve.mean
  points = curve.losses.split()
  assert len(points) <= 501
  assert points[0].startswith("46.0,")
  assert points[-1].startswith("510.0,")


def test_one_step_makes_no_curve():
  assert curves.make_curve([{"step": 1, "loss": 2.0}]) is None


def test_running_mean_of_a_constant_is_the_constant():
  smooth = curves.running_mean([(float(i), 3.0) for i in range(50)])
  assert [v for _, v in smooth] == pytest.approx([3.0] * 50)


def test_labels_are_round_and_inside_the_range():
  assert curves.round_numbers(0.0, 1200.0) == [0, 500, 1000]
  fractions = curves.round_numbers(0.0, 0.7)
  assert fractions == pytest.approx([0, 0.2, 0.4, 0.6])
  assert curves.round_numbers(5.0, 5.0) == [5]

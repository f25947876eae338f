"""Curves of runs, read from their metrics.jsonl."""

import json

import pytest

from locvlm_jax.experiments import learning


def _run(folder, loss) -> str:
  folder.mkdir()
  steps = range(5, 205, 5)
  lines = [json.dumps({"step": s, "loss": loss(s)}) + "\n" for s in steps]
  (folder / "metrics.jsonl").write_text("".join(lines))
  return str(folder)


def test_loss_curves_are_compared_by_averages_over_a_hundred_steps(tmp_path):
  plain = _run(tmp_path / "plain", lambda step: 2.0)
  # The second hundred is 3 % higher; noise of single steps is averaged.
  shifted = _run(
    tmp_path / "shifted",
    lambda s: (2.0 if s <= 100 else 2.06) + 0.5 * (-1) ** (s // 5),
  )
  assert learning.largest_difference(shifted, plain) == pytest.approx(3.0)
  assert learning.largest_difference(plain, plain) == 0.0
  assert learning.largest_difference(plain, str(tmp_path / "none")) is None

"""The measurements run and say what they measured."""

import json

import numpy as np
import pytest
from PIL import Image

from locvlm_jax.bench import __main__ as bench
from locvlm_jax.bench import timing


def run(monkeypatch, capsys, *arguments) -> dict:
  monkeypatch.setattr("sys.argv", ["bench", *arguments])
  bench.main()
  return json.loads(capsys.readouterr().out)


def test_rounds_take_turns():
  calls = []

  def contestant(name, rates):
    def measured():
      calls.append(name)
      return next(rates)

    return measured

  got = timing.rounds(
    {"a": contestant("a", iter([3.0, 1.0, 2.0])),
     "b": contestant("b", iter([7.0, 9.0, 8.0]))}, 3,
  )  # fmt: skip
  assert "".join(calls) == "ababab"
  assert got["a"] == {"median": 2.0, "lowest": 1.0, "highest": 3.0}
  assert got["b"]["median"] == 8.0


def test_input_counts_samples(tmp_path, monkeypatch, capsys):
  rng = np.random.default_rng(0)
  for name in ("a.jpg", "b.jpeg"):
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
  out = str(tmp_path / "out.json")
  got = run(
    monkeypatch, capsys, "input", f"--images={tmp_path}", "--image_size=28",
    "--batches=2", "--rounds=1", "--cores=1", f"--json={out}",
  )  # fmt: skip
  assert got["files"] == 2 and got["ours_per_core"] > 0
  assert json.loads((tmp_path / "out.json").read_text()) == got


def test_input_names_an_empty_folder(tmp_path, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stopped:
    run(monkeypatch, capsys, "input", f"--images={tmp_path}")
  assert stopped.value.code == 78
  assert str(tmp_path) in capsys.readouterr().err

"""Lines of progress, and files that appear whole or not at all."""

import os

import pytest

from locvlm_jax import files, progress


def test_a_line_says_how_far_how_fast_and_how_much_longer():
  line = progress.line("images", 150, 600, 3.0)
  assert line == "images: 150/600, 50.0 a second, 00:00:09 left"
  assert progress.line("images", 0, 600, 3.0).endswith("00:00:00 left")


def test_a_time_of_more_than_a_day_keeps_its_hours():
  assert progress.duration(26 * 3600 + 61.0) == "26:01:01"


def test_progress_is_logged_every_few_seconds_and_at_the_end(monkeypatch):
  seconds = iter((0.0, 1.0, 3.0, 4.0, 4.5))
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
  lines = []
  counter = progress.Progress("images", 8, lines.append, every=2.0)
  for _ in range(4):
    counter.add(2)
  assert [line.split(",")[0] for line in lines] == [
    "images: 4/8",
    "images: 8/8",
  ]


def test_a_file_is_replaced_once_it_is_written(tmp_path):
  path = tmp_path / "x.json"
  files.write_json(str(path), {"b": 1, "a": [2]})
  assert path.read_text() == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}'
  with files.replacing(str(path)) as f:
    f.write("half")
    f.flush()
    assert path.read_text().startswith("{")
    f.write(" and half")
  assert path.read_text() == "half and half"
  files.write_lines(str(path), ["a\n", "b\n"])
  assert path.read_text() == "a\nb\n" and os.listdir(tmp_path) == ["x.json"]


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
  path = tmp_path / "x.bin"
  path.write_bytes(b"old")
  with pytest.raises(KeyError), files.replacing(str(path), "wb") as f:
    f.write(b"new")
    raise KeyError
  assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.bin"]

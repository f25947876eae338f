"""Lists of what is in each video."""

import json

import pytest
from eval_scenes import ask

from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.sources import object_lists


def test_lists_of_objects_ask_about_videos(tmp_path):
  path = tmp_path / "objects.jsonl"
  rows = [
    {"video": "a.mp4", "objects": ["Dog", "ball", "dog", "tree"]},
    {"video": "b.mp4", "objects": ["cup", "owl"]},
    {"video": "c.mp4", "objects": ["cup"]},
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  files = {"hal_act": {"questions": str(path), "media": str(tmp_path)}}
  source = catalog.open_source("hal_act", files)
  assert source.categories == ("ball", "cup", "dog", "owl", "tree")
  questions = ask("hal_act", source, vocabulary=source.categories)
  assert len(questions) == 8
  labels = {
    q.truth["category"]: q.truth["label"]
    for q in questions
    if q.image == str(tmp_path / "a.mp4")
  }
  assert sorted(labels.values()) == ["no", "no", "yes", "yes"]
  assert {c for c, v in labels.items() if v == "no"} == {"cup", "owl"}
  assert all(q.question.endswith("in the video?") for q in questions)
  path.write_text('{"video": "a.mp4"}')
  with pytest.raises(errors.DataError, match=r"objects.jsonl: line 1: wants"):
    object_lists.ObjectLists(str(path), str(tmp_path))

"""Videos in rows: their frames, their wordings, and training on them."""

import json
import os
import pathlib

import numpy as np
import pytest
from clip_files import opened, source, turn
from PIL import Image
from row_specs import row_spec

from configs import locvlm_vid_b, locvlm_vid_b_plus, micro
from locvlm_jax.config import freeze
from locvlm_jax.data import catalog, clips
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.sources import conversations, tracks
from locvlm_jax.text import tokenizer
from locvlm_jax.training import loop


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(num_videos=12)


@pytest.fixture(scope="module")
def text():
  return tokenizer.Tokenizer.load(micro.BASE)


def test_videos_of_evaluation_sets_are_left_out(root, tmp_path):
  path = tmp_path / "test_q.json"
  path.write_text('[{"video_name": "000000000003"}]')
  c = micro.get_config("vid_b_plus")
  c.root = root
  for found in catalog.open_sources(c.data, exclude=[str(path)]).values():
    names = [os.path.basename(record.image) for record in found]
    assert len(names) == 11 and "000000000003.gif" not in names


def test_wordings_speak_of_the_video(root, text):
  spec = row_spec(
    text,
    clips=clips.Clips(4, "square", 32),
    text_length=200,
    vocabulary=source(root, tracks.Tracks).categories,
    max_pairs=8,
    weights=(0.0, 1.0, 0.0),
  )
  make, said = rows_lib.RowMaker(spec), ""
  for seed in range(6):
    row = make(source(root, tracks.Tracks)[0], np.random.default_rng(seed))
    said += text.decode(row["tokens"][: row["lengths"]])
  assert "video" in said and "image" not in said and "picture" not in said


def test_a_row_has_the_frames(root, text):
  spec = row_spec(text, clips=clips.Clips(12, "square", 32), num_visual=28)
  record = source(root, conversations.Videos)[0]
  row = rows_lib.RowMaker(spec)(record, np.random.default_rng(0))
  with Image.open(record.image) as gif:
    num = min(gif.n_frames, 12)
  assert row["images"].shape == (1, 12, 32, 32, 3)
  assert row["frames"].tolist() == [num]
  assert row["images"][0, :num].any((1, 2, 3)).all()
  assert not row["images"][0, num:].any()
  assert (row["tokens"] == -1).sum() == 28 and row["valid"]


def test_a_damaged_video_is_skipped_counted_and_named(root, text, tmp_path):
  record = source(root, conversations.Videos)[0]
  whole = pathlib.Path(record.image).read_bytes()
  (tmp_path / "x.gif").write_bytes(whole[: len(whole) // 2])
  rows = [
    {"video": n, "conversations": turn("What?")}
    for n in ("x.gif", "absent.mp4")
  ]
  make = rows_lib.RowMaker(
    row_spec(text, clips=clips.Clips(4, "square", 32), num_visual=8)
  )
  for bad in opened(tmp_path, rows, conversations.Videos):
    row = make(bad, np.random.default_rng(0))
    assert not row["valid"] and row["images"].shape == (1, 4, 32, 32, 3)
    assert row["frames"].tolist() == [0] and not row["images"].any()
  assert make.counts["skipped"] == 2
  cut, absent = make.skipped.values()
  assert "cut off" in cut and absent == "no such file"


def test_rows_of_all_kinds_have_one_shape(root, text):
  """Text, images and videos have one shape."""
  spec = row_spec(
    text, clips=clips.Clips(4, "square", 32), num_visual=8, text_length=120
  )
  sources = {
    "video_conversations": source(root, conversations.Videos),
    "tracks": source(root, tracks.Tracks),
  }
  mixture = {"video_conversations": 0.5, "tracks": 0.5}
  stream = stream_lib.train_iterator(
    sources,
    rows_lib.RowMaker(spec),
    stream_lib.StreamSpec(mixture, 4, seed=0, window=2, pack=2, threads=0),
  )
  found = next(stream)
  assert found["images"].shape == (2, 2, 4, 32, 32, 3)
  assert found["frames"].shape == (2, 2) and (found["frames"] == 4).all()


@pytest.mark.parametrize(
  "preset",
  [pytest.param(locvlm_vid_b, marks=pytest.mark.slow), locvlm_vid_b_plus],
  ids=["vid_b", "vid_b_plus"],
)
def test_a_tiny_preset_trains_and_reads_each_video_once(
  preset, root, tmp_path, monkeypatch
):
  """With a cache each video is read once."""
  seen, read = [], clips.Clips.read

  def counted(self, path, *change):
    seen.append(path)
    return read(self, path, *change)

  monkeypatch.setattr(clips.Clips, "read", counted)
  c = preset.get_config("tiny")
  c.data.videos = f"{root}/videos"
  c.data.video_conversations = f"{root}/annotations/videos_train.json"
  c.data.tracks = f"{root}/annotations/videos_train.json"
  c.data.sort_window = 0  # one length of rows, one program
  c.video.cache = str(tmp_path / "cache")
  loop.train(freeze(c), str(tmp_path))
  rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(row)["step"] for row in rows] == [1, 2]
  assert json.loads((tmp_path / "data.json").read_text())["skipped"] == {}
  assert len(seen) == len(set(seen)) == 12

"""Videos as sources and rows: conversations, what stands still, training."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from row_specs import row_spec

from configs import locvlm_vid_b, locvlm_vid_b_plus, micro
from locvlm_jax import errors
from locvlm_jax.config import freeze
from locvlm_jax.data import catalog, clips, objectives
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.sources import conversations, object_lists, tracks
from locvlm_jax.microworld import dataset
from locvlm_jax.text import tokenizer
from locvlm_jax.training import loop

DATA = os.environ.get("LOCVLM_TEST_DATA", "")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("world") / "w"
  dataset.write(
    str(path),
    num_train=1,
    num_val=1,
    num_videos=12,
    workers=0,
    log=lambda line: None,
  )
  return str(path)


@pytest.fixture(scope="module")
def text():
  return tokenizer.Tokenizer.load(micro.BASE)


def source(root, kind, split="train"):
  return kind(f"{root}/annotations/videos_{split}.json", f"{root}/videos")


# ------------------------------------------------------------ conversations


def talk(folder, rows, kind=conversations.Videos):
  path = folder / "talk.json"
  path.write_text(json.dumps(rows))
  return kind(str(path), str(folder))


def turn(question, answer="A dog."):
  return [
    {"from": "human", "value": question},
    {"from": "gpt", "value": answer},
  ]


def test_video_chatgpts_files(tmp_path):
  (tmp_path / "v_1.mkv").write_bytes(b"")
  found = talk(
    tmp_path,
    [
      {"id": "a", "video": "v_1.pkl", "conversations": turn("What?\n<video>")},
      {"id": "b", "video": "x/2.gif", "conversations": turn("<video>\nWhat?")},
      {"video_id": "v_1", "q": "Who?", "a": "A cat."},
      {"video_id": "v_9", "q": "Who?", "a": "A cat."},
    ],
  )
  assert [r.image for r in found] == [
    str(tmp_path / n) for n in ("v_1.mkv", "x/2.gif", "v_1.mkv", "v_9")
  ]
  assert found[0].turns == found[1].turns == (("What?", "A dog."),)
  assert found[2].turns == (("Who?", "A cat."),) and found[2].id == "v_1"
  assert found.image_ids() == ["1", "2", "1", "9"]


@pytest.mark.parametrize(
  "row, message",
  [
    ({"conversations": []}, "record 0: field 'video' is missing"),
    ({"video": "../x.mp4", "conversations": []}, "leads outside"),
    ({"video": 7, "conversations": []}, "video 7 is no file name"),
    ({"video_id": "v", "q": "Who?"}, "message 1: None is no text"),
  ],
)
def test_bad_records_are_named(row, message, tmp_path):
  with pytest.raises(errors.DataError, match=message):
    talk(tmp_path, [row])[0]


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(errors.DataError, match="Set --config.data.videos"):
    conversations.Videos("x.json", str(tmp_path / "absent"))


# ----------------------------------------------------------- what stands still


def test_static_is_one_box_in_each_frame_near_the_median():
  box, near, far = ((x, 0.0, x + 10, 10.0) for x in (0.0, 2.0, 6.0))
  assert tracks.static_box([[box], [box], [near]]) == box
  assert tracks.static_box([[box], [box], [far]]) is None  # IoU 0.25
  assert tracks.static_box([[box], [], [box]]) is None
  assert tracks.static_box([[box], [box, near], [box]]) is None
  assert tracks.static_box([]) is None
  assert tracks.static_box([[box], [box], [far]], least=0.2) == box


def test_what_moves_is_present_and_never_asked_for(root):
  found = source(root, tracks.Tracks)
  with open(f"{root}/annotations/videos_train.json") as f:
    notes = json.load(f)["annotations"]
  moving = {}
  for note in notes:
    moving.setdefault(str(note["video_id"]), []).append(note["moving"])
  assert sum(map(sum, moving.values())) > 3
  for record in found:
    assert [o.crowd for o in record.objects] == moving[record.id]
    with Image.open(record.image) as gif:
      width, height = gif.size
    assert (record.width, record.height) == (width, height) and record.is_video
    for thing in objectives.unique_objects(record.objects):
      x1, y1, x2, y2 = thing.box
      assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def tracked(folder, **change):
  note = {
    "id": 5,
    "video_id": 1,
    "category_id": 1,
    "bboxes": [[0, 0, 9, 9], None],
  } | change
  content = {
    "videos": [
      {
        "id": 1,
        "width": 20,
        "height": 10,
        "length": 2,
        "file_names": ["a/0.jpg", "a/1.jpg"],
      }
    ],
    "categories": [{"id": 1, "name": "cup"}],
    "annotations": [note],
  }
  return talk(folder, content, tracks.Tracks)


def test_frames_of_a_folder_and_crowds(tmp_path):
  record = tracked(tmp_path)[0]
  assert record.image == str(tmp_path / "a") and record.objects[0].crowd
  boxes = [[0, 0, 9, 9]] * 2
  assert not tracked(tmp_path, bboxes=boxes)[0].objects[0].crowd
  assert tracked(tmp_path, bboxes=boxes, iscrowd=1)[0].objects[0].crowd
  assert tracked(tmp_path, bboxes=[None, None])[0].objects == ()


@pytest.mark.parametrize(
  "change, message",
  [
    ({"video_id": 2}, "annotation 5: unknown video 2"),
    ({"category_id": 2}, "annotation 5: unknown category 2"),
    ({"bboxes": [None]}, "annotation 5: bboxes is no list of 2 frames"),
    ({"bboxes": [[0, 0, 1], None]}, r"annotation 5: bbox .* is not \[x, y"),
  ],
)
def test_bad_tracks_are_named(change, message, tmp_path):
  with pytest.raises(errors.DataError, match=message):
    tracked(tmp_path, **change)


def test_videos_of_evaluation_sets_are_left_out(root, tmp_path):
  path = tmp_path / "test_q.json"
  path.write_text('[{"video_name": "000000000003"}]')
  data = micro.get_config("vid_b_plus").data
  data.videos = f"{root}/videos"
  for name in ("video_conversations", "tracks"):
    data[name] = f"{root}/annotations/videos_train.json"
  sources = catalog.open_sources(data, exclude=[str(path)])
  for found in sources.values():
    names = [os.path.basename(record.image) for record in found]
    assert len(names) == 11 and "000000000003.gif" not in names


def test_boxes_over_frames_say_what_is_in_a_video(root):
  path = f"{root}/annotations/videos_val.json"
  found = object_lists.ObjectLists(path, f"{root}/videos")
  whole = source(root, tracks.Tracks, "val")
  for one, other in zip(found, whole, strict=True):
    names = [o.category for o in other.objects]
    assert one.image == other.image and names
    assert [o.category for o in one.objects] == names


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


# ---------------------------------------------------------------------- rows


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
  for bad in talk(tmp_path, rows):
    row = make(bad, np.random.default_rng(0))
    assert not row["valid"] and row["images"].shape == (1, 4, 32, 32, 3)
    assert row["frames"].tolist() == [0] and not row["images"].any()
  assert make.counts["skipped"] == 2
  cut, absent = make.skipped.values()
  assert "cut off" in cut and absent == "no such file"


def test_rows_of_the_stream(root, text):
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
    mixture,
    rows_lib.RowMaker(spec),
    batch_size=4,
    seed=0,
    window=2,
    pack=2,
    threads=0,
  )
  found = next(stream)
  assert found["images"].shape == (2, 2, 4, 32, 32, 3)
  assert found["frames"].shape == (2, 2) and (found["frames"] == 4).all()


# ------------------------------------------------------------------- training


@pytest.mark.parametrize(
  "preset",
  [pytest.param(locvlm_vid_b, marks=pytest.mark.slow), locvlm_vid_b_plus],
  ids=["vid_b", "vid_b_plus"],
)
def test_tiny_presets_train(preset, root, tmp_path, monkeypatch):
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

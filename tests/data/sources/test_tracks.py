"""What stands still in videos, from boxes over their frames."""

import json

import pytest
from clip_files import opened, source
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data import objectives
from locvlm_jax.data.sources import object_lists, tracks


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(num_videos=12)


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
  return opened(folder, content, tracks.Tracks)


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


def test_boxes_over_frames_say_what_is_in_a_video(root):
  path = f"{root}/annotations/videos_val.json"
  found = object_lists.ObjectLists(path, f"{root}/videos")
  whole = source(root, tracks.Tracks, "val")
  for one, other in zip(found, whole, strict=True):
    names = [o.category for o in other.objects]
    assert one.image == other.image and names
    assert [o.category for o in one.objects] == names

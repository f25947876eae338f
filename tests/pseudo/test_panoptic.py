"""Pseudo-boxes and absences from panoptic segmentations."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from zygote import run

from locvlm_jax import errors
from locvlm_jax.data import objectives
from locvlm_jax.data.sources import coco, tracks
from locvlm_jax.pseudo import pseudo_boxes, segmentations

DATA = os.environ.get("LOCVLM_TEST_DATA", "")
KINDS = [{"id": 1, "name": "cup", "isthing": 1},
         {"id": 2, "name": "dog", "isthing": 1},
         {"id": 3, "name": "chair", "isthing": 1},
         {"id": 9, "name": "sky", "isthing": 0}]  # fmt: skip


def _segment(number, category, **more):
  return {"id": number, "category_id": category, "iscrowd": 0, **more}


@pytest.fixture
def world(tmp_path):
  """One image of 20 x 10: a cup, a tiny cup, a dog, sky; then one half void."""
  ids = np.zeros((2, 10, 20), np.uint32)
  ids[0] = 70_000
  ids[0, 2:8, 3:9], ids[0, 0, 0], ids[0, 5:10, 12:20] = 300, 301, 5
  ids[1, :, :8] = 300
  segments = [
    [
      _segment(300, 1),
      _segment(301, 1),
      _segment(5, 2, score=0.9),
      _segment(70_000, 9),
      _segment(8, 3),
    ],  # the chair is hidden
    [_segment(300, 3)],
  ]
  (tmp_path / "v").mkdir()
  for i in range(2):
    pixels = segmentations.segment_pixels(ids[i])
    Image.fromarray(pixels).save(tmp_path / f"v/{i}.png")
  content = {
    "images": [
      {"id": i, "file_name": f"v/{i}.jpg", "width": 20, "height": 10}
      for i in range(2)
    ],
    "categories": [dict(kind) for kind in KINDS],
    "annotations": [
      {"image_id": i, "file_name": f"v/{i}.png", "segments_info": segments[i]}
      for i in range(2)
    ],
  }
  return tmp_path, content


def _made(world, **rules):
  (world[0] / "p.json").write_text(json.dumps(world[1]))
  source = segmentations.Segmentations(str(world[0] / "p.json"), str(world[0]))
  return pseudo_boxes.pseudo_boxes(source, pseudo_boxes.Selection(**rules))


def _instances(world, content):
  path = world[0] / "i.json"
  path.write_text(json.dumps(content))
  return coco.Instances(str(path), str(world[0]))


def test_boxes_and_absences(world):
  content, summary = _made(world, min_share=0.01)
  source = _instances(world, content)
  cup, tiny, dog = source[0].objects
  assert (cup.box, cup.crowd) == ((3, 2, 9, 8), False)
  assert (tiny.box, tiny.crowd) == ((0, 0, 1, 1), True)
  assert (dog.category, dog.box) == ("dog", (12, 5, 20, 10))
  assert [o.category for o in objectives.unique_objects(source[0].objects)] == [
    "dog"
  ]
  # A chair is said to be there; more than a tenth of image 1 has no segment.
  assert source.categories == ("cup", "dog", "chair")
  assert (source[0].absent, source[1].absent) == ((), ())
  assert summary == {
    "images": {
      "used": 2,
      "with too many pixels of no segment": 1,
      "without a mask": 0,
    },
    "segments": {
      "used": 3,
      "not alone": 1,
      "small": 1,
      "stuff": 1,
      "no pixels": 1,
    },
    "absent": 0,
  }


def test_what_is_absent_is_denied_and_nothing_else(world):
  del world[1]["annotations"][0]["segments_info"][4]  # no chair any more
  content, _ = _made(world, max_void=0.7)
  source = _instances(world, content)
  found = [objectives.absent(source[i], source.categories) for i in range(2)]
  assert found == [["chair"], ["cup", "dog"]]
  content["images"][1]["absent"] = [1]
  record = _instances(world, content)[1]
  assert objectives.absent(record, source.categories) == ["cup"]
  for listed, message in (
    ([3], "image 1: absent lists 'chair', which is annotated"),
    ([7], "image 1: absent has unknown category 7"),
    (["cup"], "image 1: absent has unknown category 'cup'"),
    (3, "image 1: absent 3 is not a list"),
  ):
    content["images"][1]["absent"] = listed
    with pytest.raises(errors.DataError, match=message):
      _instances(world, content)


def test_selected_categories_scores_and_what_may_be_denied(world):
  def fates(**rules):
    content, summary = _made(world, max_void=1.0, **rules)
    names = {k["id"]: k["name"] for k in content["categories"]}
    found = {names[n["category_id"]]: n["fate"] for n in content["annotations"]}
    return (
      names,
      found,
      [[names[i] for i in row["absent"]] for row in content["images"]],
    )

  names, found, absent = fates(categories=("dog",), deny="selected")
  assert list(names.values()) == ["dog"] and found == {"dog": "used"}
  assert absent == [[], ["dog"]]
  _, found, absent = fates(categories=("dog",))
  assert found == {
    "dog": "used",
    "cup": "not selected",
    "chair": "not selected",
  }
  assert absent == [[], ["cup", "dog"]]
  _, found, absent = fates(min_score=0.95, deny="all")
  assert found["dog"] == "unsure" and found["sky"] == "stuff"
  assert absent == [[], ["cup", "dog", "sky"]]
  with pytest.raises(ValueError, match="category 'cow' is not in the file; it"):
    fates(categories=("cow",))
  with pytest.raises(ValueError, match="category 'sky' is stuff"):
    fates(categories=("sky",))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda c: c["annotations"][0].update(image_id=7), "unknown image 7"),
    (lambda c: c["annotations"][1].update(image_id=0), "a second one of imag"),
    (lambda c: c["annotations"][0].update(file_name="../v/0.png"), "leads out"),
    (
      lambda c: c["annotations"][0]["segments_info"].append(_segment(5, 1)),
      "two of segments have the same id 5",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(_segment(0, 1)),
      "segment 0: its id is not in 1",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(_segment(4, 5)),
      "segment 4: unknown category 5",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].pop(0),
      "annotation 0: v/0.png has segment 300, which is not",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(
        _segment(4, 1, score=float("nan"))
      ),
      r"score nan is not in \[0, 1\]",
    ),
    (lambda c: c["annotations"][0].pop("segments_info"), "'segments_info' is"),
    (lambda c: c["categories"][0].pop("isthing"), "isthing None is neither"),
    (lambda c: c["images"][0].update(width=0), "is not positive"),
  ],
)
def test_wrong_files_are_named(world, change, message):
  change(world[1])
  with pytest.raises(errors.DataError, match="p.json: .*" + message):
    _made(world)


def test_masks_that_cannot_be_used_are_counted(world):
  (world[0] / "v/0.png").write_bytes(b"junk")
  Image.new("RGB", (10, 20)).save(world[0] / "v/1.png")
  content, summary = _made(world)
  assert summary["images"] == {"with an unusable mask": 2, "without a mask": 0}
  assert content["images"] == []  # an image without objects would have none


def test_frames_become_videos(world):
  del world[1]["annotations"][0]["segments_info"][4]
  content = pseudo_boxes.by_video(_made(world, max_void=1.0, min_share=0.01)[0])
  (world[0] / "t.json").write_text(json.dumps(content))
  (record,) = tracks.Tracks(str(world[0] / "t.json"), str(world[0]))
  assert record.image == str(world[0] / "v") and record.is_video
  assert all(o.crowd for o in record.objects)  # in one of two frames alone
  assert record.absent == ()
  content = _made(world, max_void=1.0)[0]
  content["images"][1]["file_name"] = "1.jpg"
  with pytest.raises(ValueError, match="'1.jpg' is in no folder"):
    pseudo_boxes.by_video(content)
  content["images"][1] |= {"file_name": "v/1.jpg", "width": 10}
  with pytest.raises(ValueError, match="v/1.jpg has another size"):
    pseudo_boxes.by_video(content)


def test_what_stands_still_over_frames_is_asked_for(world):
  notes = world[1]["annotations"]
  notes[1] = {**notes[0], "image_id": 1}
  del notes[0]["segments_info"][4]
  content = pseudo_boxes.by_video(_made(world, max_void=0.0)[0])
  (world[0] / "t.json").write_text(json.dumps(content))
  (record,) = tracks.Tracks(str(world[0] / "t.json"), str(world[0]))
  assert [o.category for o in objectives.unique_objects(record.objects)] == [
    "dog"
  ]
  assert record.absent == ("chair",)


@pytest.fixture(scope="module")
def micro(microworld):
  return pathlib.Path(microworld(num_train=8), "annotations")


def _command(panoptic_json, masks, instances, out, *flags):
  done = run(
    "pseudo_label",
    "--mode=panoptic",
    f"--panoptic={panoptic_json}",
    f"--masks={masks}",
    f"--out={out}",
    f"--compare={instances}",
    *flags,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(pathlib.Path(f"{out}.summary.json").read_text())


def test_the_microworld_by_the_command(micro, tmp_path):
  """Its boxes are tight to the pixels, so that both files are the same."""
  real_path = micro / "instances_train.json"
  found = _command(
    micro / "panoptic_train.json",
    micro / "panoptic_train",
    real_path,
    tmp_path / "o.json",
    "--min_share=0",
  )
  folder = str(micro)
  real = coco.Instances(str(real_path), folder)
  made = coco.Instances(str(tmp_path / "o.json"), folder)
  assert set(made.categories) > set(real.categories) and len(made) == 8
  for i in range(8):
    boxes = [
      sorted(
        (o.category, o.box, o.crowd)
        for o in source[i].objects
        if o.category in real.categories
      )
      for source in (made, real)
    ]
    assert boxes[0] == boxes[1]
    denied = [objectives.absent(s[i], real.categories) for s in (made, real)]
    assert denied[0] == denied[1]
  assert found["compared"]["denied, annotated"] == 0
  assert found["compared"]["alone"] == found["compared"]["alone, IoU 0.5"] > 8
  assert found["settings"]["min_share"] == 0 and len(found["sha256"]) == 64
  assert json.loads((tmp_path / "o.json").read_text())["info"]["settings"]


def test_missing_flags_are_named(tmp_path):
  done = run("pseudo_label", "--mode=panoptic", f"--out={tmp_path}/o.json")
  assert done.returncode == 78 and "--panoptic is missing" in done.stderr


@pytest.mark.skipif(not DATA, reason="LOCVLM_TEST_DATA names no folder coco/")
@pytest.mark.parametrize("split, num", [("train2017", 100), ("val2017", 40)])
def test_boxes_of_real_masks_are_those_of_the_json(split, num):
  folder = pathlib.Path(DATA, "coco/annotations")
  path = folder / f"panoptic_{split}.json"
  source = segmentations.Segmentations(str(path), str(folder / path.stem))
  rows = json.loads(path.read_text())["annotations"]
  assert len(source) == num == len(rows)
  for found, row in zip(source.each(2), rows, strict=True):
    for got, want in zip(found.segments, row["segments_info"], strict=True):
      x1, y1, x2, y2 = got.box
      assert [x1, y1, x2 - x1, y2 - y1] == want["bbox"]
      assert (got.id, got.area) == (want["id"], want["area"])


@pytest.mark.skipif(not DATA, reason="LOCVLM_TEST_DATA names no folder coco/")
def test_absences_of_real_masks_agree_with_the_annotations(tmp_path):
  folder = pathlib.Path(DATA, "coco/annotations")
  found = _command(
    folder / "panoptic_train2017.json",
    folder / "panoptic_train2017",
    folder / "instances_train2017.json",
    tmp_path / "o.json",
    "--max_void=1",
    "--min_share=0",
  )["compared"]
  assert found == {
    "images": 100,
    "denied": 7709,
    "denied, annotated": 0,
    "alone": 171,
    "alone, IoU 0.5": 171,
  }

"""Panoptic segmentations are read as they are, or refused by name."""

import json
import os
import pathlib

import panoptic_files
import pytest
from panoptic_files import made, segment
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.pseudo import segmentations

DATA = os.environ.get("LOCVLM_TEST_DATA", "")


@pytest.fixture
def world(tmp_path):
  return panoptic_files.write(tmp_path)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda c: c["annotations"][0].update(image_id=7), "unknown image 7"),
    (lambda c: c["annotations"][1].update(image_id=0), "a second one of imag"),
    (lambda c: c["annotations"][0].update(file_name="../v/0.png"), "leads out"),
    (
      lambda c: c["annotations"][0]["segments_info"].append(segment(5, 1)),
      "two of segments have the same id 5",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(segment(0, 1)),
      "segment 0: its id is not in 1",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(segment(4, 5)),
      "segment 4: unknown category 5",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].pop(0),
      "annotation 0: v/0.png has segment 300, which is not",
    ),
    (
      lambda c: c["annotations"][0]["segments_info"].append(
        segment(4, 1, score=float("nan"))
      ),
      r"score nan is not in \[0, 1\]",
    ),
    (lambda c: c["annotations"][0].pop("segments_info"), "'segments_info' is"),
    (lambda c: c["categories"][0].pop("isthing"), "isthing None is neither"),
    (lambda c: c["images"][0].update(width=0), "is not positive"),
  ],
)
def test_wrong_files_are_named(world, change, message):
  change(world.content)
  with pytest.raises(errors.DataError, match="p.json: .*" + message):
    made(world)


def test_masks_that_cannot_be_used_are_counted(world):
  (world.folder / "v/0.png").write_bytes(b"junk")
  Image.new("RGB", (10, 20)).save(world.folder / "v/1.png")
  content, summary = made(world)
  assert summary["images"] == {"with an unusable mask": 2, "without a mask": 0}
  assert content["images"] == []  # an image without objects would have none


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

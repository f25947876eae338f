"""Pseudo-boxes compared with annotations, by the command."""

import json
import os
import pathlib

import pytest
from zygote import run

from locvlm_jax.data import objectives
from locvlm_jax.data.sources import coco

DATA = os.environ.get("LOCVLM_TEST_DATA", "")


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


def test_pseudo_boxes_of_exact_masks_are_the_annotated_boxes(micro, tmp_path):
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

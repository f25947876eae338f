"""Referring expressions: region description, and boxes of expressions."""

import json
import os
import pathlib

import pytest

from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.sources import refer
from locvlm_jax.evals.tasks import DESCRIBED, EVALS, REFERRED
from locvlm_jax.text import coords

SPEC = coords.Coords("ivb", 100, "box")


def row(image, index, text, box, width=100):
  return {
    "img_id": f"COCO_train2014_{image:012d}_{index}",
    "sents": text,
    "bbox": box,
    "width": width,
    "height": 100,
  }


@pytest.fixture
def path(tmp_path):
  rows = [
    row(1, 0, "the cup", [10, 20, 30, 40]),
    row(1, 4, "cup on a table", [50, 20, 30, 40]),
    row(1, 0, "red one", [10, 20, 30, 40]),
    row(1, 0, "the cup", [10, 20, 30, 40]),
    row(2, 0, "left edge", [0, 0, 40, 40], width=200),
  ]
  path = tmp_path / "refcoco_testB.json"
  path.write_text(json.dumps(rows))
  return str(path)


def regions(path):
  return refer.Regions(path, os.path.dirname(path), "testB")


def ask(task, source, geometry="square", coding=SPEC):
  return EVALS[task].examples(source, coding, geometry, 100, (), 0)


def test_expressions_are_grouped_by_image_and_box(path):
  source = regions(path)
  found = [(r.id, r.objects[0].texts) for r in source]
  assert found == [
    ("1_0", ("the cup", "red one", "the cup")),
    ("1_1", ("cup on a table",)),
    ("2_0", ("left edge",)),
  ]
  assert source[0].objects[0].box == (10, 20, 40, 60)
  assert source[2].image.endswith("/000000000002.jpg")
  name = "COCO_train2014_000000000002.jpg"
  (pathlib.Path(path).parent / name).write_bytes(b"")
  assert regions(path)[2].image.endswith(name)
  with pytest.raises(errors.DataError, match="of split 'val'"):
    refer.Regions(path, os.path.dirname(path), "val")


def test_a_region_is_asked_for_once_with_all_references(path):
  examples = {e.id: e for e in ask("rd_refcoco_testB", regions(path))}
  assert len(examples) == 3
  assert examples["1_0"].question == "What is at [10,20,40,60]?"
  assert examples["1_0"].truth["references"] == [
    "the cup",
    "red one",
    "the cup",
  ]
  task = EVALS["rd_refcoco_testB"]
  answers = {"1_0": "A red one.", "1_1": "cup", "2_0": "Left edge"}
  metrics = task.score(list(examples.values()), [answers[i] for i in examples])
  assert metrics == {
    "exact": pytest.approx(2 / 3),
    "num": 3,
    "num_references": 5,
  }


def test_an_expression_is_asked_for_as_often_as_it_stands_in_the_file(path):
  examples = ask("rec_refcoco_testB", regions(path))
  assert len(examples) == 5
  first = next(e for e in examples if e.id == "1_0/0")
  assert first.question == "Where is the cup?" and first.location
  task = EVALS["rec_refcoco_testB"]
  metrics = task.score([first] * 3, ["[10,20,40,60]", "[10,20,40,39]", "?"])
  assert metrics["acc_iou50"] == pytest.approx(1 / 3)
  assert metrics["mean_iou"] == pytest.approx(
    (1 + 0.5) / 3, abs=0.05
  )  # of bins
  assert metrics["num"] == 3


def test_what_a_crop_removes_is_asked_for_and_missed(path):
  """The crop of 200 x 100 begins at x = 50, the region ends at 40."""
  source = regions(path)
  described = ask("rd_refcoco_testB", source, "center_crop")
  assert len(described) == 3
  gone = next(e for e in described if e.id == "2_0")
  assert gone.question == "What is at [0,0,0,40]?"
  asked = ask("rec_refcoco_testB", source, "center_crop")
  gone = next(e for e in asked if e.id == "2_0/0")
  assert gone.truth["box"] == pytest.approx([-0.5, 0.0, -0.1, 0.4])
  metrics = EVALS["rec_refcoco_testB"].score([gone], ["[0,0,40,40]"])
  assert metrics["acc_iou50"] == metrics["mean_iou"] == 0


def test_points_are_asked_for_too(path):
  points = coords.Coords("ivb", 100, "point")
  asked = ask("rec_refcoco_testB", regions(path), coding=points)
  first = next(e for e in asked if e.id == "1_0/0")
  task = EVALS["rec_refcoco_testB"]
  assert task.score([first] * 2, ["[20,30]", "[50,30]"])["acc_in_box"] == 0.5
  described = ask("rd_refcoco_testB", regions(path), coding=points)
  assert any(e.question == "What is at [25,40]?" for e in described)


# rows, and regions, as of the files' SOURCE.md: by img_id, a box each.
COUNTS = {
  "refcoco_testB": (308, 108), "refcocoplus_testB": (306, 112),
  "refcocog_val": (304, 160), "refcocog_test": (302, 157),
}  # fmt: skip


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with refcoco/",
)
@pytest.mark.parametrize("name", REFERRED)
def test_counts_of_real_files(name):
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"])
  file = name.replace("plus", "+") + ".json"
  files = {
    "questions": str(folder / "refcoco" / file),
    "answers": "",
    "media": str(folder / "coco" / "train2017"),
  }
  source = catalog.open_source(name, {name: files})
  rows = json.loads(pathlib.Path(files["questions"]).read_text())
  asked = ask(f"rec_{name}", source, "center_crop")
  assert len(asked) == len(rows)
  assert len(source) == len({r["img_id"] for r in rows})
  if name in DESCRIBED:
    described = ask(f"rd_{name}", source, "center_crop")
    assert (len(asked), len(described)) == COUNTS[name]
    assert sum(len(e.truth["references"]) for e in described) == len(rows)

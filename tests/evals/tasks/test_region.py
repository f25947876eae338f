"""What is at this box? Regions of RefCOCO, with all their expressions."""

import json
import os
import pathlib

import pytest
import region_files
from eval_scenes import POINTS, ask, rate

from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.sources import refer
from locvlm_jax.evals.tasks import DESCRIBED, REFERRED


@pytest.fixture
def path(tmp_path):
  return region_files.write(tmp_path)


@pytest.fixture
def regions(path):
  return region_files.regions(path)


def test_expressions_are_grouped_by_image_and_box(path):
  source = region_files.regions(path)
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
  assert region_files.regions(path)[2].image.endswith(name)
  with pytest.raises(errors.DataError, match="of split 'val'"):
    refer.Regions(path, os.path.dirname(path), "val")


def test_a_region_is_asked_for_once_with_all_references(regions):
  questions = {q.id: q for q in ask("rd_refcoco_testB", regions)}
  assert len(questions) == 3
  assert questions["1_0"].question == "What is at [10,20,40,60]?"
  assert questions["1_0"].truth["references"] == [
    "the cup",
    "red one",
    "the cup",
  ]
  answers = {"1_0": "A red one.", "1_1": "cup", "2_0": "Left edge"}
  metrics = rate(
    "rd_refcoco_testB",
    list(questions.values()),
    [answers[i] for i in questions],
  )
  # Where pycocoevalcap and Java are, there are METEOR and CIDEr besides.
  assert {k: metrics[k] for k in metrics if k not in ("meteor", "cider")} == {
    "exact": pytest.approx(2 / 3),
    "num": 3,
    "num_references": 5,
  }


def test_a_region_that_a_crop_removes_is_asked_for_at_the_edge(regions):
  """The crop of 200 x 100 begins at x = 50, the region ends at 40."""
  questions = ask("rd_refcoco_testB", regions, geometry="center_crop")
  assert len(questions) == 3
  gone = next(q for q in questions if q.id == "2_0")
  assert gone.question == "What is at [0,0,0,40]?"


def test_a_region_is_asked_for_by_its_center_in_points(regions):
  questions = ask("rd_refcoco_testB", regions, POINTS)
  assert any(q.question == "What is at [25,40]?" for q in questions)


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
  asked = ask(f"rec_{name}", source, geometry="center_crop")
  assert len(asked) == len(rows)
  assert len(source) == len({r["img_id"] for r in rows})
  if name in DESCRIBED:
    described = ask(f"rd_{name}", source, geometry="center_crop")
    assert (len(asked), len(described)) == COUNTS[name]
    assert sum(len(q.truth["references"]) for q in described) == len(rows)

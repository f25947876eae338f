"""Referring expressions: three kinds of file, and what is asked about them."""

import json
import os
import pathlib
import pickle
import re

import ml_collections
import numpy as np
import pytest

from locvlm_jax import errors
from locvlm_jax.data import catalog, geometry, objectives
from locvlm_jax.data.exclude import exclusion, leakage
from locvlm_jax.data.sources.refer import Refer
from locvlm_jax.text import coords

COORDS = coords.Coords("ivb", 100, "box")
DATA = os.environ.get("LOCVLM_TEST_DATA", "")


def _instances():
  images = [
    {
      "id": i,
      "file_name": f"COCO_train2014_{i:012d}.jpg",
      "width": 100,
      "height": 50,
    }
    for i in (1, 2, 3)
  ]
  notes = [
    {
      "id": 10 * i + k,
      "image_id": i,
      "category_id": 1,
      "bbox": [40 * k, 5, 20, 30],
    }
    for i in (1, 2, 3)
    for k in (0, 1)
  ]
  return {"images": images, "annotations": notes}


def _ref(note, split, *said):
  return {
    "ref_id": 7,
    "ann_id": note,
    "image_id": note // 10,
    "split": split,
    "file_name": "COCO_train2014_000000000001_0.jpg",
    "category_id": 1,
    "sentences": [{"sent": s, "sent_id": i} for i, s in enumerate(said)],
  }


REFS = [
  _ref(10, "train", "left  cup", "the cup", "left cup"),
  _ref(11, "train", "her  \u676f", "Cup."),
  _ref(20, "train", "cup on the left"),
  _ref(21, "testA", "right cup"),
  _ref(30, "train", "a cup", "", "two cups"),
]


@pytest.fixture
def official(tmp_path):
  (tmp_path / "instances.json").write_text(json.dumps(_instances()))
  path = tmp_path / "refs(unc).p"
  path.write_bytes(pickle.dumps(REFS, protocol=2))
  return path


def open_(path, split="train"):
  return Refer(str(path), str(pathlib.Path(path).parent), split)


def test_the_official_release(official):
  source = open_(official)
  one, three = (source[i] for i in range(len(source)))
  assert [o.texts for o in one.objects] == [("left cup",), ("her \u676f",)]
  assert [o.box for o in one.objects] == [(0, 5, 20, 35), (40, 5, 60, 35)]
  assert (one.id, one.width, one.height, one.exhaustive) == (
    "1",
    100,
    50,
    False,
  )
  assert [o.texts for o in three.objects] == [("a cup", "two cups")]
  assert source.image_ids() == [1, 3]
  # "the cup" and "Cup." name two boxes; image 2 has an expression of testA.
  assert source.dropped == {
    "of another split": 1,
    "tested image": 1,
    "empty": 1,
    "ambiguous": 2,
    "said before": 1,
  }
  assert [r.id for r in [open_(official, "testA")[0]]] == ["2"]


def test_names_of_either_year(official):
  assert open_(official)[0].image.endswith("/000000000001.jpg")
  old = official.parent / "COCO_train2014_000000000003.jpg"
  old.write_bytes(b"")
  assert open_(official)[0].image.endswith("/COCO_train2014_000000000001.jpg")
  assert open_(official)[1].image == str(old)


def _rows():
  row = {
    "img_id": "COCO_train2014_000000000001_12",
    "sents": "left cup",
    "bbox": [0, 5, 20, 30],
    "height": 50,
    "width": 100,
  }
  return [
    row,
    {**row, "sents": "blue cup"},
    {
      **row,
      "img_id": "COCO_train2014_000000000001_1996153",
      "sents": "right cup",
      "bbox": [40, 5, 20, 30],
    },
  ]


def test_rows_belong_together_by_image_and_box(tmp_path):
  path = tmp_path / "refcoco_train.json"
  path.write_text(json.dumps(_rows()))
  (record,) = open_(path)
  assert [o.texts for o in record.objects] == [
    ("left cup", "blue cup"),
    ("right cup",),
  ]
  path.rename(tmp_path / "refcoco_testB.json")
  with pytest.raises(errors.DataError, match="no expression of split 'train'"):
    open_(tmp_path / "refcoco_testB.json")
  assert len(open_(tmp_path / "refcoco_testB.json", "testB")) == 1


def test_several_files_are_one_source(official):
  rows = official.parent / "refcoco+_train.json"
  rows.write_text(json.dumps(_rows()))
  source = Refer(f"{official},{rows}", str(official.parent))
  assert len(source) == 2
  assert source[0].objects[0].texts == ("left cup", "blue cup")


def test_the_microworlds_references_are_read(microworld):
  root = microworld(num_train=6)
  path = f"{root}/annotations/refs_train.json"
  source = Refer(path, f"{root}/images/train")
  refs = json.loads(pathlib.Path(path).read_text())
  assert {o.texts for i in range(len(source)) for o in source[i].objects} == {
    tuple(s["sent"] for s in r["sentences"]) for r in refs
  }
  for i in range(len(source)):
    assert source[i].width and pathlib.Path(source[i].image).is_file()


class _Canary:
  def __reduce__(self):
    return os.mkdir, (str(pathlib.Path(os.environ["CANARY"])),)


@pytest.mark.parametrize("content", [_Canary(), np.int64(3), open_])
def test_a_pickle_runs_nothing(content, official, monkeypatch):
  canary = official.parent / "canary"
  monkeypatch.setenv("CANARY", str(canary))
  official.write_bytes(pickle.dumps([content]))
  with pytest.raises(errors.DataError, match=r"refs\(unc\).p.*it asks for"):
    open_(official)
  assert not canary.exists()


def _changed(key, value):
  def change(refs):
    refs[0][key] = value

  return change


@pytest.mark.parametrize(
  "change, message",
  [
    (_changed("ann_id", 99), "reference 0: ann_id 99 is not in .*instances"),
    (_changed("ann_id", 20), "reference 0: its ann_id is of image 2"),
    (_changed("image_id", [1]), r"reference 0: image_id \[1\] is not in"),
    (_changed("sentences", 3), "reference 0: 'sentences' is not a list"),
    (_changed("sentences", [{"sent": 3}]), "reference 0: expression 3"),
    (lambda refs: refs[1].pop("split"), "reference 1: field 'split' is miss"),
    (lambda refs: refs.insert(1, 5), "reference 1: field 'ann_id' is missing"),
    (_changed("split", ["train"]), "reference 0: split .* is not a text"),
  ],
)
def test_wrong_references_are_named(change, message, official):
  refs = json.loads(json.dumps(REFS))
  change(refs)
  official.write_bytes(pickle.dumps(refs))
  with pytest.raises(errors.DataError, match=r"refs\(unc\)\.p: " + message):
    open_(official)


def test_broken_files_are_named(official):
  official.write_bytes(official.read_bytes()[:-20])
  with pytest.raises(
    errors.DataError, match=r"refs\(unc\).p: not a plain pick"
  ):
    open_(official)
  with pytest.raises(errors.DataError, match="nowhere.p: no such file"):
    open_(official.parent / "nowhere.p")
  rows = official.parent / "x.json"
  rows.write_text(json.dumps([{**_rows()[0], "img_id": "cat.jpg"}]))
  with pytest.raises(errors.DataError, match="record 0: img_id 'cat.jpg' has"):
    open_(rows)
  for change, message in (
    ({"bbox": [1, 2, None, 4]}, "bbox .* non-number"),
    ({"width": "100"}, "width '100' is not an integer"),
    ({"height": 0}, r"size \(100, 0\) is not positive"),
    ({"img_id": "../COCO_train2014_000000000001_2"}, "file name .* is no name"),
    ({"img_id": "/COCO_train2014_000000000001_2"}, "file name .* is no name"),
    ({"img_id": None}, "img_id None has no COCO id"),
    ({"sents": ["a"]}, "expression .* is not a text"),
  ):
    rows.write_text(json.dumps([{**_rows()[0], **change}]))
    with pytest.raises(errors.DataError, match="record 0: " + message):
      open_(rows)


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda c: c["images"][1].update(id=1), "two of images have the same id 1"),
    (lambda c: c["annotations"][1].update(id=10), "two of annotations have"),
    (lambda c: c["images"][0].update(file_name="../../etc/passwd"), "passwd"),
    (lambda c: c["images"][0].update(width=1.5), "width 1.5 is not an integer"),
    (lambda c: c.pop("images"), "field 'images' is missing"),
  ],
)
def test_wrong_instances_beside_references_are_named(change, message, official):
  content = _instances()
  change(content)
  (official.parent / "instances.json").write_text(json.dumps(content))
  with pytest.raises(errors.DataError, match=message):
    open_(official)


def _asked(record, seed, weights=(1.0, 1.0, 1.0)):
  spec = objectives.PairSpec(COORDS, ("cup", "dog"), 8, weights)
  rng = np.random.default_rng(seed)
  return objectives.pairs(record, geometry.square(100, 50, 100), spec, rng)


def test_expressions_are_located_and_given_and_nothing_is_denied(official):
  record = open_(official)[1]
  said = set()
  for seed in range(40):
    (pair,) = _asked(record, seed)  # an object is asked about once
    assert "[0,10,20,70]" in pair.question + pair.answer
    if pair.objective == "loc_pred":
      assert re.search(r"\b(the cup|the two cups)\b", pair.question)
    else:
      assert pair.answer in ("a cup", "two cups")
    said.add((pair.objective, "two" in pair.question + pair.answer))
  assert len(said) == 4
  assert _asked(record, 0, (0.0, 1.0, 0.0)) == []


def test_it_is_mixed_in(official):
  tested = official.parent / "tested.json"
  tested.write_text('[{"image_id": 3}]')
  data = ml_collections.ConfigDict(
    {
      "refer": str(official),
      "images": str(official.parent),
      "mixture": {"refer": 1.0, "instances": 0.0},
    }
  )
  source = catalog.open_sources(data, exclude=[str(tested)])["refer"]
  assert isinstance(source, exclusion.WithoutExcluded)
  assert source.image_ids() == [1] and source.categories == ()


@pytest.mark.skipif(not DATA, reason="LOCVLM_TEST_DATA names no refcoco/")
@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_real_expressions(name):
  path = pathlib.Path(DATA, "refcoco", f"{name}_val.json")
  source = Refer(str(path), str(pathlib.Path(DATA, "coco/train2017")), "val")
  rows = json.loads(path.read_text())
  boxes = {
    (leakage.coco_id(r["img_id"]), " ".join(r["sents"].split())): r["bbox"]
    for r in rows
  }
  count = 0
  for i in range(len(source)):
    for o in source[i].objects:
      for text in o.texts:
        x, y, w, h = boxes[int(source[i].id), text]
        np.testing.assert_allclose(o.box, (x, y, x + w, y + h), atol=1e-9)
        count += 1
  assert count + sum(source.dropped.values()) == len(rows) > 100
  assert any(
    pathlib.Path(source[i].image).is_file() for i in range(len(source))
  )

"""Data sets of detection as they are unpacked: LVIS, ODinW, RF100-VL."""

import json
import pathlib
import shutil

import box_files
import pytest

from locvlm_jax import errors
from locvlm_jax.data import objectives
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.sources import any_format
from locvlm_jax.fitting import division

_SCENES = [
  ("1.png", (40, 30), [("alarm_clock", (2, 3, 12, 15)),
                       ("bow_(ribbon)", (20, 5, 28, 13))]),
  ("2.png", (31, 47), [("alarm_clock", (1, 1, 9, 8))]),
]  # fmt: skip


def _lvis(folder: pathlib.Path) -> str:
  return box_files.write_lvis(
    folder, _SCENES, negative=["hot_dog"], open_=["bow_(ribbon)"]
  )


def test_lvis_is_read_from_the_folder_of_coco_s_pictures(tmp_path):
  path = _lvis(tmp_path / "d")
  file = f"{path}/annotations/lvis_v1_train.json"
  for name in (path, file):
    source = any_format.AnyInstances(name, "")
    assert source[0].image == f"{path}/train2017/1.png"
    assert source.categories == (
      "alarm clock", "bow (ribbon)", "hot dog", "never said",
    )  # fmt: skip
    assert "boxes of not_exhaustive_category_ids that count as crowds: 1" in (
      repr(source)
    )
  pictures = any_format.AnyInstances(file, path)
  assert pictures[1].image == f"{path}/train2017/2.png"


def test_of_lvis_only_what_was_looked_for_is_denied_or_listed(tmp_path):
  source = any_format.AnyInstances(_lvis(tmp_path / "d"), "")
  first = source[0]
  assert objectives.absent(first, source.categories) == ["hot dog"]
  assert [(o.category, o.crowd) for o in first.objects] == [
    ("alarm clock", False), ("bow (ribbon)", True),
  ]  # fmt: skip
  assert [o.area for o in first.objects] == [60.0, 32.0]


@pytest.mark.parametrize("key", ["neg", "not_exhaustive"])
def test_lists_of_lvis_that_are_none_are_named(tmp_path, key):
  path = pathlib.Path(_lvis(tmp_path / "d"), "annotations/lvis_v1_train.json")
  content = json.loads(path.read_text())
  content["images"][1][f"{key}_category_ids"] = "hot_dog"
  path.write_text(json.dumps(content))
  with pytest.raises(errors.DataError, match=f"image 1: {key}_category_ids"):
    any_format.AnyInstances(str(path), "")


def test_lvis_and_coco_of_one_folder_are_told_apart_by_their_splits(tmp_path):
  path = _lvis(tmp_path / "d")
  other = box_files.write_coco(tmp_path / "e", _SCENES[:1])
  shutil.move(other, f"{path}/annotations/instances_train2017.json")
  assert recognize.splits(path) == ("train2017", "train")
  assert len(any_format.AnyInstances(f"{path}:train", "")) == 2
  assert len(any_format.AnyInstances(f"{path}:train2017", "")) == 1


def _roboflow(folder: pathlib.Path, scenes) -> pathlib.Path:
  """COCO json whose category 0 stands for the data set, called as the first."""
  path = pathlib.Path(box_files.write_coco(folder, scenes))
  content = json.loads(path.read_text())
  for row in (*content["categories"], *content["annotations"]):
    row["id" if "name" in row else "category_id"] += 1
  root = content["categories"][0]["name"]
  for kind in content["categories"]:
    kind["supercategory"] = root
  content["categories"].insert(
    0, {"id": 0, "name": root, "supercategory": "none"}
  )
  path.write_text(json.dumps(content))
  return path


def test_rf100_vl_is_divided_by_its_folders(tmp_path):
  for split, scenes in (("train", _SCENES), ("valid", _SCENES[1:]),
                        ("test", _SCENES[:1])):  # fmt: skip
    _roboflow(tmp_path / "d" / split, scenes)
  (tmp_path / "d" / "README.roboflow.txt").write_text("Annotated in COCO")
  divided = division.divide(str(tmp_path / "d"), "", seed=0)
  assert "valid is held out, test not used" in divided.told
  assert "category 'alarm_clock'" in divided.train.told
  names = [k["name"] for k in divided.train.content["categories"]]
  assert names == ["alarm_clock", "bow_(ribbon)"]


def test_of_odinw_the_file_without_background_is_taken(tmp_path):
  for split, scenes in (("train", _SCENES), ("valid", _SCENES[1:])):
    whole = _roboflow(tmp_path / "d" / split, scenes)
    content = json.loads(whole.read_text())
    content["categories"].pop(0)
    name = "annotations_without_background.json"
    (whole.parent / name).write_text(json.dumps(content))
    few = whole.parent / "fewshot_train_shot1_seed3.json"
    shutil.copy(whole, few)
  assert recognize.splits(str(tmp_path / "d")) == ("train", "valid")
  source = any_format.AnyInstances(f"{tmp_path}/d:train", "")
  assert len(source) == 2 and source.category_ids == (1, 2)
  assert "left out" not in repr(source)


def test_of_two_files_in_a_folder_of_a_split_none_is_taken_unsaid(tmp_path):
  first = box_files.write_coco(tmp_path / "d" / "train", _SCENES)
  shutil.copy(first, tmp_path / "d" / "train" / "b.json")
  with pytest.raises(errors.DataError, match="d/train: .*say DIR:SPLIT"):
    any_format.AnyInstances(f"{tmp_path}/d:train", "")
  assert len(any_format.AnyInstances(f"{tmp_path}/d/train:b", "")) == 2

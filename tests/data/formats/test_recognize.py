"""Which data set a path means: its format, its splits, its pictures."""

import shutil

import box_files
import pytest
from PIL import Image
from row_specs import row_spec

from locvlm_jax import errors
from locvlm_jax.data import catalog, rows
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.sources import any_format

_SCENES = [
  ("a.png", (40, 30), [("cup", (2, 3, 12, 15)), ("ball", (20, 5, 28, 13))]),
  ("b.png", (31, 47), [("ball", (1, 1, 9, 8))]),
]


def _boxes(path: str, images: str = "") -> dict:
  source = any_format.AnyInstances(path, images)
  found = (source[i] for i in range(len(source)))
  return {r.id: [o.box for o in r.objects] for r in found}


def test_roboflows_yolo_has_splits_that_begin_with_a_dot_too_many(tmp_path):
  folder = tmp_path / "d"
  box_files.write_yolo(folder / "train", _SCENES)
  box_files.write_yolo(folder / "valid", _SCENES[1:])
  (folder / "train/data.yaml").unlink()
  (folder / "valid/data.yaml").unlink()
  (folder / "data.yaml").write_text(
    "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [ball, cup]\n"
  )
  assert recognize.splits(str(folder)) == ("train", "val")
  assert len(any_format.AnyInstances(f"{folder}:train", "")) == 2
  assert len(any_format.AnyInstances(f"{folder}:val", "")) == 1
  with pytest.raises(errors.DataError, match="train, val; say DIR:SPLIT"):
    any_format.AnyInstances(str(folder), "")
  with pytest.raises(errors.DataError, match="split 'test'"):
    any_format.AnyInstances(f"{folder / 'data.yaml'}:test", "")


@pytest.mark.parametrize(
  "write", [box_files.write_coco, box_files.write_labelme, box_files.write_csv]
)
def test_folders_called_train_and_valid_are_splits(tmp_path, write):
  for split, scenes in (("train", _SCENES), ("valid", _SCENES[1:])):
    write(tmp_path / "d" / split, scenes)
  assert recognize.splits(str(tmp_path / "d")) == ("train", "valid")
  assert len(any_format.AnyInstances(f"{tmp_path}/d:valid", "")) == 1


def test_image_sets_are_splits_of_voc(tmp_path):
  path = box_files.write_voc(tmp_path / "d", _SCENES)
  sets = tmp_path / "d" / "ImageSets" / "Main"
  sets.mkdir(parents=True)
  (sets / "train.txt").write_text("a\n")
  (sets / "val.txt").write_text("b\n")
  (sets / "cup_val.txt").write_text("b -1\n")  # of a single category
  assert recognize.splits(path) == ("train", "val")
  assert list(_boxes(f"{path}:val").values()) == [[(1, 1, 9, 8)]]
  (sets / "val.txt").write_text("b\nc\n")
  with pytest.raises(errors.DataError, match=r"val.txt: c: there is no c.xml"):
    any_format.AnyInstances(f"{path}:val", "")


def test_a_zero_shows_that_corners_of_voc_count_from_zero(tmp_path):
  path = box_files.write_voc(tmp_path / "d", _SCENES)
  file = tmp_path / "d" / "Annotations" / "b.xml"
  text = file.read_text()
  assert "<xmin>2</xmin>" in text
  file.write_text(text.replace("<xmin>2</xmin>", "<xmin>0</xmin>"))
  assert "corners count from 0" in repr(any_format.AnyInstances(path, ""))
  assert _boxes(path)["1"][0] == (3, 4, 12, 15)


def test_coco_2017_as_it_is_unpacked(tmp_path):
  folder = tmp_path / "d"
  for split in ("train2017", "val2017"):
    path = box_files.write_coco(folder / split, _SCENES)
    (folder / "annotations").mkdir(exist_ok=True)
    shutil.move(path, folder / "annotations" / f"instances_{split}.json")
  (folder / "annotations" / "captions_val2017.json").write_text("{}")
  assert recognize.splits(str(folder)) == ("train2017", "val2017")
  source = any_format.AnyInstances(f"{folder}:val2017", "")
  assert source[0].image == str(folder / "val2017" / "a.png")


def test_names_from_another_machine_are_found_by_their_last_part(tmp_path):
  path = box_files.write_labelme(tmp_path / "d", _SCENES)
  file = tmp_path / "d" / "a.json"
  file.write_text(file.read_text().replace('"a.png"', '"C:\\\\my\\\\a.png"'))
  (tmp_path / "d" / "sub").mkdir()
  source = any_format.AnyInstances(path, "")
  assert source[0].image == str(tmp_path / "d" / "a.png")
  Image.new("RGB", (9, 8)).save(tmp_path / "d" / "sub" / "a.png")
  with pytest.raises(errors.DataError, match="there is a.png and sub/a.png"):
    any_format.AnyInstances(path, "")


def test_pictures_may_be_in_a_folder_of_their_own(tmp_path):
  path = box_files.write_csv(tmp_path / "d", _SCENES)
  (tmp_path / "p").mkdir()
  for name in ("a.png", "b.png"):
    shutil.move(tmp_path / "d" / name, tmp_path / "p" / name)
  with pytest.raises(errors.DataError, match="Set --config.data.images"):
    any_format.AnyInstances(path, "")
  assert len(any_format.AnyInstances(path, str(tmp_path / "p"))) == 2


def test_shapes_without_area_are_there_and_not_asked_for(tmp_path):
  path = box_files.write_labelme(tmp_path / "d", _SCENES)
  file = tmp_path / "d" / "b.json"
  file.write_text(file.read_text().replace("rectangle", "line"))
  source = any_format.AnyInstances(path, "")
  x1, y1, x2, y2 = source[1].objects[0].box
  assert (x1, y1) == (x2, y2) and source.box_counts == {"empty": 1}
  assert "boxes empty: 1" in repr(source)


def test_shapes_of_cvat_that_are_turned_or_round_get_the_box_around(tmp_path):
  path = box_files.write_cvat(tmp_path / "d", _SCENES)
  file = tmp_path / "d" / "annotations.xml"
  shapes = (
    '<box label="cup" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
    '<ellipse label="cup" cx="10" cy="10" rx="4" ry="2"/>'
    '<mask label="cup" left="1" top="2" width="3" height="4" rle="1"/>'
    '<tag label="cup"/></image>'
  )
  file.write_text(file.read_text().replace("</image>", shapes, 1))
  found = [pytest.approx(box) for box in _boxes(path)["1"][2:]]
  assert found == [(13, 7, 17, 17), (6, 8, 14, 12), (1, 2, 4, 6)]
  assert "tags of whole pictures, left out: 1" in repr(
    any_format.AnyInstances(path, "")
  )


def test_a_yolo_folder_is_a_source_and_a_test_set_of_a_run(tmp_path, text):
  for split, scenes in (("train", _SCENES), ("val", _SCENES[1:])):
    box_files.write_yolo(tmp_path / split, scenes)
  names = ("images", "instances", "novel", "conversations", "tracks")
  files = dict.fromkeys(
    (*names, "conversation_images", "videos", "video_conversations"), ""
  )
  evaluation = _Fields(files | {"instances": str(tmp_path / "val")})
  for name in catalog.BENCHMARKS:
    evaluation[name] = _Fields(questions="", media="")
  tests = catalog.test_sets(evaluation)
  data = files | {
    "instances": str(tmp_path / "train"),
    "mixture": {"instances": 1.0},
    "object_captions": "",
    "per_object": False,
    "conversation_boxes": "",
  }
  sources = catalog.open_sources(_Fields(data), exclude=tests)
  (left,) = exclusion.describe(sources, tests)[:1]
  assert "1 of 2 records of instances" in left  # the same bytes as b.png's
  make_row = rows.RowMaker(row_spec(text, text_length=200))
  assert make_row(sources["instances"][0], _rng())["valid"]
  before = catalog.hashes(_Fields(data))
  label = tmp_path / "train" / "labels" / "a.txt"
  label.write_text(label.read_text().replace("0.", "0.0", 1))
  assert catalog.hashes(_Fields(data)) != before


class _Fields(dict):
  """A config's fields, as attributes and by name."""

  __getattr__ = dict.__getitem__


def _rng():
  import numpy as np

  return np.random.default_rng(0)


def test_a_folder_of_pictures_above_the_data_set_misleads_nobody(tmp_path):
  box_files.write_yolo(tmp_path / "d", _SCENES)
  flat = tmp_path / "images" / "mine"
  flat.mkdir(parents=True)
  for part in ("images", "labels"):
    for file in (tmp_path / "d" / part).iterdir():
      shutil.move(file, flat / file.name)
  (flat / "classes.txt").write_text("ball\ncup\n")
  assert [len(boxes) for boxes in _boxes(str(flat)).values()] == [2, 1]

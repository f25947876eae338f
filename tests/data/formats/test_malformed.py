"""What is wrong in a data set is named in one line, with file and record."""

import pathlib
import re
import shutil
import stat
import warnings
import zipfile

import box_files
import pytest
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data.sources import any_format

_SCENES = [
  ("a.png", (40, 30), [("cup", (2, 3, 12, 15)), ("ball", (20, 5, 28, 13))]),
  ("b.png", (31, 47), [("ball", (1, 1, 9, 8))]),
]
_ENTITIES = (
  '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
)


def _replaced(file: str, old: str, new: str):
  """Returns a change: the first `old` in a file becomes `new`."""

  def change(folder: pathlib.Path) -> None:
    text = (folder / file).read_text()
    assert old in text, text
    (folder / file).write_text(text.replace(old, new, 1))

  return change


def _text(file: str, text: str):
  """Returns a change: a file has this text."""

  def change(folder: pathlib.Path) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(text)

  return change


def _removed(file: str):
  return lambda folder: (folder / file).unlink()


def _copied(file: str, to: str):
  return lambda folder: shutil.copy(folder / file, folder / to)


_YOLO, _LABEL = box_files.write_yolo, "labels/a.txt"
_VOC, _XML = box_files.write_voc, "Annotations/a.xml"
_CVAT, _ONE = box_files.write_cvat, "annotations.xml"
_CSV = box_files.write_csv
_ODVG, _QWEN = box_files.write_odvg, box_files.write_qwen
_LABELME, _COCO = box_files.write_labelme, box_files.write_coco
_JSON = "_annotations.coco.json"
_CASES = {
  "YOLO: a category that is not there": (
    _YOLO, _text(_LABEL, "7 .5 .5 .1 .1"), "a.txt: line 1: category 7"),
  "YOLO: a category that is no number": (
    _YOLO, _text(_LABEL, "cup .5 .5 .1 .1"), "line 1: category 'cup'"),
  "YOLO: pixels": (
    _YOLO, _text(_LABEL, "0 20 15 10 12"), "line 1: 20 is no fraction"),
  "YOLO: a score behind the box": (
    _YOLO, _text(_LABEL, "0 .5 .5 .1 .1 .9"), "line 1: 6 fields"),
  "YOLO: no number": (
    _YOLO, _text(_LABEL, "\n0 .5 .5 nan .1"), "line 2: coordinate 'nan'"),
  "YOLO: a negative size": (
    _YOLO, _text(_LABEL, "0 .5 .5 -.005 .1"), "line 1: box .* ends before"),
  "YOLO: a label file without a picture": (
    _YOLO, _removed("images/a.png"), r"labels/a.txt: no picture a\.\*"),
  "YOLO: two pictures of one label file": (
    _YOLO, _copied("images/a.png", "images/a.jpg"),
    "a.png: a.jpg has the same"),
  "YOLO: a picture that is none": (
    _YOLO, _text("images/a.png", "x"), "a.txt: picture a.png: cannot identify"),
  "YOLO: a label file of bytes": (
    _YOLO, lambda f: (f / _LABEL).write_bytes(b"\xff\xfe\x80"), "a.txt: not"),
  "YOLO: no names": (
    _YOLO, _text("data.yaml", "nc: 2"), "names: no list"),
  "YOLO: a name twice": (
    _YOLO, _text("data.yaml", "names: [cup, cup]"),
    "names: 'cup' is there twice"),
  "YOLO: names with a gap": (
    _YOLO, _text("data.yaml", "names: {0: cup, 2: ball}"),
    "names: its numbers"),
  "YOLO: another number of names": (
    _YOLO, _text("data.yaml", "nc: 3\nnames: [cup, ball]"),
    "nc is 3, names: 2"),
  "YOLO: no label files": (
    _YOLO, lambda f: shutil.rmtree(f / "labels"), "has a label file"),
  "YOLO: broken yaml": (
    _YOLO, _text("data.yaml", "names: [cup"), "data.yaml: not valid yaml"),
  "YOLO: poses": (
    _YOLO, _text("data.yaml", "names: [cup]\nkpt_shape: [17, 3]"), "kpt_shape"),
  "YOLO: a split that is missing": (
    _YOLO, _text("data.yaml", "names: [cup, ball]\ntrain: no/such"),
    "no/such: no such folder"),
  "YOLO: several splits and none said": (
    _YOLO, _text("data.yaml", "names: [cup]\ntrain: images\nval: images"),
    "it has train, val; say DIR:SPLIT"),
  "VOC: entities": (
    _VOC, _text(_XML, _ENTITIES + "<annotation>&b;</annotation>"),
    "a.xml: it declares a document type"),
  "VOC: broken xml": (
    _VOC, _text(_XML, "<annotation><object>"), "a.xml: not valid xml"),
  "VOC: a corner that is missing": (
    _VOC, _replaced(_XML, "<xmax>12</xmax>", ""),
    "a.xml: object 1: <bndbox/xmax> is missing"),
  "VOC: corners in another order": (
    _VOC, _replaced(_XML, "<xmax>12", "<xmax>1"),
    "object 1: box .* ends before"),
  "VOC: a corner that is no number": (
    _VOC, _replaced(_XML, "<ymin>4", "<ymin>four"), "object 1: .* 'four'"),
  "VOC: an object without a name": (
    _VOC, _replaced(_XML, "<name>cup</name>", ""), "object 1: label None"),
  "VOC: no size": (
    _VOC, _replaced(_XML, "<width>40", "<width>0"), "size/width '0' is not"),
  "VOC: a picture that is missing": (
    _VOC, _removed("JPEGImages/a.png"), "a.xml: picture 'a.png': .* none"),
  "VOC: two files about a picture": (
    _VOC, _copied(_XML, "Annotations/z.xml"),
    r"z.xml: it is about JPEGImages/a.png again, as in .*a.xml"),
  "LabelMe: a picture inside": (
    _LABELME,
    lambda f: (_removed("a.png")(f),
               _replaced("a.json", "null", '"/9j"')(f)),
    "a.json: its imageData is not read"),
  "LabelMe: a shape that is unknown": (
    _LABELME, _replaced("a.json", '"rectangle"', '"cloud"'),
    "a.json: shape 1: shape_type 'cloud'"),
  "LabelMe: a shape without points": (
    _LABELME, _replaced("a.json", "[[12, 3], [2, 15]]", "[]"),
    "shape 1: it has no points"),
  "CVAT: a label that is not listed": (
    _CVAT, _replaced(_ONE, 'box label="cup"', 'box label="mug"'),
    "label 'mug' is not among <labels>"),
  "CVAT: a video": (
    _CVAT, _replaced(_ONE, "<image ", '<track id="0"/><image '),
    "<track> of a video"),
  "CVAT: a shape without a corner": (
    _CVAT, _replaced(_ONE, 'xbr="12"', ""), "image 'a.png': shape 1: .*'xbr'"),
  "CVAT: a shape that is unknown": (
    _CVAT, _replaced(_ONE, "<box ", '<skeleton label="cup"/><box '),
    "image 'a.png': shape 1: <skeleton>"),
  "CSV: no first line": (
    _CSV, _replaced("boxes.csv", "image,label,x1,y1,x2,y2\n", ""),
    "line 2: no image; the columns are"),
  "CSV: width and height": (
    _CSV, _replaced("boxes.csv", "2,3,12,15", "20,3,10,12"),
    "line 2: box .* not width"),
  "CSV: fractions": (
    _CSV, _text("boxes.csv",
    "image,label,x1,y1,x2,y2\na.png,cup,.1,.1,.4,.5\n"),
    "boxes.csv: no coordinate is above 1"),
  "CSV: a box without a label": (
    _CSV, _replaced("boxes.csv", "a.png,cup", "a.png,"), "line 2: label None"),
  "CSV: a picture outside": (
    _CSV, _replaced("boxes.csv", "a.png", "../../etc/passwd"),
    "line 2: picture '../../etc/passwd'"),
  "CSV: nothing": (
    _CSV, _text("boxes.csv", ""), "no picture with annotations"),
  "ODVG: a label without a name": (
    _ODVG, _replaced("odvg.jsonl", ', "category": "cup"', ""),
    "line 1: label None"),
  "ODVG: two lines about a picture": (
    _ODVG, lambda f: _text("odvg.jsonl", (f / "odvg.jsonl").read_text() * 2)(f),
    "line 3: another line has all objects of"),
  "Qwen: an answer without a box": (
    _QWEN, _replaced("qwen.jsonl", "bbox_2d", "box"),
    "line 1: field 'bbox_2d' is missing"),
  "Qwen: thousandths": (
    _QWEN, _replaced("qwen.jsonl", "12,\\n   15", "900,\\n   950"),
    "line 1: box .* goes beyond the 40 x 30"),
  "COCO: pictures that are elsewhere": (
    _COCO, lambda f: [x.unlink() for x in f.glob("*.png")], "is not beside it"),
  "a folder of nothing that is known": (
    _COCO, _removed(_JSON), "no annotations that are known: YOLO"),
  "a folder of two formats": (
    _YOLO, lambda f: box_files.write_voc(f / "v", _SCENES) and (
      shutil.copytree(f / "v" / "Annotations", f / "Annotations")),
    "it is YOLO and Pascal VOC"),
}  # fmt: skip


@pytest.mark.parametrize("name", _CASES)
def test_what_is_wrong_is_named_in_one_line(tmp_path, name):
  write, change, message = _CASES[name]
  path = write(tmp_path / "d", _SCENES)
  change(tmp_path / "d")
  if "folder of nothing" in name:
    path = str(tmp_path / "d")
  with pytest.raises(errors.DataError) as caught:
    any_format.AnyInstances(path, "")
  assert re.search(message, str(caught.value)), str(caught.value)
  assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def _packed(folder: pathlib.Path) -> pathlib.Path:
  """Writes a YOLO data set as a zip."""
  source = pathlib.Path(box_files.write_yolo(folder / "d", _SCENES))
  with zipfile.ZipFile(folder / "d.zip", "w") as file:
    for path in sorted(source.rglob("*.*")):
      file.write(path, path.relative_to(folder))
  shutil.rmtree(source)
  return folder / "d.zip"


def test_a_zip_is_unpacked_once_beside_itself(tmp_path):
  path = _packed(tmp_path)
  for _ in range(2):
    source = any_format.AnyInstances(str(path), "")
    assert [len(source[i].objects) for i in range(2)] == [2, 1]
  (folder,) = tmp_path.glob("d.zip.unpacked-*")
  assert source.folder == str(folder / "d" / "images")


def _link(name: str) -> zipfile.ZipInfo:
  member = zipfile.ZipInfo(name)
  member.external_attr = (stat.S_IFLNK | 0o777) << 16
  return member


@pytest.mark.parametrize(
  "member, content, message",
  [
    ("../out.txt", "x", "'../out.txt': leads out"),
    ("d/../../out.txt", "x", "leads out of the folder"),
    ("/out.txt", "x", "leads out"),
    ("C:\\out.txt", "x", "leads out"),
    (_link("d/link"), "/etc/passwd", "'d/link': is a link"),
    ("d/bomb.txt", "0" * (80 << 20), "bytes would become"),
    ("d/data.yaml", "names: [x]", "is there twice"),
  ],
)
def test_a_zip_that_would_do_harm_is_not_unpacked(
  tmp_path, member, content, message
):
  path = _packed(tmp_path)
  with (
    warnings.catch_warnings(),
    zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file,
  ):
    warnings.simplefilter("ignore")  # of a name that is there
    file.writestr(member, content)
  with pytest.raises(errors.DataError, match=message):
    any_format.AnyInstances(str(path), "")
  assert [p.name for p in tmp_path.iterdir()] == ["d.zip"]


def test_a_zip_that_is_cut_off_is_named(tmp_path):
  path = _packed(tmp_path)
  path.write_bytes(path.read_bytes()[:-40])
  with pytest.raises(errors.DataError, match="d.zip: not a zip"):
    any_format.AnyInstances(str(path), "")


def test_a_zip_that_is_locked_is_named(tmp_path):
  path = _packed(tmp_path)
  content = bytearray(path.read_bytes())
  content[content.index(b"PK\x01\x02") + 8] |= 1  # of its first member
  path.write_bytes(content)
  with pytest.raises(errors.DataError, match="d.zip: .* locked by a password"):
    any_format.AnyInstances(str(path), "")


def test_a_box_said_twice_counts_once_and_is_told(tmp_path, caplog):
  path = box_files.write_yolo(tmp_path / "d", _SCENES)
  label = tmp_path / "d" / _LABEL
  label.write_text(label.read_text() * 2)
  source = any_format.AnyInstances(path, "")
  assert len(source[0].objects) == 2
  assert "boxes said twice that count once: 2" in repr(source)
  assert f"{label}: line 3: the box of cup again" in caplog.text


def test_a_picture_without_a_label_file_has_no_objects_and_is_told(tmp_path):
  path = box_files.write_yolo(tmp_path / "d", _SCENES)
  Image.new("RGB", (9, 8)).save(tmp_path / "d" / "images" / "z.png")
  source = any_format.AnyInstances(path, "")
  assert source[2].objects == () and (source[2].width == 9)
  assert "without a label file, taken as empty: 1" in repr(source)


def test_the_category_that_stands_for_roboflows_data_set_is_left_out(tmp_path):
  path = box_files.write_coco(tmp_path / "d", _SCENES)
  content = box_files.coco_content(_SCENES)
  for kind in content["categories"]:
    kind.update(id=kind["id"] + 1, supercategory="things")
  for note in content["annotations"]:
    note["category_id"] += 1
  root = {"id": 0, "name": "things", "supercategory": "none"}
  content["categories"].insert(0, root)
  pathlib.Path(path).write_text(box_files.json.dumps(content))
  source = any_format.AnyInstances(path, "")
  assert source.categories == ("ball", "cup") and source.broader == ()
  assert "category 'things'" in repr(source)

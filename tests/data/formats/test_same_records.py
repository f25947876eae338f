"""The same boxes in any format are the same records."""

import json
import pathlib
import tempfile

import box_files
import hypothesis
import pytest
from hypothesis import strategies as st

from locvlm_jax.data.sources import any_format

_SCENES = [
  ("a.png", (40, 30), [("cup", (2, 3, 12, 15)), ("ball", (20, 5, 28, 13))]),
  ("b.png", (31, 47), []),
  ("c d.png", (33, 32), [("ball", (0, 0, 33, 32)), ("ball", (4, 4, 9, 8))]),
]
_WRITERS = (*box_files.EXHAUSTIVE, box_files.write_qwen)


def seen(path: str, images: str = "") -> dict:
  """Reads {picture: (size, [(category, box)], whether all is annotated)}."""
  source = any_format.AnyInstances(path, images)
  records = [source[i] for i in range(len(source))]
  return {
    pathlib.Path(r.image).name: (
      (r.width, r.height),
      [(o.category, pytest.approx(o.box, abs=1e-6)) for o in r.objects],
      r.absent is None,
    )
    for r in records
  }


def said(scenes, empty: bool = True, whole: bool = True) -> dict:
  """Puts scenes into the same form."""
  return {
    name: (size, things, whole)
    for name, size, things in scenes
    if things or empty
  }


def _expected(scenes, write) -> dict:
  whole = write in box_files.EXHAUSTIVE
  return said(scenes, empty=whole, whole=whole)


@pytest.mark.parametrize("write", _WRITERS)
def test_a_few_boxes_are_the_same_records_in_each_format(tmp_path, write):
  assert seen(write(tmp_path / "d", _SCENES)) == _expected(_SCENES, write)


@st.composite
def _scenes(draw):
  """Draws pictures with boxes of whole pixels, none of them twice."""
  scenes = []
  for i in range(draw(st.integers(1, 3))):
    width, height = draw(st.integers(2, 60)), draw(st.integers(2, 60))
    corner = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    things = draw(st.lists(st.tuples(_NAMES, corner, corner), max_size=4))
    found = {
      (c, (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]) + 1,
           max(a[1], b[1]) + 1)): None
      for c, a, b in things
    }  # fmt: skip
    scenes.append((f"{i}.png", (width, height), list(found)))
  hypothesis.assume(any(things for _, _, things in scenes))
  hypothesis.assume(any(b[2] > 1 for _, _, t in scenes for _, b in t))
  return scenes


_NAMES = st.sampled_from(["cup", "wine glass", "Tür", "10", 'a "b", <c> & d'])


@hypothesis.settings(max_examples=8)
@hypothesis.given(_scenes())
def test_any_boxes_are_the_same_records_in_each_format(scenes):
  for write in _WRITERS:
    with tempfile.TemporaryDirectory() as folder:
      path = write(pathlib.Path(folder) / "d", scenes)
      assert seen(path) == _expected(scenes, write), write.__name__


def _of_microworld(root: pathlib.Path) -> list:
  """Reads scenes from the micro-world's own json, by nothing of ours."""
  path = root / "annotations" / "instances_train.json"
  content = json.loads(path.read_text())
  names = {c["id"]: c["name"] for c in content["categories"]}
  things = {}
  for note in content["annotations"]:
    x, y, w, h = note["bbox"]
    thing = names[note["category_id"]], (x, y, x + w, y + h)
    things.setdefault(note["image_id"], []).append(thing)
  return [
    (i["file_name"], (i["width"], i["height"]), things.get(i["id"], []))
    for i in content["images"]
  ]


@pytest.mark.parametrize("write", _WRITERS)
def test_the_micro_world_is_the_same_in_each_format(
  tmp_path, microworld, write
):
  root = pathlib.Path(microworld(30, 1))
  scenes = _of_microworld(root)
  direct = seen(str(root / "annotations/instances_train.json"))
  assert direct == said(scenes)
  assert seen(write(tmp_path / "d", scenes)) == _expected(scenes, write)


def test_fractions_of_six_digits_are_the_pixels_that_they_were(tmp_path):
  scenes = [("a.png", (640, 427), [("cup", (213, 100, 401, 320))])]
  path = pathlib.Path(box_files.write_yolo(tmp_path / "d", scenes))
  text = path / "labels" / "a.txt"
  index, *values = text.read_text().split()
  text.write_text(" ".join([index, *(f"{float(v):.6f}" for v in values)]))
  (thing,) = any_format.AnyInstances(str(path), "")[0].objects
  assert thing.box == (213, 100, 401, 320)


@pytest.mark.parametrize(
  "write, read",
  [
    (box_files.write_coco, "from_coco"),
    (box_files.write_yolo, "from_yolo"),
    (box_files.write_voc, "from_pascal_voc"),
    (box_files.write_labelme, "from_labelme"),
  ],
)
def test_supervision_reads_the_same_boxes(tmp_path, microworld, write, read):
  supervision = pytest.importorskip("supervision")
  scenes = _of_microworld(pathlib.Path(microworld(30, 1)))
  path = write(tmp_path / "d", scenes)
  arguments = {
    "from_coco": (str(tmp_path / "d"), path),
    "from_yolo": (f"{path}/images", f"{path}/labels", f"{path}/data.yaml"),
    "from_pascal_voc": (f"{path}/JPEGImages", f"{path}/Annotations"),
    "from_labelme": (path, path),
  }[read]
  found = getattr(supervision.DetectionDataset, read)(*arguments)
  ours = seen(path)
  for name, notes in found.annotations.items():
    things = ours[pathlib.Path(name).name][1]
    categories = [found.classes[i] for i in notes.class_id]
    assert categories == [category for category, _ in things]
    for box, (_, other) in zip(notes.xyxy.tolist(), things, strict=True):
      assert box == pytest.approx(other.expected, abs=1e-3)
  assert len(found.annotations) == len(ours)

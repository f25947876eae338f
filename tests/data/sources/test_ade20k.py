"""ADE20K's annotations, and which of their objects COCO has no category for."""

import json
import os

import pytest
from eval_scenes import ask

from locvlm_jax import errors
from locvlm_jax.data.records import Object
from locvlm_jax.data.sources import ade20k


def thing(name, level=0, hypernym=(), **more):
  return {
    "id": 1,
    "name": name,
    "hypernym": list(hypernym),
    "parts": {"part_level": level},
    "polygon": {"x": [1, 5, 9], "y": [2, 12, 7]},
    **more,
  }


def write_ade(folder, number, *things):
  name = f"ADE_val_{number:08d}"
  note = {"filename": f"{name}.jpg", "imsize": [10, 20, 3], "object": things}
  text = json.dumps({"annotation": note})
  (folder / f"{name}.json").write_text(text, "utf-8")


@pytest.mark.parametrize(
  ("name", "hypernym", "coco"),
  [
    ("car, auto, automobile, machine, motorcar", (), True),
    ("man", ("person, individual, someone",), True),
    ("owl", ("bird of prey", "bird"), True),
    ("wine bottle", (), True),
    ("coffee table, cocktail table", (), True),
    ("television receiver, television, tv", (), True),
    ("tree", ("plant, flora, plant life",), False),
    ("bottleneck", (), False),
    ("building, edifice", ("structure, construction",), False),
  ],
)
def test_an_object_may_pass_as_a_category_of_coco(name, hypernym, coco):
  assert ade20k.in_coco(thing(name, hypernym=hypernym)) is coco


def test_ade20k_asks_about_two_present_and_two_absent_novel_objects(tmp_path):
  write_ade(
    tmp_path,
    1,
    thing("building, edifice"),
    thing("car, auto"),
    thing("tree"),
    thing("fountain"),
    thing("license plate", level=1),
  )
  write_ade(tmp_path, 2, thing("road, route"), thing("sky"), thing("sky"))
  write_ade(tmp_path, 3, thing("sky"), thing("car, auto"))
  source = ade20k.Ade20k(str(tmp_path))
  assert source.categories == ("building", "fountain", "road", "sky", "tree")
  assert source[0].objects[0] == Object("building", (1.0, 2.0, 9.0, 10.0), id=1)
  questions = ask("hal_ade", source, vocabulary=source.categories)
  assert len(questions) == 8  # the third has one novel object alone
  asked = {"yes": set(), "no": set()}
  for q in questions:
    asked[q.truth["label"]].add((q.id.split("/")[0][-1], q.truth["category"]))
  assert asked["no"] >= {("1", "road"), ("1", "sky")}
  assert len(asked["no"]) == 4
  assert asked["yes"] >= {("2", "road"), ("2", "sky")}
  assert questions[0].question.startswith("Is there a")
  assert questions[0].image.endswith(".jpg")


@pytest.mark.parametrize("text", ["{}", "[", '{"annotation": {"object": []}}'])
def test_a_malformed_file_is_named(tmp_path, text):
  with pytest.raises(errors.DataError, match="no ADE_"):
    ade20k.Ade20k(str(tmp_path))
  (tmp_path / "ADE_val_1.json").write_text(text)
  with pytest.raises(errors.DataError, match="ADE_val_1.json: not ADE20K"):
    ade20k.Ade20k(str(tmp_path))


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with ade20k/",
)
def test_a_real_file_has_its_objects_and_novel_categories():
  folder = os.path.join(os.environ["LOCVLM_TEST_DATA"], "ade20k")
  source = ade20k.Ade20k(folder)
  assert len(source) == 1 and len(source[0].objects) == 32
  assert (source[0].width, source[0].height) == (2200, 1467)
  assert {"building", "fountain", "tree"} <= set(source.categories)
  assert not {"van", "car", "traffic light", "window"} & set(source.categories)

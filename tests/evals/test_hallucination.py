"""Hal-COCO, Hal-ADE and Hal-Act, built from annotations."""

import json
import os

import pytest

from configs import base
from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.records import Object, Record
from locvlm_jax.data.sources import ade20k, object_lists
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.text import coords


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


def ask(task, source):
  return EVALS[task].examples(
    source,
    coords.Coords("ivb", 100, "box"),
    "center_crop",
    100,
    source.categories,
    0,
  )


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
def test_what_may_pass_as_a_category_of_coco(name, hypernym, coco):
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
  examples = ask("hal_ade", source)
  assert len(examples) == 8  # the third has one novel object alone
  asked = {"yes": set(), "no": set()}
  for e in examples:
    asked[e.truth["label"]].add((e.id.split("/")[0][-1], e.truth["category"]))
  assert asked["no"] >= {("1", "road"), ("1", "sky")}
  assert len(asked["no"]) == 4
  assert asked["yes"] >= {("2", "road"), ("2", "sky")}
  assert examples[0].question.startswith("Is there a")
  assert examples[0].image.endswith(".jpg")


@pytest.mark.parametrize("text", ["{}", "[", '{"annotation": {"object": []}}'])
def test_a_malformed_file_is_named(tmp_path, text):
  with pytest.raises(errors.DataError, match="no ADE_"):
    ade20k.Ade20k(str(tmp_path))
  (tmp_path / "ADE_val_1.json").write_text(text)
  with pytest.raises(errors.DataError, match="ADE_val_1.json: not ADE20K"):
    ade20k.Ade20k(str(tmp_path))


def test_lists_of_objects_ask_about_videos(tmp_path):
  path = tmp_path / "objects.jsonl"
  rows = [
    {"video": "a.mp4", "objects": ["Dog", "ball", "dog", "tree"]},
    {"video": "b.mp4", "objects": ["cup", "owl"]},
    {"video": "c.mp4", "objects": ["cup"]},
  ]
  path.write_text("\n".join(map(json.dumps, rows)))
  files = {"hal_act": {"questions": str(path), "media": str(tmp_path)}}
  source = catalog.open_source("hal_act", files)
  assert source.categories == ("ball", "cup", "dog", "owl", "tree")
  examples = ask("hal_act", source)
  assert len(examples) == 8
  labels = {
    e.truth["category"]: e.truth["label"]
    for e in examples
    if e.image == str(tmp_path / "a.mp4")
  }
  assert sorted(labels.values()) == ["no", "no", "yes", "yes"]
  assert {c for c, v in labels.items() if v == "no"} == {"cup", "owl"}
  assert all(e.question.endswith("in the video?") for e in examples)
  path.write_text('{"video": "a.mp4"}')
  with pytest.raises(errors.DataError, match=r"objects.jsonl: line 1: wants"):
    object_lists.ObjectLists(str(path), str(tmp_path))


def test_hal_coco_takes_images_with_two_of_each_whatever_the_crop():
  def record(number, *names):
    things = tuple(Object(n, (0.0, 0.0, 9.0, 9.0)) for n in names)
    return Record(str(number), "x.jpg", 400, 100, things)

  class Source(list):
    categories = ("ball", "cup", "dog", "owl")

  source = Source(
    [record(1, "cup", "dog"), record(2, "cup"), record(3, "cup", "dog", "owl")]
  )
  examples = ask("hal_coco", source)
  assert {e.id for e in examples} == {f"1/{c}" for c in source.categories}
  present = {e.truth["category"] for e in examples if e.truth["label"] == "yes"}
  assert present == {"cup", "dog"}


def test_files_have_fields_and_a_missing_one_is_named():
  assert tuple(catalog.BENCHMARKS) == base.BENCHMARKS
  files = {"hal_act": {"questions": "a.jsonl", "answers": "", "media": ""}}
  with pytest.raises(errors.DataError, match="--config.eval.hal_act.media"):
    catalog.open_source("hal_act", files)


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with ade20k/",
)
def test_a_real_file():
  folder = os.path.join(os.environ["LOCVLM_TEST_DATA"], "ade20k")
  source = ade20k.Ade20k(folder)
  assert len(source) == 1 and len(source[0].objects) == 32
  assert (source[0].width, source[0].height) == (2200, 1467)
  assert {"building", "fountain", "tree"} <= set(source.categories)
  assert not {"van", "car", "traffic light", "window"} & set(source.categories)


def test_only_what_is_listed_as_absent_is_denied(tmp_path):
  """Where a segmenter saw nothing, "no" is not known to be right."""
  names = ("cup", "dog", "cat", "owl")
  source = [
    Record(
      id=str(i),
      image="a.jpg",
      width=100,
      height=100,
      objects=(Object("cup", (10.0, 10.0, 90.0, 90.0)),),
      absent=("owl",),
    )
    for i in range(8)
  ]
  examples = EVALS["hallucination"].examples(
    source, coords.Coords("ivb", 100, "box"), "square", 100, names, 0
  )
  denied = {e.truth["category"] for e in examples if e.truth["label"] == "no"}
  assert denied == {"owl"}

"""COCO's files as sources: instances and captions."""

import json
import pathlib

import cups
import numpy as np
import pytest
from cups import annotation
from row_specs import row_spec

from locvlm_jax import errors
from locvlm_jax.data import objectives, rows
from locvlm_jax.data.media.images import load_image
from locvlm_jax.data.sources import coco


def test_instances_give_corner_boxes(world):
  record = world.source()[2]
  assert record.width == 40 and record.height == 30
  assert [o.category for o in record.objects] == ["cup", "ball", "ball"]
  assert record.objects[0].box == (4, 3, 14, 15)


@pytest.mark.parametrize(
  "change, message",
  [
    (
      lambda c: c["annotations"][3].update(category_id=99),
      r"annotation 3: unknown category 99",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, 2, -3, 4]),
      r"annotation 1: bbox .* negative size",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, 2, 3]),
      r"annotation 1: bbox .* is not \[x, y, w, h\]",
    ),
    (
      lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]),
      r"annotation 0: .*non-number",
    ),
    (
      lambda c: c["annotations"][0].update(image_id=77),
      r"annotation 0: unknown image 77",
    ),
    (
      lambda c: c["annotations"][0].pop("bbox"),
      r"annotation 0: field 'bbox' is missing",
    ),
    (
      lambda c: c["images"][1].update(id=0),
      r"two of images have the same id 0",
    ),
    (lambda c: c["images"][1].update(id="1"), r"images 1: id '1' is not"),
    (
      lambda c: c["images"][1].update(width=None),
      r"image 1: width None is not an integer",
    ),
    (lambda c: c["images"][1].update(height=0), r"image 1: size .* positive"),
    (lambda c: c["images"].append(["a"]), r"images \d: \['a'\] is no object"),
    (lambda c: c["annotations"].append(None), r"annotations \d+: None is no"),
    (
      lambda c: c["annotations"][0].update(image_id="0"),
      r"annotation 0: image_id '0' is not an integer",
    ),
    (
      lambda c: c["annotations"][1].update(id=c["annotations"][2]["id"]),
      r"annotation 2: another one has the same id",
    ),
    (
      lambda c: c["annotations"][1].update(iscrowd="no"),
      r"annotation 1: iscrowd is neither 0 nor 1",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, 2, "3", 4]),
      r"annotation 1: .*non-number",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, 2, True, 4]),
      r"annotation 1: .*non-number",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, 2, 10**400, 4]),
      r"annotation 1: .*non-number",
    ),
    (
      lambda c: c["annotations"][1].update(bbox=[1, None, 3, 4]),
      r"annotation 1: .*non-number",
    ),
    (
      lambda c: c["annotations"][1].update(bbox={}),
      r"annotation 1: bbox .* is not \[x, y, w, h\]",
    ),
    (
      lambda c: c["annotations"][1].update(id=0),
      r"annotation 0: another one has the same id",
    ),
    (
      lambda c: c["annotations"][1].update(id=None),
      r"annotation None: id None is not an integer",
    ),
    (
      lambda c: c["annotations"][1].update(category_id=[1]),
      r"annotation 1: category_id \[1\] is not an integer",
    ),
    (
      lambda c: c["images"][2].pop("file_name"),
      r"image 2: field 'file_name' is missing",
    ),
    (lambda c: c["images"][2].pop("id"), r"images 2: field 'id' is missing"),
    (lambda c: c["categories"][1].pop("name"), r"category 2: field 'name'"),
    (lambda c: c.update(images={}), r"'images' is not a list"),
    (
      lambda c: c["categories"][1].update(name=c["categories"][0]["name"]),
      r"two categories have the same name",
    ),
    (lambda c: c["categories"][1].update(name=" "), r"name ' ' is no text"),
    (
      lambda c: c["categories"][1].update(id=c["categories"][0]["id"]),
      r"two of categories have the same id",
    ),
    (lambda c: c.pop("categories"), r"field 'categories' is missing"),
  ],
)
def test_bad_annotations_name_file_and_record(world, change, message):
  with pytest.raises(errors.DataError, match="instances.json.*" + message):
    world.changed(change)


def test_missing_folder_and_broken_json(world):
  path = str(world.folder / "instances.json")
  with pytest.raises(errors.DataError, match="no such images directory"):
    coco.Instances(path, str(world.folder / "nowhere"))
  for text in ('{"images": [', "[" * 100_000, "9" * 5_000, "", "\udcff"):
    (world.folder / "instances.json").write_text(text, errors="surrogateescape")
    with pytest.raises(
      errors.DataError, match="instances.json: not valid json"
    ):
      world.source()
  with pytest.raises(errors.DataError, match="Is a directory"):
    coco.Instances(str(world.folder), str(world.folder / "images"))


@pytest.mark.parametrize(
  "name", ["../../etc/passwd", "/etc/passwd", "a\0b", "", 7, "out/../../x"]
)
def test_file_names_stay_inside_the_folder(world, name, monkeypatch):
  opened, real = [], open

  def watched(file, *args, **kwargs):
    opened.append(str(file))
    return real(file, *args, **kwargs)

  monkeypatch.setattr("builtins.open", watched)
  with pytest.raises(errors.DataError, match="image 0: file name"):
    world.changed(lambda c: c["images"][0].update(file_name=name))[0]
  assert {pathlib.Path(f).name for f in opened} <= {"instances.json"}


def test_a_name_that_leads_out_is_refused_before_the_first_step(world):
  for name in ("../a.jpg", "/etc/passwd", "x/../../a.jpg"):
    with pytest.raises(errors.DataError, match="image 3: file name"):
      world.changed(lambda c, n=name: c["images"][3].update(file_name=n))
  inside = str(world.folder / "images" / "000000000003.jpg")
  for name in (inside, "x/../000000000003.jpg", "./000000000003.jpg"):
    source = world.changed(lambda c, n=name: c["images"][3].update(file_name=n))
    assert source[3].image == inside


def test_names_in_any_script_and_images_without_objects(world):
  def change(content):
    content["categories"][0]["name"] = "\u0643\u0648\u0628 \U0001f375"
    content["annotations"] = content["annotations"][-1:]
    content["annotations"][0].pop("iscrowd")

  source = world.changed(change)
  assert "\u0643\u0648\u0628 \U0001f375" in source.categories
  found = [len(source[i].objects) for i in range(len(source))]
  assert sum(found) == 1 and found.count(0) == len(source) - 1


@pytest.mark.parametrize(
  "change, message",
  [
    ({"caption": 7}, "caption 3: caption 7 is no text"),
    ({"image_id": "0"}, "caption 3: image_id '0' is not an integer"),
    ({"image_id": 9}, "caption 3: unknown image 9"),
    ({"file_name": "../a.jpg"}, "image 0: file name"),
    ({"file_name": 7}, "image 0: file name 7 is no name"),
    ({"width": "40"}, "image 0: width '40' is not an integer"),
  ],
)
def test_bad_captions_name_file_and_record(change, message, tmp_path):
  note = {"id": 3, "image_id": 0, "caption": "a cup"} | change
  image = {"id": 0, "file_name": "a.jpg"} | change
  content = {"images": [image | {"id": 0}], "annotations": [note]}
  path = tmp_path / "captions.json"
  path.write_text(json.dumps(content))
  with pytest.raises(errors.DataError, match="captions.json: " + message):
    coco.Captions(str(path), str(tmp_path))


@pytest.mark.parametrize(
  "bbox, box, defect",
  [
    ([90, 90, 5, 5], (40, 30, 40, 30), "empty"),
    ([5, 5, 0, 9], (5, 5, 5, 14), "empty"),
    ([5, 5, 9, 0.0], (5, 5, 14, 5), "empty"),
    ([-9, -9, 5, 5], (0, 0, 0, 0), "empty"),
    ([-5, 3, 10, 10], (0, 3, 5, 13), "clipped"),
    ([30, 20, 1e300, 11], (30, 20, 40, 30), "clipped"),
    ([30, 20, 10.004, 10], (30, 20, 40, 30), ""),  # COCO rounds to hundredths
  ],
)
def test_boxes_past_the_edge_are_clipped_and_counted(world, bbox, box, defect):
  source = world.changed(lambda c: c["annotations"][0].update(bbox=bbox))
  assert source[0].objects[0].box == box
  assert source.box_counts == ({defect: 1} if defect else {})


def test_an_empty_box_is_present_and_never_asked_for(world, text):
  def change(content):
    content["annotations"][0]["bbox"] = [2, 3, 10, 0]  # the only cup

  record = world.changed(change)[0]
  make = rows.RowMaker(row_spec(text, text_length=200))
  for seed in range(20):
    row = make(record, np.random.default_rng(seed))
    assert "cup" not in text.decode(row["tokens"][row["tokens"] >= 0])


def test_per_object_shows_an_image_once_for_each_unique_object(world):
  def change(content):
    notes = content["annotations"]
    notes[0]["iscrowd"] = 1  # image 0: a crowd and two balls, nothing unique
    star = annotation(5, 3, [1, 1, 9, 9])  # beside a cup
    notes.append(star | {"id": 99})

  source = world.changed(change)
  view = source.per_object()
  assert [view[i].id for i in range(len(view))] == [*"123455"]
  assert len(source) == 6
  for note in world.content["annotations"]:
    note["iscrowd"] = 1
  with pytest.raises(errors.DataError, match="no image has an object"):
    world.changed(lambda c: None).per_object()


def test_crowd_is_present_and_never_a_target(world, text):
  source = world.changed(lambda c: c["annotations"][0].update(iscrowd=1))
  make = rows.RowMaker(row_spec(text, text_length=200))
  for seed in range(40):
    row = make(source[0], np.random.default_rng(seed))
    said = text.decode(row["tokens"][row["tokens"] >= 0])
    assert "cup" not in said and "ball" not in said, said
    assert "star" in said


def test_pictures_are_read_through_links_of_the_users_own(world):
  """Linked files and folders, as clusters and caches stage data sets."""
  images = world.folder / "images"
  images.rename(world.folder / "elsewhere")
  images.mkdir()
  (images / "part").symlink_to(world.folder / "elsewhere")
  for i in range(6):
    name = f"{i:012d}.jpg"
    (images / name).symlink_to(world.folder / "elsewhere" / name)

  def into_folder(content):
    name = content["images"][0]["file_name"]
    content["images"][0]["file_name"] = f"part/{name}"

  for record in world.changed(into_folder):
    assert pathlib.Path(record.image).is_relative_to(images)
    assert load_image(record.image, (40, 30)).size == (40, 30)


def kinds(content: dict) -> None:
  """Makes a cup and a ball kinds of a toy, and that of a thing."""
  content["categories"] = [
    {"id": 1, "name": "cup", "supercategory": "toy"},
    {"id": 2, "name": "ball", "supercategory": "toy"},
    {"id": 3, "name": "star", "supercategory": "star"},
    {"id": 4, "name": "toy", "supercategory": "thing"},
    {"id": 5, "name": "thing", "supercategory": "none"},
  ]


def test_what_a_category_is_a_kind_of_is_not_denied_beside_it(world):
  """As in exports of Roboflow; and told."""
  source = world.changed(kinds)
  denied = objectives.absent(source[1], source.categories)  # shows a cup
  assert denied == ["ball", "star"]
  assert source.broader == ("thing", "toy")
  assert "thing, toy never denied beside kinds of it" in repr(source)
  assert "denied" not in repr(world.changed(lambda content: None))


def test_a_kind_is_neither_denied_nor_unique_beside_the_broader_word(world):
  """What is called a toy may be a ball; and "the toy" may be the cup."""

  def with_toy(content):
    kinds(content)
    content["annotations"].append(
      cups.annotation(1, 4, [20, 5, 8, 8]) | {"id": 99}
    )

  source = world.changed(with_toy)
  assert objectives.absent(source[1], source.categories) == ["star"]
  assert objectives.unique_objects(source[1].objects) == []
  assert len(objectives.unique_objects(source[3].objects)) == 1

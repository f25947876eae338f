"""COCO and LLaVA files as sources; rows; the stream of batches."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from row_specs import row_spec

from locvlm_jax import errors
from locvlm_jax.data import images as images_lib
from locvlm_jax.data import packing
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.records import Record
from locvlm_jax.data.sources import coco, conversations
from locvlm_jax.text import bpe, formats

_TEXTS = ["USER: Where is the cup? ASSISTANT: At [1,2,3,4].", "a red ball"] * 9


@pytest.fixture(scope="module")
def text():
  return bpe.train_bpe(_TEXTS, 400)


@pytest.fixture
def world(tmp_path):
  """Six images of 40 x 30, each with one cup and, if even, two balls."""
  images = tmp_path / "images"
  images.mkdir()
  rows, notes = [], []
  for i in range(6):
    name = f"{i:012d}.jpg"
    Image.new("RGB", (40, 30), (40 * i, 9, 9)).save(images / name)
    rows.append({"id": i, "file_name": name, "width": 40, "height": 30})
    notes.append(_note(i, 1, [2 + i, 3, 10, 12]))
    if i % 2 == 0:
      notes += [_note(i, 2, [20, 5, 8, 8]), _note(i, 2, [25, 15, 8, 8])]
  for k, note in enumerate(notes):
    note["id"] = k
  names = [
    {"id": 1, "name": "cup"},
    {"id": 2, "name": "ball"},
    {"id": 3, "name": "star"},
  ]
  content = {"images": rows, "annotations": notes, "categories": names}
  (tmp_path / "instances.json").write_text(json.dumps(content))
  return tmp_path, content


def _note(image, category, bbox):
  return {
    "image_id": image,
    "category_id": category,
    "bbox": bbox,
    "iscrowd": 0,
  }


def _instances(world) -> coco.Instances:
  return coco.Instances(
    str(world[0] / "instances.json"), str(world[0] / "images")
  )


def test_instances_give_corner_boxes(world):
  record = _instances(world)[2]
  assert record.width == 40 and record.height == 30
  assert [o.category for o in record.objects] == ["cup", "ball", "ball"]
  assert record.objects[0].box == (4, 3, 14, 15)


def _broken(world, change):
  content = json.loads(json.dumps(world[1]))
  change(content)
  (world[0] / "instances.json").write_text(json.dumps(content))
  return _instances(world)


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
    _broken(world, change)


def test_missing_folder_and_broken_json(world):
  path = str(world[0] / "instances.json")
  with pytest.raises(errors.DataError, match="no such images directory"):
    coco.Instances(path, str(world[0] / "nowhere"))
  for text in ('{"images": [', "[" * 100_000, "9" * 5_000, "", "\udcff"):
    (world[0] / "instances.json").write_text(text, errors="surrogateescape")
    with pytest.raises(
      errors.DataError, match="instances.json: not valid json"
    ):
      _instances(world)
  with pytest.raises(errors.DataError, match="Is a directory"):
    coco.Instances(str(world[0]), str(world[0] / "images"))


@pytest.mark.parametrize(
  "name", ["../../etc/passwd", "/etc/passwd", "a\0b", "", 7, "out/passwd"]
)
def test_file_names_stay_inside_the_folder(world, name, monkeypatch):
  (world[0] / "images" / "out").symlink_to("/etc")
  opened, real = [], open

  def watched(file, *args, **kwargs):
    opened.append(str(file))
    return real(file, *args, **kwargs)

  monkeypatch.setattr("builtins.open", watched)
  with pytest.raises(errors.DataError, match="image 0: file name"):
    _broken(world, lambda c: c["images"][0].update(file_name=name))[0]
  assert {pathlib.Path(f).name for f in opened} <= {"instances.json"}


def test_a_name_that_leads_out_is_refused_before_the_first_step(world):
  for name in ("../a.jpg", "/etc/passwd", "x/../../a.jpg"):
    with pytest.raises(errors.DataError, match="image 3: file name"):
      _broken(world, lambda c, n=name: c["images"][3].update(file_name=n))
  inside = str(world[0] / "images" / "000000000003.jpg")
  for name in (inside, "x/../000000000003.jpg", "./000000000003.jpg"):
    source = _broken(
      world, lambda c, n=name: c["images"][3].update(file_name=n)
    )
    assert source[3].image == inside


def test_names_in_any_script_and_images_without_objects(world):
  def change(content):
    content["categories"][0]["name"] = "\u0643\u0648\u0628 \U0001f375"
    content["annotations"] = content["annotations"][-1:]
    content["annotations"][0].pop("iscrowd")

  source = _broken(world, change)
  assert "\u0643\u0648\u0628 \U0001f375" in source.categories
  found = [len(source[i].objects) for i in range(len(source))]
  assert sum(found) == 1 and found.count(0) == len(source) - 1


@pytest.mark.parametrize(
  "row, message",
  [
    ("text", "record 1: field 'conversations' is missing"),
    ({"id": 7}, "record 1: field 'conversations' is missing"),
    ({"conversations": [], "image": ["a.jpg"]}, "record 1: image .* no file"),
    ({"conversations": [{"from": "human", "value": "a"}]}, "wants pairs"),
    ({"conversations": []}, "wants pairs"),
    ({"conversations": {}}, "wants pairs"),
    ({"conversations": None}, "wants pairs"),
    ({"conversations": ["a", "b"]}, "message 0: field 'from' is missing"),
    (
      {
        "conversations": [
          {"from": "human", "value": "a"},
          {"from": "gpt", "value": None},
        ]
      },
      "message 1: None is no text",
    ),
    (
      {
        "conversations": [
          {"from": "gpt", "value": "a"},
          {"from": "human", "value": "a"},
        ]
      },
      "message 0 is not from 'human'",
    ),
    ({"image": "../a.jpg", "conversations": []}, "record 1: file name"),
  ],
)
def test_bad_conversations_name_file_and_record(row, message, tmp_path):
  good = {
    "conversations": [
      {"from": "human", "value": "a"},
      {"from": "gpt", "value": "b"},
    ]
  }
  path = tmp_path / "talk.json"
  path.write_text(json.dumps([good, row]))
  with pytest.raises(errors.DataError, match="talk.json: .*" + message):
    conversations.Conversations(str(path), str(tmp_path))


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
  "bbox, box, fate",
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
def test_boxes_past_the_edge_are_clipped_and_counted(world, bbox, box, fate):
  source = _broken(world, lambda c: c["annotations"][0].update(bbox=bbox))
  assert source[0].objects[0].box == box
  assert source.boxes == ({fate: 1} if fate else {})


def test_an_empty_box_is_present_and_never_asked_for(world, text):
  def change(content):
    content["annotations"][0]["bbox"] = [2, 3, 10, 0]  # the only cup

  record = _broken(world, change)[0]
  make = rows_lib.RowMaker(row_spec(text, text_length=200))
  for seed in range(20):
    row = make(record, np.random.default_rng(seed))
    assert "cup" not in text.decode(row["tokens"][row["tokens"] >= 0])


def test_per_object_shows_an_image_once_for_each_unique_object(world):
  def change(content):
    notes = content["annotations"]
    notes[0]["iscrowd"] = 1  # image 0: a crowd and two balls, nothing unique
    notes.append({**_note(5, 3, [1, 1, 9, 9]), "id": 99})  # 5: cup and star

  source = _broken(world, change)
  view = source.per_object()
  assert [view[i].id for i in range(len(view))] == [*"123455"]
  assert len(source) == 6
  for note in world[1]["annotations"]:
    note["iscrowd"] = 1
  with pytest.raises(errors.DataError, match="no category is alone"):
    _broken(world, lambda c: None).per_object()


def test_crowd_is_present_and_never_a_target(world, text):
  source = _broken(world, lambda c: c["annotations"][0].update(iscrowd=1))
  make = rows_lib.RowMaker(row_spec(text, text_length=200))
  for seed in range(40):
    row = make(source[0], np.random.default_rng(seed))
    said = text.decode(row["tokens"][row["tokens"] >= 0])
    assert "cup" not in said and "ball" not in said, said
    assert "star" in said


def test_conversations(tmp_path):
  path = tmp_path / "c.json"
  turn = [
    {"from": "human", "value": "<image>\nWhat?"},
    {"from": "gpt", "value": "A cup."},
  ]
  path.write_text(
    json.dumps(
      [
        {"id": "a", "image": "x/1.jpg", "conversations": turn},
        {"id": "a", "conversations": turn},  # LLaVA's files repeat ids
      ]
    )
  )
  source = conversations.Conversations(str(path), str(tmp_path))
  assert source[0].turns == (("What?", "A cup."),)
  assert source[0].image == str(tmp_path / "x" / "1.jpg")
  assert source[1].image is None and source[1].id == "a"


def test_row_masks_the_answer_alone(world, text):
  make = rows_lib.RowMaker(row_spec(text, max_pairs=1, weights=(1.0, 0.0, 0.0)))
  row = make(_instances(world)[1], np.random.default_rng(0))
  answer = text.decode(row["tokens"][row["loss_mask"]])
  # The cup is at 3..13 of 40 and 3..15 of 30: bins of 32.
  assert answer.endswith("[2,3,10,16].") and "cup" not in answer
  assert row["tokens"][row["loss_mask"]][-1] == text.eos_id
  assert (row["tokens"] == formats.IMAGE_TOKEN).sum() == 4


def test_truncated_image_is_skipped_counted_and_named(world, text):
  path = world[0] / "images" / "000000000001.jpg"
  path.write_bytes(path.read_bytes()[:200])
  make = rows_lib.RowMaker(row_spec(text))
  row = make(_instances(world)[1], np.random.default_rng(0))
  assert not row["valid"] and not row["loss_mask"].any() and row["lengths"] == 1
  assert make.counts["skipped"] == 1 and list(make.skipped) == [str(path)]


def test_image_of_another_size_is_skipped(world, text):
  Image.new("RGB", (30, 40)).save(world[0] / "images" / "000000000001.jpg")
  make = rows_lib.RowMaker(row_spec(text))
  assert not make(_instances(world)[1], np.random.default_rng(0))["valid"]
  assert "annotation says (40, 30)" in str(make.skipped)


def test_too_long_a_turn_is_skipped(text):
  make = rows_lib.RowMaker(row_spec(text, text_length=5))
  record = Record("a", turns=(("Where is the red ball?", "Here."),))
  assert not make(record, np.random.default_rng(0))["valid"]
  assert make.counts["skipped"] == 1


def _stream(world, text, **options):
  sources = {"instances": _instances(world)}
  return stream_lib.train_iterator(
    sources,
    {"instances": 1.0},
    rows_lib.RowMaker(row_spec(text)),
    batch_size=8,
    seed=3,
    **options,
  )


def _take(iterator, num):
  return [next(iterator) for _ in range(num)]


def _equal(a, b):
  return all(
    np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x
  )


def test_stream_is_the_same_for_any_hosts_threads_and_start(world, text):
  whole = _take(_stream(world, text, threads=0), 4)
  assert _equal(whole, _take(_stream(world, text, threads=3), 4))
  assert _equal(whole[2:], _take(_stream(world, text, start=2), 2))
  for num_hosts in (2, 4):
    parts = [
      _take(_stream(world, text, host=h, num_hosts=num_hosts), 4)
      for h in range(num_hosts)
    ]
    joined = [
      {k: np.concatenate([p[s][k] for p in parts]) for k in whole[0]}
      for s in range(4)
    ]
    assert _equal(whole, joined)


def test_stream_shows_each_record_once_an_epoch(world, text):
  batches = _take(_stream(world, text, threads=0), 3)  # 24 rows: 4 epochs of 6
  red = np.concatenate([b["images"][:, 0, 0, 0, 0] for b in batches])
  for epoch in np.split(np.round(red / 40).astype(int), 4):
    assert sorted(epoch) == list(range(6))


class _Words:
  """Records without an image, told apart by their words."""

  def __init__(self, *words):
    self._words = words

  def __len__(self):
    return len(self._words)

  def __getitem__(self, index):
    return Record(str(index), turns=((self._words[index], "cup"),))


def test_mixture_follows_the_weights(world, text):
  stream = stream_lib.train_iterator(
    {"instances": _instances(world), "text": _Words(*["a red ball"] * 5)},
    {"instances": 3.0, "text": 1.0},
    rows_lib.RowMaker(row_spec(text)),
    batch_size=40,
    seed=0,
    threads=0,
  )
  tokens = next(stream)["tokens"]
  assert (~(tokens == formats.IMAGE_TOKEN).any(1)).sum() == 10


def test_an_epoch_has_each_record_as_often_as_its_weight_says(text):
  def epochs(num):
    stream = stream_lib.train_iterator(
      {"a": _Words("red", "ball"), "b": _Words("cup", "dog", "a")},
      {"a": 2.0, "b": 1.0},
      rows_lib.RowMaker(row_spec(text)),
      batch_size=7,
      seed=0,
      threads=0,
      mix_by="epoch",
    )
    return [tuple(map(tuple, next(stream)["tokens"])) for _ in range(num)]

  first, second, third = epochs(3)
  assert sorted(first) == sorted(second) == sorted(third)
  assert len({first, second, third}) == 3  # in another order each time
  counts = sorted(first.count(row) for row in set(first))
  assert counts == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mix_by": "step"}, "mix_by='step'"),
    ({"mix_by": "epoch", "mixture": {"a": 0.5}}, "mixture.a=0.5"),
  ],
)
def test_wrong_mixing_is_named(text, changes, message):
  options = {"mixture": {"a": 1.0}, "batch_size": 1, "seed": 0} | changes
  with pytest.raises(ValueError, match=message):
    stream_lib.train_iterator(
      {"a": _Words("red")},
      make_row=rows_lib.RowMaker(row_spec(text)),
      **options,
    )


def _sorted_stream(world, text, **options):
  return stream_lib.train_iterator(
    {"instances": _instances(world), "text": _texts(world)},
    {"instances": 1.0, "text": 1.0},
    rows_lib.RowMaker(row_spec(text, text_length=200, num_visual=4)),
    **{"batch_size": 4, "seed": 3, "threads": 0, "window": 4} | options,
  )


def _texts(world):
  path = world[0] / "text.json"
  rows = [
    {
      "conversations": [
        {"from": "human", "value": "where " * n},
        {"from": "gpt", "value": "there " * n},
      ]
    }
    for n in range(1, 31)
  ]
  path.write_text(json.dumps(rows))
  return conversations.Conversations(str(path), "")


def _steps(stream, num):
  return [next(stream) for _ in range(num)]


def test_sorted_rows_are_the_same_examples_with_less_padding(world, text):
  steps = _steps(_sorted_stream(world, text), 8)
  for first in (0, 4):  # each window has the examples that it would have
    window = np.concatenate([s["example"] for s in steps[first : first + 4]])
    assert sorted(window) == list(range(first * 4, first * 4 + 16))
  lengths = {s["tokens"].shape[1] for s in steps}
  assert len(lengths) > 1 and max(lengths) <= 204
  assert all(n % packing.LENGTH_MULTIPLE == 0 or n == 204 for n in lengths)
  for step in steps:
    n = step["tokens"].shape[1]
    assert step["loss_mask"].shape == (4, n) and step["loss_mask"].any(1).all()
    assert step["lengths"].max() > n - packing.LENGTH_MULTIPLE - 4


def test_packed_rows_are_the_same_examples_one_after_another(world, text):
  def rows(**options):
    steps = _steps(_sorted_stream(world, text, **options), 4)
    return {
      int(example): (s, i)
      for s in steps
      for i, example in enumerate(s["example"].ravel())
    }

  single, packed = rows(), rows(pack=2)
  assert single.keys() == packed.keys()
  for example, (step, place) in packed.items():
    row, part = divmod(place, 2)
    alone, at = single[example]
    here = step["segments"][row] == part + 1
    n = alone["lengths"][at]
    for name in ("tokens", "loss_mask"):
      np.testing.assert_array_equal(step[name][row][here], alone[name][at][:n])
    image = step["images"][row, part]
    np.testing.assert_array_equal(image, alone["images"][at, 0])
    assert (step["segments"][row] > 0).sum() == step["lengths"][row]


def test_packing_leaves_less_padding(world, text):
  def padding(pack):
    steps = _steps(_sorted_stream(world, text, pack=pack), 8)
    real = sum(s["lengths"].sum() for s in steps)
    return 1 - real / sum(s["tokens"].size for s in steps)

  assert padding(4) < padding(2) < padding(1)


@pytest.mark.parametrize(
  ("changes", "message"),
  [({"window": 0}, "needs data.sort_window"), ({"pack": 3}, "divide batch")],
)
def test_wrong_packing_is_named(world, text, changes, message):
  with pytest.raises(ValueError, match=message):
    _sorted_stream(world, text, **{"pack": 2} | changes)


def test_a_row_does_not_depend_on_being_sorted(world, text):
  make = rows_lib.RowMaker(row_spec(text, text_length=200))
  sources = {"instances": _instances(world)}
  plain = stream_lib.train_iterator(
    sources, {"instances": 1.0}, make, batch_size=4, seed=3, threads=0
  )
  rows = {}
  for step in _steps(plain, 4):
    rows |= dict(zip(step["example"].tolist(), step["tokens"], strict=True))
  window = stream_lib.train_iterator(
    sources, {"instances": 1.0}, make, batch_size=4, seed=3, threads=0, window=4
  )
  for step in _steps(window, 4):
    for example, tokens in zip(step["example"], step["tokens"], strict=True):
      whole = rows[int(example)]
      np.testing.assert_array_equal(tokens, whole[: len(tokens)])
      assert (whole[len(tokens) :] == text.pad_id).all()


def test_an_image_of_unknown_size_may_need_any_length(world, text):
  make = rows_lib.RowMaker(row_spec(text, text_length=200))
  known = _instances(world)[1]
  unknown = dataclasses.replace(known, width=0, height=0)
  lengths = [make.needs(r, np.random.default_rng(0)) for r in (known, unknown)]
  assert lengths[0] == int(make(known, np.random.default_rng(0))["lengths"])
  assert lengths[1] == 204
  assert make(unknown, np.random.default_rng(0))["valid"]


@pytest.mark.parametrize("threads, pack", [(0, 1), (3, 1), (2, 2)])
def test_sorted_rows_are_alike_on_hosts_and_after_a_restart(
  world, text, threads, pack
):
  stream = functools.partial(_sorted_stream, world, text, pack=pack)
  whole = _steps(stream(), 7)
  hosts = [stream(host=h, num_hosts=2, threads=threads) for h in (0, 1)]
  for want, *parts in zip(whole, *(_steps(h, 7) for h in hosts), strict=True):
    for key in want:
      np.testing.assert_array_equal(
        np.concatenate([part[key] for part in parts]), want[key]
      )
  again = stream(start=5, threads=threads)
  for want, got in zip(whole[5:], _steps(again, 2), strict=True):
    np.testing.assert_array_equal(got["tokens"], want["tokens"])


def _grey(mode):
  """A picture that is grey (120) in any mode, and 40 x 30."""
  if mode == "I;16":
    return Image.fromarray(np.full((30, 40), 120 * 256 + 7, np.uint16))
  picture = Image.new("RGB", (40, 30), (120, 120, 120))
  if mode == "P":  # a palette that has this grey
    return picture.quantize(2)
  return picture if mode == "RGB" else picture.convert(mode)


@pytest.mark.parametrize(
  "mode, ending",
  [
    ("RGB", "jpg"),
    ("L", "jpg"),
    ("CMYK", "jpg"),
    ("P", "png"),
    ("LA", "png"),
    ("RGBA", "png"),
    ("I;16", "png"),
    ("P", "gif"),
  ],
)
def test_images_of_any_mode(mode, ending, tmp_path):
  path = str(tmp_path / f"x.{ending}")
  _grey(mode).save(path)
  image = images_lib.load_image(path, (40, 30))
  assert image.mode == "RGB" and image.size == (40, 30)
  assert abs(np.asarray(image).astype(int) - 120).max() <= 4


def test_a_rotation_in_exif_is_not_applied(tmp_path):
  """COCO's boxes are in the frame of the stored pixels."""
  path, exif = str(tmp_path / "x.jpg"), Image.Exif()
  exif[0x0112] = 6
  _grey("RGB").save(path, exif=exif)
  assert images_lib.load_image(path, (40, 30)).size == (40, 30)


def test_a_warning_of_pillow_is_not_relied_on(tmp_path, monkeypatch):
  """Filters of warnings are the process's, and loaders are threads."""
  monkeypatch.setattr("warnings.warn", lambda *a, **k: None)
  path = str(tmp_path / "x.png")
  Image.new("1", (9_500, 9_500)).save(path)  # a file of 11 kB
  with pytest.raises(images_lib.BadImage, match="too many"):
    images_lib.load_image(path)


def _huge(path):
  Image.new("1", (20_000, 10_000)).save(path)


@pytest.mark.parametrize(
  "spoil",
  [
    lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(b"not an image"),
    lambda p: p.write_bytes(p.read_bytes()[:-200]),
    lambda p: (p.unlink(), p.mkdir()),
    lambda p: p.unlink(),
    _huge,
  ],
  ids=["empty", "text", "truncated", "folder", "missing", "bomb"],
)
def test_images_that_cannot_be_used(spoil, tmp_path):
  path = tmp_path / "x.png"
  noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(noise).save(path)
  spoil(path)
  with pytest.raises(images_lib.BadImage):
    images_lib.load_image(str(path))


def test_inspected_rows_mark_what_is_trained(world, text):
  from locvlm_jax.data import rendering

  spec = row_spec(text, text_length=200)
  make = rows_lib.RowMaker(spec)
  row = make(_instances(world)[1], np.random.default_rng(0))
  row["example"] = np.int32(7)
  shown = rendering.marked_text(row, text)
  assert "<4 visual>" in shown and shown.endswith("</s>»")
  trained = [part.split("»")[0] for part in shown.split("«")[1:]]
  said = text.decode(row["tokens"][row["loss_mask"]]).split()
  assert " ".join(trained).replace("</s>", "").split() == said
  used = int(row["lengths"])
  assert rendering.header(row, spec).startswith(f"example 7: {used} of 204")
  picture = Image.new("RGB", (96, 96))
  drawn = rendering.draw(picture, "At [8,8,24,24].", spec.coords)
  # Bins 8 and 24 of 32: the frame is at 8.5 / 32 and 24.5 / 32 of 96 pixels.
  assert drawn.getpixel((25, 50)) == (255, 0, 0)
  assert drawn.getpixel((50, 50)) == (0, 0, 0)

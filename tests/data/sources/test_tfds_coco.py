"""COCO in array_record files, as tensorflow_datasets writes it."""

import io
import json
import struct
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data import catalog, images, leakage
from locvlm_jax.data.sources import coco
from locvlm_jax.data.sources import tfds_coco as tfds

# tf.train.Example.SerializeToString(deterministic=True) of TensorFlow 2.21.
GOLDEN = bytes.fromhex(
  "0a7e0a1e0a08696d6167652f696412121a100a0ee1c123fdffffffffffffffff01000a140a05"
  "696d616765120b0a090a03ffd8000a02c3a90a0b0a076e6f7468696e6712000a240a0c6f626a"
  "656374732f62626f78121412120a100000803e0000003f0000803f000000c00a130a0d6f626a"
  "656374732f6c6162656c12021a00"
)


def test_an_example_of_tensorflow():
  found = tfds.example(GOLDEN)
  assert [bytes(v) for v in found["image"]] == [b"\xff\xd8\0", b"\xc3\xa9"]
  assert found["image/id"] == [581857, -3, 0]
  np.testing.assert_array_equal(found["objects/bbox"], [0.25, 0.5, 1.0, -2.0])
  assert found["objects/label"] == [] and found["nothing"] == []


@pytest.mark.parametrize("size", range(1, len(GOLDEN)))
def test_a_cut_example_is_refused_or_has_less(size):
  try:
    found = tfds.example(GOLDEN[:size])
  except ValueError:
    return
  assert found == {}


def test_numbers_may_be_unpacked():
  floats = b"".join(b"\x0d" + struct.pack("<f", v) for v in (0.5, 2.0))
  ints = b"\x08\x07\x08\x96\x01"
  parts = {"f": _field(2, floats), "i": _field(3, ints)}
  found = tfds.example(_example(parts))
  np.testing.assert_array_equal(found["f"], [0.5, 2.0])
  assert found["i"] == [7, 150]


def _varint(value):
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  return bytes([*out, value])


def _field(number, data):
  return _varint(number << 3 | 2) + _varint(len(data)) + data


def _example(parts):
  entries = (_field(1, k.encode()) + _field(2, v) for k, v in parts.items())
  return _field(1, b"".join(_field(1, entry) for entry in entries))


def _ints(*values):
  return _field(3, _field(1, b"".join(map(_varint, values))))


def _row(number, jpeg, objects):
  boxes = np.array([b for *_, b in objects], "<f4").tobytes()
  return _example(
    {
      "image": _field(1, _field(1, jpeg)),
      "image/id": _ints(number),
      "image/filename": _field(1, _field(1, b"000000000007.jpg")),
      "objects/id": _ints(*(i for i, *_ in objects)),
      "objects/label": _ints(*(label for _, label, *_ in objects)),
      "objects/is_crowd": _ints(*(c for _, _, c, _ in objects)),
      "objects/bbox": _field(2, _field(1, boxes)),
    }
  )


NAMES = ["cup", "caf\u00e9 chair"]
# (id, label, crowd, [y1, x1, y2, x2]), of images of 40 x 30.
OBJECTS = [
  [(71, 0, 0, [0.1, 0.25, 0.5, 0.75]), (72, 1, 1, [0, 0, 1, 1])], [],
  [(91, 1, 0, [0.2, 0.5, 0.8, 1.0])],
]  # fmt: skip


def _jpegs():
  for i in range(3):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (90 * i, 9, 9)).save(file, "jpeg")
    yield file.getvalue()


@pytest.fixture
def folder(tmp_path):
  rows = [
    _row(7 + i, jpeg, objects)
    for i, (jpeg, objects) in enumerate(zip(_jpegs(), OBJECTS, strict=True))
  ]
  return _write(tmp_path / "coco" / "2017" / "1.1.0", rows)


def _write(folder, rows):
  from array_record.python import array_record_module

  folder.mkdir(parents=True)
  text = "".join(f"{name}\n" for name in NAMES)
  (folder / "objects-label.labels.txt").write_text(text, encoding="utf-8")
  for shard, part in enumerate((rows[:2], rows[2:])):
    path = str(folder / f"coco-train.array_record-0000{shard}-of-00002")
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    for row in part:
      writer.write(row)
    writer.close()
  return folder


def test_the_source_is_that_of_json(folder):
  source = coco.Instances(f"{folder}:train", "")
  assert source.categories == tuple(NAMES) and len(source) == 3
  assert source.image_ids() == [7, 8, 9]
  first = source[0]
  assert (first.id, first.width, first.height) == ("7", 40, 30)
  cup, chair = first.objects
  np.testing.assert_allclose(cup.box, (10, 3, 30, 15), atol=1e-4)
  assert (cup.id, cup.category, cup.crowd) == (71, "cup", False)
  assert (chair.category, chair.crowd) == ("caf\u00e9 chair", True)
  assert source[1].objects == ()
  assert [r.id for r in map(source.per_object().__getitem__, (0, 1))] == [
    "7",
    "9",
  ]


def test_images_are_those_that_were_packed(folder):
  source = coco.Instances(f"{folder}:train", "")
  for i, jpeg in enumerate(_jpegs()):
    record = source[i]
    image = images.load_image(record.image, (record.width, record.height))
    with Image.open(io.BytesIO(jpeg)) as want:
      np.testing.assert_array_equal(np.asarray(image), np.asarray(want))
  shard = str(folder / "coco-train.array_record-00000-of-00002")
  for bad in (
    f"{shard}#2",
    f"{shard[:-1]}9#0",
    f"{shard}x.array_record-0-of-1#0",
  ):
    with pytest.raises(images.BadImage, match="array_record"):
      images.load_image(bad)


def test_it_is_an_instances_source_and_an_evaluation_set(folder):
  tested = folder / "tested.json"
  tested.write_text('[{"image": "COCO_val2014_000000000009.jpg"}]')
  data = ml_collections.ConfigDict(
    {
      "instances": f"{folder}:train",
      "images": "",
      "object_captions": "",
      "mixture": {"instances": 1.0},
      "per_object": False,
    }
  )
  sources = catalog.open_sources(data, exclude=[str(tested)])
  assert sources["instances"].image_ids() == [7, 8]
  assert leakage.image_ids(f"{folder}:train") == {7, 8, 9}


def test_what_is_missing_is_named(folder):
  with pytest.raises(errors.DataError, match="no files coco-validation.array"):
    coco.Instances(f"{folder}:validation", "")
  (folder / "coco-train.array_record-00001-of-00002").unlink()
  with pytest.raises(
    errors.DataError, match="1 of the 2 files of split 'train'"
  ):
    coco.Instances(f"{folder}:train", "")
  (folder / "objects-label.labels.txt").unlink()
  with pytest.raises(errors.DataError, match="labels.txt: no such file. Name"):
    coco.Instances(f"{folder}:train", "")


def test_a_cut_file_is_named(folder):
  path = folder / "coco-train.array_record-00001-of-00002"
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(
    errors.DataError, match="00001-of-00002: not an array_rec"
  ):
    coco.Instances(f"{folder}:train", "")


@pytest.mark.parametrize(
  "row, message",
  [
    (b"\x0a\xff\x01abc", "record 0: .*cut short"),
    (_example({"image": _field(1, _field(1, b"junk"))}), "record 0: .*identif"),
    (
      _row(7, next(_jpegs()), [(1, 5, 0, [0, 0, 1, 1])]),
      "annotation 1: unknown category 5",
    ),
    (_row(7, next(_jpegs()), [(1, 0, 0, [0, 0, 1])]), "record 0: .*reshape"),
    (
      _row(7, next(_jpegs()), [(1, 0, 0, [0, 0, 1, np.nan])]),
      "annotation 1: bbox .*non-number",
    ),
    (
      _example({"image": _field(1, _field(1, next(_jpegs())))}),
      "record 0: KeyError.'image/id'",
    ),
  ],
  ids=["cut", "no image", "label", "box", "nan", "no id"],
)
def test_a_wrong_record_is_named(row, message, tmp_path):
  folder = _write(tmp_path / "x", [row])
  with pytest.raises(errors.DataError, match=message):
    coco.Instances(f"{folder}:train", "")


def test_neither_tensorflow_nor_tfds_is_imported(folder):
  code = (
    "import sys\n"
    "for n in ('tensorflow', 'tensorflow_datasets', 'jax', 'google.protobuf'):"
    " sys.modules[n] = None\n"
    "from locvlm_jax.data import images\n"
    "from locvlm_jax.data.sources import coco\n"
    f"record = coco.Instances({json.dumps(str(folder))} + ':train', '')[2]\n"
    "print(images.load_image(record.image).size)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True)
  assert done.stdout.decode().strip() == "(40, 30)", done.stderr.decode()

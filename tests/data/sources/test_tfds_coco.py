"""COCO in a folder as tensorflow_datasets prepares it."""

import concurrent.futures
import io
import json
import os
import struct
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.exclude import exclusion, leakage
from locvlm_jax.data.media import images
from locvlm_jax.data.sources import coco

NAMES = ["cup", "caf\u00e9 chair"]
# Those of coco/2017 (tensorflow_datasets/object_detection/coco.py).
FEATURES = tfds.features.FeaturesDict(
  {
    "image": tfds.features.Image(encoding_format="jpeg"),
    "image/filename": tfds.features.Text(),
    "image/id": np.int64,
    "objects": tfds.features.Sequence(
      {
        "id": np.int64,
        "area": np.int64,
        "bbox": tfds.features.BBoxFeature(),
        "label": tfds.features.ClassLabel(names=NAMES),
        "is_crowd": np.bool_,
      }
    ),
  }
)
# (id, label, crowd, [y1, x1, y2, x2]) of the objects of images of 40 x 30.
OBJECTS = [
  [(71, 0, False, [0.1, 0.25, 0.5, 0.75]),
   (72, 1, True, [0.0, 0.0, 1.0, 1.0])],
  [],
  [(91, 1, False, [0.2, 0.5, 0.8, 1.0])],
]  # fmt: skip


def _jpegs():
  for i in range(3):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (90 * i, 9, 9)).save(file, "jpeg")
    yield file.getvalue()


def _records():
  """Three serialized images, of the ids 7, 8 and 9."""
  for i, (jpeg, objects) in enumerate(zip(_jpegs(), OBJECTS, strict=True)):
    yield FEATURES.serialize_example(
      {
        "image": jpeg,
        "image/filename": f"{7 + i:012d}.jpg",
        "image/id": 7 + i,
        "objects": [
          {
            "id": k,
            "area": 5,
            "bbox": tfds.features.BBox(*box),
            "label": label,
            "is_crowd": crowd,
          }
          for k, label, crowd, box in objects
        ],
      }
    )


def _write(folder, records, file_format="array_record"):
  """Writes a folder of a version, the last record in a file of its own."""
  folder.mkdir(parents=True)
  FEATURES.save_config(folder)
  lengths = [len(part) for part in (records[:-1], records[-1:]) if part]
  _write_info(folder, file_format, lengths)
  write = {"array_record": _array_record, "tfrecord": _tfrecord}[file_format]
  for shard, length in enumerate(lengths):
    name = f"coco-train.{file_format}-{shard:05d}-of-{len(lengths):05d}"
    write(folder / name, records[:length] if shard == 0 else records[-1:])
  return folder


def _write_info(folder, file_format, lengths):
  split = {
    "name": "train",
    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    "shardLengths": [str(length) for length in lengths],
  }
  info = {
    "name": "coco",
    "configName": "2017",
    "version": "1.1.0",
    "fileFormat": file_format,
    "splits": [split],
  }
  (folder / "dataset_info.json").write_text(json.dumps(info))


def _array_record(path, records):
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def _tfrecord(path, records):
  """Length, checksum of it, record, checksum of that; none is checked."""
  framed = (struct.pack("<QI", len(r), 0) + r + bytes(4) for r in records)
  path.write_bytes(b"".join(framed))


@pytest.fixture(params=["array_record", "tfrecord"])
def folder(tmp_path, request):
  where = tmp_path / "coco" / "2017" / "1.1.0"
  return _write(where, list(_records()), request.param)


def _file(folder, shard):
  (path,) = folder.glob(f"coco-train.*-{shard:05d}-of-*")
  return path


def test_a_split_gives_the_records_that_json_would_give(folder):
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


def test_images_are_those_that_were_prepared(folder):
  source = coco.Instances(f"{folder}:train", "")
  for i, jpeg in enumerate(_jpegs()):
    record = source[i]
    image = images.load_image(record.image, (record.width, record.height))
    with Image.open(io.BytesIO(jpeg)) as want:
      np.testing.assert_array_equal(np.asarray(image), np.asarray(want))


def test_images_are_named_by_their_file_and_their_number_in_it(tmp_path):
  folder = _write(tmp_path / "x", list(_records()))
  source = coco.Instances(f"{folder}:train", "")
  assert [os.path.relpath(r.image, folder) for r in source] == [
    "coco-train.array_record-00000-of-00002#0",
    "coco-train.array_record-00000-of-00002#1",
    "coco-train.array_record-00001-of-00002#0",
  ]


def test_an_image_that_is_not_there_is_named(folder):
  file = str(_file(folder, 0))
  for bad in (
    f"{file}#2000",
    f"{file[:-1]}9#0",
    file.replace("coco-train", "coco-test") + "#0",
  ):
    with pytest.raises(images.BadImage, match="coco-t.*record"):
      images.load_image(bad)


def test_threads_read_images(folder):
  source = coco.Instances(f"{folder}:train", "")
  paths = [record.image for record in source] * 50
  with concurrent.futures.ThreadPoolExecutor(8) as threads:
    found = list(threads.map(images.load_image, paths))
  assert [image.size for image in found] == [(40, 30)] * len(paths)


# In a process of its own: jax, which tests have loaded, warns of forks.
FORKED = """
import concurrent.futures, multiprocessing, sys
from locvlm_jax.data.media import images
from locvlm_jax.data.sources import coco
paths = [r.image for r in coco.Instances(sys.argv[1], "")] * 50
sizes = [images.load_image(path).size for path in paths]
context = multiprocessing.get_context("fork")
with concurrent.futures.ProcessPoolExecutor(2, context) as processes:
  found = list(processes.map(images.load_image, paths))
assert [image.size for image in found] == sizes
print("done")
"""


def test_forked_processes_read_images(tmp_path):
  folder = _write(tmp_path / "x", list(_records()))
  arguments = [sys.executable, "-c", FORKED, f"{folder}:train"]
  done = subprocess.run(arguments, capture_output=True, text=True)
  assert done.stdout.strip() == "done", done.stderr


def test_records_of_evaluation_images_are_left_out(folder):
  tested = folder / "tested.json"
  tested.write_text('[{"image": "COCO_val2014_000000000009.jpg"}]')
  sources = {"instances": coco.Instances(f"{folder}:train", "")}
  tests = [exclusion.TestSet(str(tested))]
  kept = exclusion.exclude(sources, tests)["instances"]
  assert kept.image_ids() == [7, 8]


def test_a_split_is_an_evaluation_set_too(folder):
  assert leakage.image_ids(f"{folder}:train") == {7, 8, 9}


def test_a_resumed_run_notices_another_folder(folder):
  data = ml_collections.ConfigDict(
    {"mixture": {"instances": 1.0}, "instances": f"{folder}:train"}
  )
  before = catalog.hashes(data)
  assert before == catalog.hashes(data)
  _file(folder, 1).write_bytes(b"another")
  assert catalog.hashes(data) != before


def test_what_is_missing_is_named(folder):
  with pytest.raises(errors.DataError, match="no split 'validation'. It has t"):
    coco.Instances(f"{folder}:validation", "")
  _file(folder, 1).unlink()
  with pytest.raises(
    errors.DataError, match="1 of the 2 files of split 'train'"
  ):
    coco.Instances(f"{folder}:train", "")
  (folder / "objects-label.labels.txt").unlink()
  with pytest.raises(errors.DataError, match="labels.txt: no such file"):
    coco.Instances(f"{folder}:train", "")


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_folder_that_was_not_prepared_is_refused(name, tmp_path):
  folder = _write(tmp_path / "x", list(_records()))
  (folder / name).unlink()
  with pytest.raises(errors.DataError, match="Name the folder of a version"):
    coco.Instances(f"{folder}:train", "")


def test_a_folder_of_another_data_set_is_refused(tmp_path):
  folder = _write(tmp_path / "x", list(_records()))
  text = (folder / "features.json").read_text()
  (folder / "features.json").write_text(text.replace('"objects"', '"things"'))
  with pytest.raises(errors.DataError, match="no 'objects' or no 'image/id'"):
    coco.Instances(f"{folder}:train", "")


def test_a_format_that_is_not_read_is_refused_with_what_prepares_it(tmp_path):
  folder = _write(tmp_path / "x", list(_records()))
  _write_info(folder, "parquet", [2, 1])
  with pytest.raises(
    errors.DataError, match="neither.*file_format='array_record'"
  ):
    coco.Instances(f"{folder}:train", "")


def test_a_cut_file_is_named(folder):
  path = _file(folder, 1)
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(errors.DataError, match="00001-of-00002: record 0"):
    coco.Instances(f"{folder}:train", "")


def test_a_file_that_lacks_whole_records_is_named(tmp_path):
  folder = _write(tmp_path / "x", list(_records()), "tfrecord")
  _tfrecord(_file(folder, 0), list(_records())[:1])
  with pytest.raises(errors.DataError, match="00000-of-00002: 1 of its 2 rec"):
    coco.Instances(f"{folder}:train", "")


def _example(**changes):
  """Serializes the image 7 with one cup; a feature that is None is left out."""
  values = {
    "image": [next(_jpegs())],
    "image/filename": [b"000000000007.jpg"],
    "image/id": [7],
    "objects/id": [1],
    "objects/area": [5],
    "objects/bbox": [0.0, 0.0, 1.0, 1.0],
    "objects/label": [0],
    "objects/is_crowd": [0],
  } | {name.replace("__", "/"): value for name, value in changes.items()}
  example = tf_example_pb2.Example()
  kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
  for name, value in values.items():
    if value is not None:
      feature = example.features.feature[name]
      getattr(feature, kinds[type(value[0])]).value.extend(value)
  return example.SerializeToString()


@pytest.mark.parametrize(
  "record, message",
  [
    (_example()[:-20], "record 0: DecodeError"),
    (_example(image=[b"junk"]), "record 0: .*identif"),
    (_example(objects__label=[5]), "annotation 1: unknown category 5"),
    (_example(objects__bbox=[0.0, 0.0, 1.0]), "record 0: .*reshape"),
    (
      _example(objects__bbox=[0.0, 0.0, 1.0, np.nan]),
      "annotation 1: bbox .*non-number",
    ),
    (_example(objects__id=[1, 2]), "record 0: .*zip"),
    (_example(image__id=None), "images 0: id None is not an integer"),
  ],
  ids=["cut", "no image", "label", "box", "nan", "ids", "no id"],
)
def test_a_wrong_record_is_named(record, message, tmp_path):
  folder = _write(tmp_path / "x", [record])
  with pytest.raises(errors.DataError, match=message):
    coco.Instances(f"{folder}:train", "")


# Reads an image where neither TensorFlow nor jax can be found.
WITHOUT = """
import sys
from importlib import machinery
class Without(machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, *args):
    if name.split(".")[0] not in ("tensorflow", "jax"):
      return super().find_spec(name, *args)
sys.meta_path[sys.meta_path.index(machinery.PathFinder)] = Without
from locvlm_jax.data.media import images
from locvlm_jax.data.sources import coco
assert "tensorflow_datasets" not in sys.modules
record = coco.Instances(sys.argv[1], "")[2]
print(images.load_image(record.image).size)
"""


def test_neither_tensorflow_nor_jax_is_needed(folder):
  arguments = [sys.executable, "-c", WITHOUT, f"{folder}:train"]
  done = subprocess.run(arguments, capture_output=True, text=True)
  assert done.stdout.strip() == "(40, 30)", done.stderr


def test_it_is_said_what_to_install(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(errors.DataError, match=r"pip install 'locvlm_jax\[tfds"):
    coco.Instances(f"{folder}:train", "")

"""Images of evaluation sets are known by COCO's id, and not trained on."""

import gzip
import json
import os
import pathlib

import ml_collections
import pytest
from changed import changed

from locvlm_jax import errors
from locvlm_jax.data import catalog
from locvlm_jax.data.exclude import leakage


@pytest.mark.parametrize(
  "name, want",
  [
    ("COCO_val2014_000000000042.jpg", 42),
    ("000000000042.jpg", 42),
    ("coco/train2017/000000000042.jpg", 42),
    ("COCO_train2014_000000000042_7", 42),
    ("COCO_train2014_000000000042_1996153", 42),
    ("vg/VG_100K/2371.jpg", None),
    ("gqa/images/1000000000042.jpg", None),
    ("", None),
  ],
)
def test_names_of_one_image(name, want):
  assert leakage.coco_id(name) == want


COCO = {
  "images": [{"id": 1, "file_name": "x.jpg"}, {"id": 7}],
  "annotations": [{"id": 9, "image_id": 7}],
}
FILES = {
  "coco.json": (json.dumps({**COCO, "images": [
    {"id": 1, "file_name": "000000000001.jpg"},
    {"id": 7, "file_name": "COCO_val2014_000000000007.jpg"}]}), {1, 7}),
  "vqa.json": (json.dumps({"questions": [{"image_id": 5}]}), {5}),
  "refer.json": (json.dumps([{"img_id": "COCO_train2014_000000000003_2"}]),
                 {3}),
  "llava.json": (json.dumps([{"id": "a", "image": "coco/000000000004.jpg"},
                             {"id": "text alone"}]), {4}),
  "pope.json": ('{"image": "COCO_val2014_000000000006.jpg"}\n'
                '{"image": "COCO_val2014_000000000008.jpg"}\n', {6, 8}),
  "activitynet.json": (json.dumps([{"video_name": "1QIUV7WYKXg",
                                    "question_id": "v_1QIUV7WYKXg_3"}]),
                       {"1QIUV7WYKXg"}),
  "msrvtt.json": (json.dumps([{"video_id": 7010}]),
                  {"7010", "video7010", "vid7010"}),
  "hal_act.jsonl": ('{"video": "v_a.mp4", "objects": []}\n', {"a"}),
  "tgif.csv": ("gif_name\tquestion\nt_1o2\twhat ?\n", {"t_1o2"}),
  "micro.json": (json.dumps({"conversations": [{"video": "val/0007.gif"}]}),
                 {"0007", "video0007", "vid0007"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_file(name, packed, tmp_path):
  text, ids = FILES[name]
  path = tmp_path / (name + ".gz" * packed)
  path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
  assert leakage.image_ids(str(path)) == ids


def test_wrong_files_are_named(tmp_path):
  path = tmp_path / "x.json"
  with pytest.raises(errors.DataError, match="x.json: no such file"):
    leakage.image_ids(str(path))
  path.write_text("{")
  with pytest.raises(errors.DataError, match="x.json: neither json nor jsonl"):
    leakage.image_ids(str(path))


@pytest.fixture
def data(tmp_path):
  """Training files of six images and a field for each; 2 and 5 are tested."""
  images = [
    {"id": i, "file_name": f"{i:012d}.jpg", "width": 9, "height": 9}
    for i in range(6)
  ]
  notes = [
    {
      "id": i,
      "image_id": i,
      "category_id": 1,
      "bbox": [1, 1, 5, 5],
      "caption": "a cup",
    }
    for i in range(6)
  ]
  coco = {
    "images": images,
    "annotations": notes,
    "categories": [{"id": 1, "name": "cup"}],
  }
  turns = [
    {"from": "human", "value": "Where?"},
    {"from": "gpt", "value": "There."},
  ]
  llava = [
    {"id": str(i), "image": f"coco/{i:012d}.jpg", "conversations": turns}
    for i in range(6)
  ] + [{"id": "text", "conversations": turns}]
  tested = [{"image": f"COCO_val2014_{i:012d}.jpg"} for i in (2, 5)]
  for name, content in (("coco", coco), ("llava", llava), ("pope", tested)):
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
  coco_file, llava_file = (
    str(tmp_path / f"{n}.json") for n in ("coco", "llava")
  )
  return ml_collections.ConfigDict(
    {
      "instances": coco_file,
      "captions": coco_file,
      "conversations": llava_file,
      "images": str(tmp_path),
      "conversation_images": str(tmp_path),
      "mixture": {"instances": 1.0, "captions": 1.0, "conversations": 1.0},
      "per_object": True,
      "object_captions": "",
      "exclude": (str(tmp_path / "pope.json"),),
    }
  )


def test_images_of_evaluation_sets_are_left_out(data):
  sources = catalog.open_sources(data, exclude=data.exclude)
  left = {n: [s[i].id for i in range(len(s))] for n, s in sources.items()}
  assert left == {
    "instances": ["0", "1", "3", "4"],
    "captions": ["0", "1", "3", "4"],
    "conversations": ["0", "1", "3", "4", "text"],
  }
  assert sources["instances"].categories == ("cup",)
  for source in sources.values():
    assert "less 2 records about images of evaluation sets" in repr(source)
    assert not {2, 5} & set(source.image_ids())
  sources = catalog.open_sources(data)
  assert [len(s) for s in sources.values()] == [6, 6, 7]


def test_nothing_left_is_an_error(data):
  with pytest.raises(errors.DataError, match="data.instances: every record"):
    catalog.open_sources(data, exclude=[data.instances])


def test_files_of_the_evaluation_are_excluded_by_default(tmp_path):
  from configs import base
  from locvlm_jax import assemble

  tested = tmp_path / "a.json"
  tested.write_text('[{"image_id": 7}]')
  fields = {
    "data.exclude": (str(tested),),
    "eval.instances": "b.json",
    "eval.conversations": str(tested),
    "eval.hal_act.questions": "c.jsonl",
    "eval.hal_ade.questions": str(tmp_path),  # a folder
  }
  config = changed(base.get_config(), **fields)
  found = assemble.excluded_files(config)
  assert found == (str(tested), "b.json", "c.jsonl")
  config = changed(config, **{"data.exclude_eval": False})
  assert assemble.excluded_files(config) == (str(tested),)
  tested.write_text('[{"image": "flickr_42.jpg"}]')
  leakage.named.cache_clear()
  with pytest.raises(errors.DataError, match="a.json: it names no image by"):
    assemble.training_sources(config)


def test_a_table_of_overlaps(data):
  table = leakage.table([data.instances, *data.exclude])
  first, second = (line.split() for line in table.splitlines()[1:])
  assert first == ["[0]", "6", "2", "coco.json"]
  assert second == ["[1]", "2", "2", "pope.json"]


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with pope/ and refcoco/",
)
def test_real_files():
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"])
  pope = sorted((folder / "pope" / "at_HEAD").glob("coco_pope_*.json"))
  assert [len(leakage.image_ids(str(p))) for p in pope] == [500] * 3
  train = str(folder / "coco" / "annotations" / "instances_train2017.json")
  refer = str(folder / "refcoco" / "refcocog_val.json")
  assert leakage.overlaps([train, refer])[0][1] == 1

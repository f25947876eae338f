"""Images of evaluation sets are found whatever they are called, and told."""

import json
import pathlib
import pickle

import cups
import numpy as np
import pytest
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data.exclude import exclusion, leakage
from locvlm_jax.data.sources import conversations, refer


def write(path: pathlib.Path, content) -> str:
  path.write_text(json.dumps(content))
  return str(path)


def asked(folder: pathlib.Path, *names: str) -> str:
  """A file of questions about these images, as POPE's."""
  rows = [json.dumps({"image": name}) for name in names]
  (folder / "pope.json").write_text("\n".join(rows))
  return str(folder / "pope.json")


def left(source, *tests, genome="") -> list[str]:
  """The ids of the records that are left."""
  kept = exclusion.exclude({"x": source}, tests, genome)["x"]
  return [kept[i].id for i in range(len(kept))]


@pytest.fixture
def world(tmp_path) -> cups.Cups:
  return cups.write(tmp_path)


def renumbered(content: dict) -> None:
  """Counts the images from 11 on, as tools do that export COCO again."""
  for row in (*content["images"], *content["annotations"]):
    key = "image_id" if "image_id" in row else "id"
    row[key] += 11


def test_a_file_name_counts_before_a_number(world):
  names = [f"COCO_val2014_{i:012d}.jpg" for i in (0, 3)]
  test = exclusion.TestSet(asked(world.folder, *names))
  assert left(world.source(), test) == ["1", "2", "4", "5"]
  assert left(world.changed(renumbered), test) == ["12", "13", "15", "16"]
  # and the same of a file of tested images
  instances = world.folder / "instances.json"
  test = exclusion.TestSet(str(instances.rename(world.folder / "tested.json")))
  with pytest.raises(errors.DataError, match="every record is about an image"):
    left(world.changed(lambda content: None), test)


def test_numbers_of_other_data_sets_are_not_coco_s(world):
  rows = [{"id": i, "file_name": f"GCC_train_{i:09d}.jpg"} for i in range(6)]
  path = write(world.folder / "cc3m.json", {"images": rows, "annotations": []})
  assert leakage.image_ids(path) == frozenset()
  assert len(left(world.source(), exclusion.TestSet(path))) == 6


def other_names(content: dict) -> None:
  for row in content["images"]:
    row["file_name"] = f"photo{row['id']}.jpg"


def renamed(world) -> None:
  """Gives the pictures names that say nothing; each has its own content."""
  for i in range(6):
    path = world.folder / f"images/{i:012d}.jpg"
    path.rename(world.folder / f"images/photo{i}.jpg")


@pytest.mark.parametrize("as_folder", [False, True])
def test_pictures_at_hand_are_compared_by_content(world, as_folder):
  media = world.folder / "media"
  media.mkdir()
  for i in (1, 4):
    picture = world.folder / f"images/{i:012d}.jpg"
    copy = media / f"COCO_val2014_{i:012d}.jpg"
    copy.write_bytes(picture.read_bytes())
  names = sorted(p.name for p in media.iterdir())
  (media / ".DS_Store").write_bytes(b"x")
  renamed(world)
  source = world.changed(other_names)
  path = asked(world.folder, *names)
  test = exclusion.TestSet(path, str(media))
  if as_folder:
    test = exclusion.TestSet(str(media))
  assert left(source, test) == ["0", "2", "3", "5"]
  assert len(left(source, exclusion.TestSet(path))) == 6


def test_a_tested_picture_without_an_id_is_found_among_coco_s(world):
  media = world.folder / "media"
  media.mkdir()
  picture = world.folder / "images/000000000002.jpg"
  (media / "mine.jpg").write_bytes(picture.read_bytes())
  path = write(world.folder / "own.json", [{"image": "mine.jpg"}])
  test = exclusion.TestSet(path, str(media))
  assert left(world.source(), test) == ["0", "1", "3", "4", "5"]


TURNS = [
  {"from": "human", "value": "<image>\nWhere?"},
  {"from": "gpt", "value": "There."},
]


@pytest.fixture
def genome(tmp_path):
  """Conversations about images of Visual Genome, GQA and none."""
  names = [
    "vg/VG_100K/10.jpg", "vg/VG_100K_2/11.jpg", "gqa/images/12.jpg",
    "ocr_vqa/images/12.jpg", None,
  ]  # fmt: skip
  rows = [
    {"id": f"{i}", "image": name, "conversations": TURNS}
    for i, name in enumerate(names)
  ]
  del rows[-1]["image"]
  rows[-1]["conversations"] = [{**TURNS[0], "value": "Hm?"}, TURNS[1]]
  path = write(tmp_path / "conversations.json", rows)
  return conversations.Conversations(path, str(tmp_path))


def test_images_of_gqa_are_those_of_visual_genome(genome, tmp_path):
  rows = {"7": {"imageId": "11", "question": "?"}, "8": {"imageId": "12"}}
  test = exclusion.TestSet(write(tmp_path / "gqa.json", rows))
  assert left(genome, test) == ["0", "3", "4"]


def test_image_data_says_which_images_of_visual_genome_are_coco_s(
  genome, tmp_path
):
  rows = [{"image_id": 10, "coco_id": 42}, {"image_id": 11, "coco_id": None}]
  mapping = write(tmp_path / "image_data.json", rows)
  test = exclusion.TestSet(asked(tmp_path, f"COCO_val2014_{42:012d}.jpg"))
  assert left(genome, test) == ["0", "1", "2", "3", "4"]
  assert left(genome, test, genome=mapping) == ["1", "2", "3", "4"]
  sources = exclusion.exclude({"conversations": genome}, [test])
  told = exclusion.describe(sources, [test])
  assert any("not checked: 3 records of conversations" in x for x in told)
  assert any("1 records" in x and "unknown" in x for x in told)
  sources = exclusion.exclude({"conversations": genome}, [test], mapping)
  told = exclusion.describe(sources, [test])
  assert not any("Visual Genome" in x for x in told)
  # the same the other way round: images of GQA are tested, COCO's trained on
  tested = exclusion.TestSet(
    write(tmp_path / "q.json", {"1": {"imageId": "7"}})
  )
  sources = exclusion.exclude({"x": cups.write(tmp_path).source()}, [tested])
  assert "1 tested images" in exclusion.describe(sources, [tested])[1]
  with pytest.raises(errors.DataError, match="x.json: not a list of images"):
    leakage.genome_in_coco(write(tmp_path / "x.json", {"image_id": 3}))


def test_of_a_file_of_all_splits_training_is_not_tested(tmp_path):
  refs = [
    {"image_id": i, "split": split, "file_name": f"COCO_train2014_{i:012d}.jpg"}
    for i, split in enumerate(("train", "val", "testA", "testB"))
  ]
  path = tmp_path / "refs(unc).p"
  path.write_bytes(pickle.dumps(refs, protocol=2))
  assert leakage.image_ids(str(path)) == {1, 2, 3}
  karpathy = {
    "images": [
      {"filename": f"COCO_val2014_{i:012d}.jpg", "split": split}
      for i, split in enumerate(("train", "restval", "val", "test"))
    ]
  }
  path = write(tmp_path / "dataset_coco.json", karpathy)
  assert leakage.image_ids(path) == {2, 3}


def test_tracks_are_known_by_their_videos(tmp_path):
  videos = [{"id": 1, "file_names": ["abc/000.jpg", "abc/005.jpg"]}]
  path = write(tmp_path / "a.json", {"videos": videos, "annotations": []})
  assert leakage.image_ids(path) == {"abc"}
  videos = [{"id": 1, "file_name": "v_xyz.mp4"}]
  path = write(tmp_path / "b.json", {"videos": videos, "annotations": []})
  assert leakage.image_ids(path) == {"xyz"}


def test_what_is_left_out_is_told_with_the_file_that_it_is_in(world):
  path = asked(world.folder, f"{1:012d}.jpg", f"{2:012d}.jpg")
  test = exclusion.TestSet(path)
  sources = exclusion.exclude({"instances": world.source()}, [test])
  assert exclusion.describe(sources, [test]) == [
    "left out of training: 2 of 6 records of instances, whose images are"
    f" tested: 2 in {path}"
  ]
  (line,) = exclusion.describe({"instances": world.source()}, [])
  assert "no evaluation set is named" in line and "data.exclude" in line
  other = exclusion.TestSet(
    write(world.folder / "other.json", [{"image_id": 99}])
  )
  sources = exclusion.exclude({"instances": world.source()}, [other])
  (line,) = exclusion.describe(sources, [other])
  assert line.startswith("nothing is left out of training: no image of ")


def test_roboflow_s_names_of_coco_s_images_are_known():
  name = "000000000042_jpg.rf.3f1c00aa.jpg"
  assert leakage.image_id(name) == 42


def test_expressions_about_renumbered_images_go_by_their_names(tmp_path):
  Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "x.jpg")
  images = [{"id": 1, "file_name": f"COCO_train2014_{42:012d}.jpg"}]
  images[0] |= {"width": 9, "height": 9}
  notes = [{"id": 5, "image_id": 1, "bbox": [1, 1, 5, 5]}]
  write(tmp_path / "instances.json", {"images": images, "annotations": notes})
  ref = {"image_id": 1, "ann_id": 5, "split": "train"}
  refs = [{**ref, "sentences": [{"sent": "the cup"}]}]
  path = write(tmp_path / "refs.json", refs)
  assert refer.Refer(path, str(tmp_path)).image_ids() == [42]

"""Pseudo-boxes and absences from panoptic segmentations."""

import json

import panoptic_files
import pytest
from panoptic_files import made

from locvlm_jax import errors
from locvlm_jax.data import objectives
from locvlm_jax.data.sources import coco, tracks
from locvlm_jax.pseudo import pseudo_boxes


@pytest.fixture
def world(tmp_path):
  return panoptic_files.write(tmp_path)


def _instances(world, content):
  path = world.folder / "i.json"
  path.write_text(json.dumps(content))
  return coco.Instances(str(path), str(world.folder))


def test_segments_become_boxes_and_each_outcome_is_counted(world):
  content, summary = made(world, min_share=0.01)
  source = _instances(world, content)
  cup, tiny, dog = source[0].objects
  assert (cup.box, cup.crowd) == ((3, 2, 9, 8), False)
  assert (tiny.box, tiny.crowd) == ((0, 0, 1, 1), True)
  assert (dog.category, dog.box) == ("dog", (12, 5, 20, 10))
  assert [o.category for o in objectives.unique_objects(source[0].objects)] == [
    "dog"
  ]
  # A chair is said to be there; more than a tenth of image 1 has no segment.
  assert source.categories == ("cup", "dog", "chair")
  assert (source[0].absent, source[1].absent) == ((), ())
  assert summary == {
    "images": {
      "used": 2,
      "with too many pixels of no segment": 1,
      "without a mask": 0,
    },
    "segments": {
      "used": 3,
      "not alone": 1,
      "small": 1,
      "stuff": 1,
      "no pixels": 1,
    },
    "absent": 0,
  }


def test_what_is_absent_is_denied_and_nothing_else(world):
  del world.content["annotations"][0]["segments_info"][4]  # no chair any more
  content, _ = made(world, max_void=0.7)
  source = _instances(world, content)
  found = [objectives.absent(source[i], source.categories) for i in range(2)]
  assert found == [["chair"], ["cup", "dog"]]
  content["images"][1]["absent"] = [1]
  record = _instances(world, content)[1]
  assert objectives.absent(record, source.categories) == ["cup"]
  for listed, message in (
    ([3], "image 1: absent lists 'chair', which is annotated"),
    ([7], "image 1: absent has unknown category 7"),
    (["cup"], "image 1: absent has unknown category 'cup'"),
    (3, "image 1: absent 3 is not a list"),
  ):
    content["images"][1]["absent"] = listed
    with pytest.raises(errors.DataError, match=message):
      _instances(world, content)


def test_selected_categories_scores_and_what_may_be_denied(world):
  def outcomes(**rules):
    content, summary = made(world, max_void=1.0, **rules)
    names = {k["id"]: k["name"] for k in content["categories"]}
    found = {names[n["category_id"]]: n["fate"] for n in content["annotations"]}
    return (
      names,
      found,
      [[names[i] for i in row["absent"]] for row in content["images"]],
    )

  names, found, absent = outcomes(categories=("dog",), deny="selected")
  assert list(names.values()) == ["dog"] and found == {"dog": "used"}
  assert absent == [[], ["dog"]]
  _, found, absent = outcomes(categories=("dog",))
  assert found == {
    "dog": "used",
    "cup": "not selected",
    "chair": "not selected",
  }
  assert absent == [[], ["cup", "dog"]]
  _, found, absent = outcomes(min_score=0.95, deny="all")
  assert found["dog"] == "unsure" and found["sky"] == "stuff"
  assert absent == [[], ["cup", "dog", "sky"]]
  with pytest.raises(ValueError, match="category 'cow' is not in the file; it"):
    outcomes(categories=("cow",))
  with pytest.raises(ValueError, match="category 'sky' is stuff"):
    outcomes(categories=("sky",))


def test_boxes_of_frames_become_boxes_of_videos(world):
  del world.content["annotations"][0]["segments_info"][4]
  content = pseudo_boxes.by_video(made(world, max_void=1.0, min_share=0.01)[0])
  (world.folder / "t.json").write_text(json.dumps(content))
  (record,) = tracks.Tracks(str(world.folder / "t.json"), str(world.folder))
  assert record.image == str(world.folder / "v") and record.is_video
  assert all(o.crowd for o in record.objects)  # in one of two frames alone
  assert record.absent == ()
  content = made(world, max_void=1.0)[0]
  content["images"][1]["file_name"] = "1.jpg"
  with pytest.raises(ValueError, match="'1.jpg' is in no folder"):
    pseudo_boxes.by_video(content)
  content["images"][1] |= {"file_name": "v/1.jpg", "width": 10}
  with pytest.raises(ValueError, match="v/1.jpg has another size"):
    pseudo_boxes.by_video(content)


def test_what_stands_still_over_frames_is_asked_for(world):
  notes = world.content["annotations"]
  notes[1] = {**notes[0], "image_id": 1}
  del notes[0]["segments_info"][4]
  content = pseudo_boxes.by_video(made(world, max_void=0.0)[0])
  (world.folder / "t.json").write_text(json.dumps(content))
  (record,) = tracks.Tracks(str(world.folder / "t.json"), str(world.folder))
  assert [o.category for o in objectives.unique_objects(record.objects)] == [
    "dog"
  ]
  assert record.absent == ("chair",)

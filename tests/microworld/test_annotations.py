"""The micro-world's annotation files agree with its pictures."""

import collections
import json
import os
import re

import numpy as np
import pytest
from generated import COUNTS, HELD_OUT_WORDINGS, load
from PIL import Image

from locvlm_jax.data.sources import coco
from locvlm_jax.evals.scorers import vqa_accuracy
from locvlm_jax.microworld import entries
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts.wording import NUMBERS


@pytest.mark.parametrize("split", scene_lib.SPLITS)
def test_boxes_are_tight_to_the_panoptic_pixels(world, split):
  objects = {
    a["id"]: a
    for name in ("instances", "instances_novel")
    for a in load(world, f"{name}_{split}")["annotations"]
  }
  seen = set()
  for row in load(world, f"panoptic_{split}")["annotations"]:
    path = f"annotations/panoptic_{split}/{row['file_name']}"
    with Image.open(os.path.join(world, path)) as png:
      pixels = np.asarray(png).astype(np.uint32) @ [1, 256, 65536]
    assert set(np.unique(pixels)) == {s["id"] for s in row["segments_info"]}
    for segment in row["segments_info"]:
      x1, y1, x2, y2 = scene_lib.tight_box(pixels == segment["id"])
      assert segment["bbox"] == [x1, y1, x2 - x1, y2 - y1]
      assert segment["area"] == (pixels == segment["id"]).sum()
      if segment["category_id"] != entries.BACKGROUND_ID:
        found = objects[segment["id"]]
        assert found["image_id"] == row["image_id"]
        assert all(found[k] == segment[k] for k in segment)
        seen.add(segment["id"])
  assert seen == set(objects)


def test_instances_are_split_by_category(world):
  ids = set()
  for name, group in (
    ("instances", scene_lib.SEEN),
    ("instances_novel", scene_lib.HELD_OUT),
  ):
    for split in scene_lib.SPLITS:
      content = load(world, f"{name}_{split}")
      names = {c["id"]: c["name"] for c in content["categories"]}
      assert tuple(names.values()) == group
      images = {i["id"]: i for i in content["images"]}
      assert len(images) == COUNTS[f"num_{split}"]
      for a in content["annotations"]:
        assert a["category_id"] in names and a["image_id"] in images
        assert a["id"] not in ids
        ids.add(a["id"])
      for image in images.values():
        path = os.path.join(world, "images", split, image["file_name"])
        with Image.open(path) as jpg:
          assert jpg.size == (image["width"], image["height"])
          assert jpg.mode == "RGB"


def test_crowds_are_annotated_as_one(scenes):
  index, scene = next((i, s) for i, s in enumerate(scenes) if s.crowds)
  entry = entries.describe(scene, 5, "train", index)
  (crowd,) = [o for o in entry["objects"] if o["iscrowd"]]
  (category,) = scene.crowds
  group = [t for t in scene.things if t.category == category]
  assert len(group) > 1 and crowd["area"] == sum(t.area for t in group)
  assert len(entry["objects"]) == len(scene.things) - len(group) + 1
  rle = crowd["segmentation"]
  assert sum(rle["counts"]) == scene.width * scene.height
  assert sum(rle["counts"][1::2]) == crowd["area"]
  assert not any(r["ann_id"] == crowd["id"] for r in entry["refs"])


def test_all_files_are_about_the_same_images_and_objects(world, said):
  for split in scene_lib.SPLITS:
    images = {i["id"]: i for i in load(world, f"instances_{split}")["images"]}
    objects = {
      a["id"]: a for a in load(world, f"instances_{split}")["annotations"]
    }
    captions = load(world, f"captions_{split}")["annotations"]
    counts = collections.Counter(c["image_id"] for c in captions)
    assert set(counts) == set(images) and min(counts.values()) >= 2
    for ref in load(world, f"refs_{split}"):
      assert ref["bbox"] == objects[ref["ann_id"]]["bbox"]
      assert ref["category_id"] == objects[ref["ann_id"]]["category_id"]
      assert ref["split"] == split and ref["sentences"][0]["sent"]
    for item in load(world, f"conversations_{split}"):
      assert os.path.exists(os.path.join(world, "images", item["image"]))
      who = [m["from"] for m in item["conversations"]]
      assert who == ["human", "gpt"] * (len(who) // 2)
      said = [m["value"].startswith("<image>\n") for m in item["conversations"]]
      assert said == [True] + [False] * (len(said) - 1)
  texts = load(world, "text_train")
  assert len(texts) == 12 and all("image" not in t for t in texts)


def test_every_question_has_ten_answers_of_a_known_type(world):
  questions = load(world, "vqa_questions_val")["questions"]
  answers = {
    a["question_id"]: a
    for a in load(world, "vqa_annotations_val")["annotations"]
  }
  assert len(questions) == len(answers) >= 2 * COUNTS["num_val"]
  for q in questions:
    a = answers[q["question_id"]]
    assert a["image_id"] == q["image_id"] and len(a["answers"]) == 10
    assert a["answer_type"] in ("yes/no", "number", "other")


def test_a_number_said_in_a_word_is_right_in_vqav2_and_in_gqa(world):
  answers = load(world, "vqa_annotations_val")["annotations"]
  numbers = [a for a in answers if a["answer_type"] == "number"]
  assert numbers
  with open(f"{world}/benchmarks/gqa.json", encoding="utf-8") as f:
    gqa = json.load(f)
  for a in numbers:
    word = gqa[str(a["question_id"])]["answer"]
    assert word in NUMBERS
    said = vqa_accuracy.evalai(f"{word.capitalize()}.")
    humans = [h["answer"] for h in a["answers"]]
    assert vqa_accuracy.accuracy(said, humans) == 1


def test_portraits_show_one_object_and_have_captions_alone(world):

  path = f"{world}/annotations/captions_portraits.json"
  pairs = coco.Captions(path, f"{world}/images/portraits")
  assert len(pairs) == 4 * COUNTS["num_portraits"]
  for index in range(COUNTS["num_portraits"]):
    scene = scene_lib.make_scene(COUNTS["seed"], scene_lib.PORTRAITS, index)
    (thing,) = scene.things
    for record in (pairs[4 * index + k] for k in range(4)):
      assert thing.color in record.turns[0][1].lower()
      assert thing.category in record.turns[0][1].lower()
      with Image.open(record.image) as image:
        assert image.size == (scene.width, scene.height)


def test_videos_have_tracks_and_conversations_of_what_moves(world):
  for split, number in (("train", 5), ("val", 1)):
    content = load(world, f"videos_{split}")
    assert len(content["videos"]) == number == len(content["conversations"])
    videos = {v["id"]: v for v in content["videos"]}
    for video in videos.values():
      with Image.open(os.path.join(world, "videos", video["file_name"])) as gif:
        assert gif.n_frames == video["length"] and 8 <= gif.n_frames <= 16
        assert gif.size == (video["width"], video["height"])
    for track in content["annotations"]:
      boxes = track["bboxes"]
      assert len(boxes) == videos[track["video_id"]]["length"]
      if track["moving"]:
        assert np.abs(np.subtract(boxes[0], boxes[-1])).max() > 8
    for item in content["conversations"]:
      spoken = " ".join(m["value"] for m in item["conversations"])
      assert not re.search(r"\d|left|right|above|below|picture", spoken)
      assert not HELD_OUT_WORDINGS.search(spoken)

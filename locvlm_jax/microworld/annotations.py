"""Writes the annotation files of the micro-world, a json file each."""

import json
import os

from locvlm_jax.microworld import entries
from locvlm_jax.microworld.scene import CATEGORIES, HELD_OUT, SEEN

_INFO = {"description": "micro-world", "version": str(entries.VERSION)}
_BACKGROUND = {
  "id": entries.BACKGROUND_ID,
  "name": "background",
  "supercategory": "background",
  "isthing": 0,
}


def write(directory: str, name: str, content: object) -> None:
  """Writes DIRECTORY/annotations/NAME.json."""
  path = os.path.join(directory, "annotations", name + ".json")
  with open(path, "w", encoding="utf-8") as f:
    f.write(json.dumps(content))


def write_images(directory: str, split: str, items: list[dict]) -> None:
  """Writes all files about the images of a split.

  Args:
    directory: of the data set.
    split: "train" or "val".
    items: what `entries.describe` gives for each image.
  """
  _write_coco(directory, split, items)
  _write_texts(directory, split, items)
  if split == "val":
    _write_vqa(directory, items)


def _write_coco(directory: str, split: str, items: list[dict]) -> None:
  """Writes instances, panoptic segmentations and captions."""
  images = [item["image"] for item in items]
  base = {"info": _INFO, "licenses": [], "images": images}
  for name, group in (("instances", SEEN), ("instances_novel", HELD_OUT)):
    categories = _categories(group)
    ids = {category["id"] for category in categories}
    objects = [
      o for item in items for o in item["objects"] if o["category_id"] in ids
    ]
    content = {**base, "categories": categories, "annotations": objects}
    write(directory, f"{name}_{split}", content)
  categories = [*_categories(CATEGORIES), _BACKGROUND]
  segmentations = [item["panoptic"] for item in items]
  content = {**base, "categories": categories, "annotations": segmentations}
  write(directory, f"panoptic_{split}", content)
  captions = [caption for item in items for caption in item["captions"]]
  write(directory, f"captions_{split}", {**base, "annotations": captions})


def _write_texts(directory: str, split: str, items: list[dict]) -> None:
  """Writes referring expressions and conversations."""
  write(directory, f"refs_{split}", [r for item in items for r in item["refs"]])
  conversations = [item["conversation"] for item in items]
  write(directory, f"conversations_{split}", conversations)
  for name in ("lookups", "spatial"):
    said = [x for item in items if (x := item[name])["conversations"]]
    write(directory, f"{name}_{split}", said)


def _write_vqa(directory: str, items: list[dict]) -> None:
  """Writes VQAv2's files of questions and of answers."""
  pairs = [pair for item in items for pair in item["vqa"]]
  questions = {
    "info": _INFO,
    "task_type": "Open-Ended",
    "questions": [question for question, _ in pairs],
  }
  answers = {"info": _INFO, "annotations": [answer for _, answer in pairs]}
  write(directory, "vqa_questions_val", questions)
  write(directory, "vqa_annotations_val", answers)


def write_videos(directory: str, split: str, items: list[dict]) -> None:
  """Writes the file about the videos of a split.

  Args:
    directory: of the data set.
    split: "train" or "val".
    items: what `videos.write` gives for each video.
  """
  content = {
    "info": _INFO,
    "categories": _categories(CATEGORIES),
    "videos": [item["video"] for item in items],
    "annotations": [o for item in items for o in item["objects"]],
    "conversations": [item["conversation"] for item in items],
  }
  write(directory, f"videos_{split}", content)


def _categories(names: tuple[str, ...]) -> list[dict]:
  return [
    {
      "id": CATEGORIES.index(name) + 1,
      "name": name,
      "supercategory": "thing",
      "isthing": 1,
    }
    for name in names
  ]

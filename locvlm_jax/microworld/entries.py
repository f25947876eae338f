"""One image's or video's entries in COCO's, LLaVA's and VQA's formats.

Ids: images from 1, in val from 1000001, portraits from 2000001; an annotation's
(also its panoptic segment's) is ten times the image's plus the object's number
from 1; the background's segment has number 0. H, W: the picture's.
"""

import functools

import numpy as np

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.scene import CATEGORIES
from locvlm_jax.microworld.texts import (
  captions,
  conversations,
  keywords,
  references,
  spatial_questions,
  text_only,
)
from locvlm_jax.microworld.texts.wording import NUMBERS
from locvlm_jax.text.prompts import Turn

VERSION = 11  # of scenes, painting, wording and formats together
BACKGROUND_ID = len(CATEGORIES) + 1
_OFFSETS = {"train": 0, "val": 1_000_000, "portraits": 2_000_000}
MAX_IMAGES = 600_000  # so that segment ids fit into 24 bits


def image_id_of(split: str, index: int) -> int:
  """Numbers an image or video of a split."""
  return index + 1 + _OFFSETS[split]


def _units(scene: scene_lib.Scene) -> list[tuple[int, list[int]]]:
  """Lists what is annotated as one: a thing, or a whole crowd.

  Returns:
    (number from 1, indices of its things).
  """
  found = []
  for k, thing in enumerate(scene.things):
    group = [
      i for i, t in enumerate(scene.things) if t.category == thing.category
    ]
    if thing.category not in scene.crowds:
      found.append((k + 1, [k]))
    elif group[0] == k:
      found.append((k + 1, group))
  return found


def segments(scene: scene_lib.Scene, image_id: int) -> np.ndarray:
  """Makes COCO's panoptic pixels [H, W, 3]: id = R + 256 G + 256^2 B."""
  table = np.full(len(scene.things) + 1, 10 * image_id, np.uint32)
  for number, group in _units(scene):
    table[np.array(group) + 1] += number
  channels = np.stack([table >> 8 * c & 255 for c in range(3)], -1)
  return channels.astype(np.uint8)[scene.labels]


def _image(scene: scene_lib.Scene, image_id: int) -> dict:
  return {
    "id": image_id,
    "file_name": f"{image_id:012d}.jpg",
    "width": scene.width,
    "height": scene.height,
  }


def _captions(
  scene: scene_lib.Scene, image_id: int, rng: np.random.Generator
) -> list[dict]:
  return [
    {"id": 10 * image_id + k, "image_id": image_id, "caption": caption}
    for k, caption in enumerate(captions.captions(scene, rng))
  ]


def describe_portrait(scene: scene_lib.Scene, seed: int, index: int) -> dict:
  """Describes a portrait: an image and its captions, as pairs on the web."""
  image_id = image_id_of("portraits", index)
  rng = scene_lib.stream("text", seed, "portraits", index)
  return {
    "image": _image(scene, image_id),
    "captions": _captions(scene, image_id, rng),
  }


def describe(scene: scene_lib.Scene, seed: int, split: str, index: int) -> dict:
  """Makes all of one image's entries, by the file that they belong to."""
  image_id = image_id_of(split, index)
  rng = functools.partial(scene_lib.stream, seed=seed, split=split, index=index)
  image = _image(scene, image_id)
  objects = [_annotation(scene, image_id, *unit) for unit in _units(scene)]
  turns = rng("text")
  return {
    "image": image,
    "objects": objects,
    "panoptic": _panoptic(scene, image_id, objects),
    "captions": _captions(scene, image_id, turns),
    "conversation": _conversation(
      image,
      split,
      conversations.conversation(
        scene, turns, keywords.keywords(seed, split, index)
      ),
    ),
    "lookups": _conversation(
      image, split, conversations.lookups(scene, rng("lookups"))
    ),
    "spatial": _conversation(
      image, split, spatial_questions.conversation(scene, rng("spatial"))
    ),
    "refs": [
      _reference(scene, image, split, k, said)
      for k, said in references.references(scene, rng("refs"))
    ],
    "vqa": _vqa(image_id, conversations.short_questions(scene, rng("vqa"), 4))
    if split == "val"
    else [],
  }


def describe_text(seed: int, index: int) -> dict:
  """Describes one conversation about text alone, in LLaVA's format."""
  rng = scene_lib.stream("sentences", seed, "train", index)
  turns = text_only.text_item(rng)
  return {"id": f"text{index + 1}", "conversations": llava(turns)}


def _conversation(image: dict, split: str, turns: list[Turn]) -> dict:
  return {
    "id": str(image["id"]),
    "image": f"{split}/{image['file_name']}",
    "conversations": llava(turns, "<image>\n"),
  }


def _annotation(
  scene: scene_lib.Scene, image_id: int, number: int, group: list[int]
) -> dict:
  boxes = np.array([scene.things[k].box for k in group])
  (x1, y1), (x2, y2) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
  crowd = len(group) > 1
  return {
    "id": 10 * image_id + number,
    "image_id": image_id,
    "category_id": CATEGORIES.index(scene.things[group[0]].category) + 1,
    "bbox": [float(v) for v in (x1, y1, x2 - x1, y2 - y1)],
    "area": float(sum(scene.things[k].area for k in group)),
    "iscrowd": int(crowd),
    # COCO has polygons here and run lengths for crowds; the pixels of all
    # are in the panoptic PNG.
    "segmentation": _run_lengths(scene, group) if crowd else [],
  }


def _run_lengths(scene: scene_lib.Scene, group: list[int]) -> dict:
  """Makes COCO's uncompressed RLE: by columns, starting with background."""
  mask = np.isin(scene.labels, np.array(group) + 1).ravel(order="F")
  edges = np.flatnonzero(np.diff(mask)) + 1
  runs = np.diff([0, *edges, mask.size]).tolist()
  return {
    "counts": [0, *runs] if mask[0] else runs,
    "size": [scene.height, scene.width],
  }


def _panoptic(scene: scene_lib.Scene, image_id: int, objects: list) -> dict:
  keys = ("id", "category_id", "bbox", "area", "iscrowd")
  free = scene_lib.tight_box(scene.labels == 0)
  x1, y1, x2, y2 = free
  stuff = {
    "id": 10 * image_id,
    "category_id": BACKGROUND_ID,
    "bbox": [x1, y1, x2 - x1, y2 - y1],
    "area": int((scene.labels == 0).sum()),
    "iscrowd": 0,
  }
  things = [
    {k: (int(o[k]) if k == "area" else o[k]) for k in keys} for o in objects
  ]
  return {
    "image_id": image_id,
    "file_name": f"{image_id:012d}.png",
    "segments_info": [stuff, *things],
  }


def _reference(
  scene: scene_lib.Scene, image: dict, split: str, k: int, said: list[str]
) -> dict:
  thing, ann_id = scene.things[k], 10 * image["id"] + k + 1
  x1, y1, x2, y2 = (float(v) for v in thing.box)
  return {
    "ref_id": ann_id,
    "ann_id": ann_id,
    "image_id": image["id"],
    "file_name": image["file_name"],
    "split": split,
    "category_id": CATEGORIES.index(thing.category) + 1,
    "bbox": [x1, y1, x2 - x1, y2 - y1],
    "sentences": [
      {"sent_id": 10 * ann_id + i, "sent": sent} for i, sent in enumerate(said)
    ],
  }


def llava(turns: list[Turn], start: str = "") -> list[dict]:
  """Writes turns as LLaVA's messages; `start` comes before the first one."""
  values = [("human", "gpt")[k] for _ in turns for k in range(2)]
  said = [s for turn in turns for s in turn]
  return [
    {"from": who, "value": (start if i == 0 else "") + s}
    for i, (who, s) in enumerate(zip(values, said, strict=True))
  ]


def _vqa(image_id: int, turns: list[Turn]) -> list[tuple[dict, dict]]:
  """Makes VQAv2's (question, annotation); ten annotators who all agree.

  They write numbers in digits, as VQAv2's do: its metric takes those alone.
  """
  found = []
  for k, (question, answer) in enumerate(turns):
    ids = {"image_id": image_id, "question_id": 10 * image_id + k}
    kind = (
      "yes/no"
      if answer in ("yes", "no")
      else "number"
      if answer in NUMBERS
      else "other"
    )
    if kind == "number":
      answer = str(NUMBERS.index(answer))
    ten = [
      {"answer": answer, "answer_confidence": "yes", "answer_id": i}
      for i in range(1, 11)
    ]
    found.append(
      (
        {**ids, "question": question},
        {
          **ids,
          "question_type": " ".join(question.split()[:2]).lower(),
          "answer_type": kind,
          "multiple_choice_answer": answer,
          "answers": ten,
        },
      )
    )
  return found


def track(clip: scene_lib.Clip, video_id: int, k: int) -> dict:
  """Describes thing k of a video by its box in each frame."""
  things = [scene.things[k] for scene in clip.frames]
  return {
    "id": 10 * video_id + k + 1,
    "video_id": video_id,
    "category_id": CATEGORIES.index(things[0].category) + 1,
    "iscrowd": 0,
    "moving": clip.moving[k],
    "bboxes": [
      [
        float(v)
        for v in (t.box[0], t.box[1], t.box[2] - t.box[0], t.box[3] - t.box[1])
      ]
      for t in things
    ],
    "areas": [float(t.area) for t in things],
  }

"""Panoptic segmentations of pictures by a model of transformers, on PyTorch.

Any model that `AutoModelForUniversalSegmentation` loads and whose image
processor has `post_process_panoptic_segmentation`: Mask2Former, MaskFormer,
OneFormer. The paper used SEEM, which has no such class; what it writes in
COCO's panoptic format is read the same way (`pseudo/segmentations.py`).

Frames of a video become pictures VIDEO/00012.png, so that the result can stand
for annotations of the video.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from locvlm_jax import errors, files, progress
from locvlm_jax.data import reading
from locvlm_jax.data.media import images as images_lib
from locvlm_jax.data.media import video
from locvlm_jax.pseudo import segmentations

_ADVICE = (
  "needs PyTorch: pip install 'locvlm_jax[pseudo]', and transformers' own"
  " checkpoint of a panoptic model in --model"
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is segmented, and by what.

  Attributes:
    model: the directory of a panoptic model in transformers' format.
    media: the folder of pictures, or of videos.
    things: names of the categories that have instances, with commas between
      them, or a COCO file that lists them; "": all.
    min_score: the least score of a segment that is kept.
    frames: of each video, spread evenly; 0: `media` holds pictures.
  """

  model: str
  media: str
  things: str = ""
  min_score: float = 0.5
  frames: int = 0

  def recorded(self) -> dict:
    """Returns what the segmentations depend on, as the folder says it."""
    return {"mode": "segment", **dataclasses.asdict(self)}


def write(settings: Settings, out: str) -> dict:
  """Segments all pictures or videos, and returns the summary.

  Args:
    settings: what, and by what.
    out: the folder to write; see `segment`.

  Raises:
    ValueError: no PyTorch, or no such model, category or folder.
  """
  claim(out, settings.recorded())
  model = Segmenter.load(
    settings.model, _things(settings.things), settings.min_score
  )
  counts = segment(model, settings.media, out, settings.frames)
  return {"settings": settings.recorded(), **counts}


def _things(named: str) -> list[str]:
  """Returns the names of a list with commas, or of a COCO file."""
  if not named.endswith(".json"):
    return [n.strip() for n in named.split(",") if n.strip()]
  rows = reading.section(reading.read_json(named), "categories", named)
  return [reading.text(row, "name", named) for row in rows]


@dataclasses.dataclass(frozen=True)
class Segmenter:
  """A panoptic model; call it with a picture.

  Attributes:
    categories: rows of COCO's panoptic json.
  """

  categories: tuple[dict, ...]
  _run: Callable[[Image.Image], tuple[np.ndarray, list[dict]]]

  @classmethod
  def load(
    cls, directory: str, things: Sequence[str], threshold: float
  ) -> "Segmenter":
    """Loads a model from the user's disk; nothing is fetched.

    Args:
      directory: config.json, weights and preprocessor_config.json.
      things: names of the categories that have instances, unlike sky; empty:
        all of them.
      threshold: least score of a segment that is kept.

    Raises:
      ValueError: no PyTorch, no such model, or an unknown category.
    """
    model, processor, torch = _open(directory)
    names = {int(i): n for i, n in model.config.id2label.items()}
    if unknown := set(things) - set(names.values()):
      raise ValueError(
        f"things: {min(unknown)!r} is no category of {directory}."
      )
    stuff = {i for i, n in names.items() if things and n not in things}

    def run(picture: Image.Image):
      inputs = processor(images=picture, return_tensors="pt")
      with torch.inference_mode():
        outputs = model(**inputs.to(model.device))
      (found,) = processor.post_process_panoptic_segmentation(
        outputs,
        threshold=threshold,
        target_sizes=[picture.size[::-1]],
        label_ids_to_fuse=stuff,
      )
      return found["segmentation"].cpu().numpy(), found["segments_info"]

    # COCO's ids begin with 1; 0 is no category.
    rows = tuple(
      {"id": i + 1, "name": n, "isthing": int(i not in stuff)}
      for i, n in sorted(names.items())
    )
    return cls(rows, run)

  def __call__(self, picture: Image.Image) -> tuple[np.ndarray, list[dict]]:
    """Segments a picture.

    Returns:
      (ids [H, W], 0 where there is no segment; rows of "segments_info").
    """
    labels, found = self._run(picture)
    ids = np.zeros(labels.shape, np.uint32)
    rows = []
    for number, segment in enumerate(found, 1):
      ids[labels == segment["id"]] = number
      rows.append(
        {
          "id": number,
          "category_id": int(segment["label_id"]) + 1,
          "iscrowd": 0,
          "score": round(float(segment["score"]), 4),
        }
      )
    return ids, rows


def _open(directory: str):
  """Opens (model on the fastest device, processor, torch)."""
  try:
    import torch
    import transformers

    model = transformers.AutoModelForUniversalSegmentation.from_pretrained(
      directory, local_files_only=True
    )
    processor = transformers.AutoImageProcessor.from_pretrained(
      directory, local_files_only=True
    )
  except ImportError as e:
    raise ValueError(f"--mode=segment {_ADVICE} ({e}).") from None
  except (OSError, ValueError) as e:
    raise errors.DataError(
      f"{directory}: no panoptic model of transformers ({e})."
    ) from None
  device = "cuda" if torch.cuda.is_available() else "cpu"
  return model.eval().to(device), processor, torch


def claim(out: str, settings: Mapping) -> None:
  """Notes the settings in a folder that is empty, or that has the same ones.

  Raises:
    ValueError: what the folder holds was made with other settings.
  """
  os.makedirs(out, exist_ok=True)
  path = os.path.join(out, "settings.json")
  if os.path.exists(path):
    with open(path, encoding="utf-8") as f:
      if json.load(f) != settings:
        raise ValueError(
          f"{out}: made with other settings ({path}); take another folder."
        )
  _write_json(path, settings)


def segment(
  model: Segmenter,
  media: str,
  out: str,
  frames: int = 0,
  log: Callable[[str], None] = print,
) -> dict:
  """Segments a folder of pictures or, with `frames`, of videos.

  A picture whose segmentation is there already is not segmented again.

  Args:
    model: what segments.
    media: the folder.
    out: the folder for a PNG each, PNG.json beside it, and panoptic.json.
    frames: of each video, spread evenly; 0: `media` holds pictures.
    log: where progress goes.

  Returns:
    The summary: pictures by what became of them.

  Raises:
    DataError: no picture or video in the folder.
  """
  os.makedirs(out, exist_ok=True)
  counts, images, notes = collections.Counter(), [], []
  sources = sorted(_videos(media) if frames else _pictures(media))
  if not sources:
    kind = "video" if frames else "picture"
    raise errors.DataError(f"{media}: no {kind} in this folder.")
  counter = progress.Progress("segmented", len(sources), log)
  for name in sources:
    for image, note in _segmented(model, media, name, out, frames, counts):
      image["id"] = note["image_id"] = len(images) + 1
      images.append(image)
      notes.append(note)
    counter.add(1)
  _write_json(
    os.path.join(out, "panoptic.json"),
    {"images": images, "annotations": notes, "categories": model.categories},
  )
  return dict(sorted(counts.items()))


def _pictures(folder: str) -> list[str]:
  return [n for n in _listed(folder) if n.lower().endswith(video.PICTURES)]


def _videos(folder: str) -> list[str]:
  return [n for n in _listed(folder) if video.is_video(os.path.join(folder, n))]


def _listed(folder: str) -> list[str]:
  if not os.path.isdir(folder):
    raise errors.DataError(f"{folder}: no such folder.")
  return video.listed(folder)


def _segmented(
  model, media, name, out, frames, counts
) -> Iterator[tuple[dict, dict]]:
  """Yields (image, annotation) of a picture, or of each frame of a video.

  A damaged one is named, and left out as a whole.
  """
  path = os.path.join(media, name)
  try:
    if not frames:
      yield _one(model, lambda: images_lib.load_stored(path), name, out, counts)
      return
    for i, frame in enumerate(video.sample(path, frames)):
      part = os.path.join(name, f"{i:05}.png")
      yield _one(model, lambda f=frame: f, part, out, counts)
  except images_lib.BadImage as e:
    counts["unusable"] += 1
    print(f"left out {name}: {e}", flush=True)


def _one(model, read, name, out, counts) -> tuple[dict, dict]:
  """Segments a picture, unless that is done already."""
  mask = name if name.endswith(".png") else name + ".png"
  path = os.path.join(out, mask)
  if os.path.exists(path + ".json"):
    counts["there already"] += 1
    with open(path + ".json", encoding="utf-8") as f:
      return _rows(name, mask, json.load(f))
  picture = read()
  ids, segments = model(picture)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with files.replacing(path, "wb") as f:
    Image.fromarray(segmentations.segment_pixels(ids)).save(f, "PNG")
  found = {"size": picture.size, "segments": segments}
  _write_json(path + ".json", found)
  counts["segmented"] += 1
  return _rows(name, mask, found)


def _rows(name: str, mask: str, found: Mapping) -> tuple[dict, dict]:
  width, height = found["size"]
  return (
    {"file_name": name, "width": width, "height": height},
    {"file_name": mask, "segments_info": found["segments"]},
  )


def _write_json(path: str, content: object) -> None:
  with files.replacing(path) as f:
    json.dump(content, f, ensure_ascii=False)

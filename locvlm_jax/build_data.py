"""Training data on disk: `python -m locvlm_jax.build_data --out FILE.jsonl`.

  --dataset localize_instruct   LocPred, NegPred and RevLoc about the images of
                                a COCO instances file (paper, section 3.3)
  --dataset localize_activitynet   the same about what stands still in videos,
                                from boxes over their frames (section 3.5);
                                see data/sources/tracks.py

Each line is the conversation about one image or video in LLaVA's format, with
what it was made by; `config.data.conversations` and `video_conversations` read
the file. The pairs are those that training makes on the fly: image i draws from
the generator of (seed, i). No image is opened. At the end a summary is printed
and written beside the file: its counts by reason add up to the images and
annotations that were given, of a video one for each category that is in it.
"""

import collections
import concurrent.futures
import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator

from absl import flags

from locvlm_jax import command

_DATASET = flags.DEFINE_enum(
  "dataset", "localize_instruct", ["localize_instruct", "localize_activitynet"],
  "What to build.",
)  # fmt: skip
_INSTANCES = flags.DEFINE_string("instances", None, "COCO's instances json.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of its images.")
_TRACKS = flags.DEFINE_string(
  "tracks", None, "Boxes over the frames of videos, YouTube-VIS's json."
)
_VIDEOS = flags.DEFINE_string("videos", None, "Folder of these videos.")
_STATIC_IOU = flags.DEFINE_float(
  "static_iou", 0.5, "Of each of its boxes with their median, of what stands"
  " still.", 0.0, 1.0,
)  # fmt: skip
_OUT = flags.DEFINE_string("out", None, "The jsonl to write.")
_COORDS = flags.DEFINE_enum(
  "coords", "ivb", ["nfp", "ivb", "diga"], "How a location is written."
)
_NUM_BINS = flags.DEFINE_integer("num_bins", 224, "n_b of ivb and diga.")
_LOCATION = flags.DEFINE_enum(
  "location", "box", ["box", "point"], "What a location is."
)
_IMAGE_SIZE = flags.DEFINE_integer(
  "image_size", 224, "Side of the model's input, in pixels."
)
_GEOMETRY = flags.DEFINE_enum(
  "geometry", None, ["center_crop", "pad", "square"],
  "How an image becomes that square; by default center_crop, of videos square.",
)  # fmt: skip
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is random.")
_MAX_PAIRS = flags.DEFINE_integer(
  "max_pairs", 4, "Question-answer pairs of an image, at most.", lower_bound=1
)
_EXCLUDE = flags.DEFINE_multi_string(
  "exclude",
  [],
  "File of an evaluation set, whose images and videos are left out.",
)
_CAPTIONS = flags.DEFINE_string(
  "captions", None, "jsonl of captions by annotation id, as targets in place of"
  " the categories.",
)  # fmt: skip
_WORKERS = flags.DEFINE_integer(
  "workers", len(os.sched_getaffinity(0)), "Processes; the file is the same."
)
_CHUNK = 1000  # images that a process is given at a time


def main(argv: list[str]) -> None:
  """Flags to files."""
  del argv
  summary = build()
  text = json.dumps(summary, indent=2)
  with open(_OUT.value + ".summary.json", "w", encoding="utf-8") as f:
    f.write(text + "\n")
  print(text)


def build() -> dict:
  """Writes the jsonl, whole or not at all, and returns the summary.

  Raises:
    DataError: an annotation file that has to be repaired.
  """
  from locvlm_jax.data import leakage

  gc.disable()  # millions of objects, none of them garbage: a quarter faster
  source = _source()
  gc.freeze()  # and none of them moves in the processes that share them
  gc.enable()
  leakage.check_named(_EXCLUDE.value)
  tested = frozenset().union(*map(leakage.image_ids, _EXCLUDE.value))
  make = Maker(source, tested, source.deniable(tested))
  total, partial = Counts(), _OUT.value + ".partial"
  try:
    with open(partial, "w", encoding="utf-8") as out, _mapping() as mapped:
      for text, counts in _progress(mapped(make), len(source)):
        out.write(text)
        total.merge(counts)
    os.replace(partial, _OUT.value)
  finally:
    if os.path.exists(partial):
      os.remove(partial)
  captions = dict(sorted(source.captions.items()))
  return {
    "settings": _settings(),
    "captions": captions,
    "boxes": dict(sorted(source.boxes.items())),
    **total.sorted(),
  }


def _of_videos() -> bool:
  return _DATASET.value == "localize_activitynet"


def _source():
  """The annotations.

  Raises:
    ValueError: flags that are missing, or that belong to the other data set.
  """
  from locvlm_jax.data.sources import coco, object_captions, tracks

  if _of_videos():
    _check_flags((_TRACKS, _VIDEOS), (_INSTANCES, _IMAGES, _CAPTIONS))
    return tracks.Tracks(_TRACKS.value, _VIDEOS.value, _STATIC_IOU.value)
  _check_flags((_INSTANCES, _IMAGES), (_TRACKS, _VIDEOS))
  source = coco.Instances(_INSTANCES.value, _IMAGES.value)
  if _CAPTIONS.value:
    source = object_captions.captioned(source, _CAPTIONS.value)
  return source


def _check_flags(needed, idle) -> None:
  for flag in needed:
    if not flag.value:
      raise ValueError(f"--dataset={_DATASET.value}: --{flag.name} is missing.")
  for flag in idle:
    if flag.value:
      raise ValueError(
        f"--dataset={_DATASET.value}: --{flag.name} is of the other data set."
      )


def _geometry() -> str:
  """As the presets of images and of videos have it."""
  return _GEOMETRY.value or ("square" if _of_videos() else "center_crop")


class Maker:
  """The conversations of some images; call it with their range."""

  def __init__(self, source, tested, denied):
    self.source, self.tested, self.denied = source, tested, denied
    self.images = source.image_ids()
    self.folder = os.path.realpath(source.images)

  def chunks(self) -> list[range]:
    """All images, in parts for `__call__`."""
    num = len(self.source)
    return [range(i, min(i + _CHUNK, num)) for i in range(0, num, _CHUNK)]

  def __call__(self, part: range) -> tuple[str, "Counts"]:
    """Their lines, and what became of them."""
    counts, lines = Counts(), []
    for i in part:
      record = self.source[i]
      if self.images[i] in self.tested:
        counts.leave_out(record, "of an evaluation set")
      else:
        lines.append(self._line(i, record, counts))
    return "".join(lines), counts

  def _line(self, index: int, record, counts: "Counts") -> str:
    """The conversation about an image; empty where nothing can be asked."""
    import numpy as np

    from locvlm_jax.data import geometry, objectives
    from locvlm_jax.text import coords

    transform = geometry.make(
      _geometry(), record.width, record.height, _IMAGE_SIZE.value
    )
    pairs = objectives.pairs(
      record,
      transform,
      coords.Coords(_COORDS.value, _NUM_BINS.value, _LOCATION.value),
      self.source.categories,
      np.random.default_rng((_SEED.value, index)),
      _MAX_PAIRS.value,
      captions=self.denied,
    )
    counts.add(record, transform, pairs)
    medium = "video" if record.is_video else "image"
    row = {
      "id": record.id,
      medium: os.path.relpath(record.image, self.folder),
      "conversations": _messages(pairs, medium),
      "provenance": {
        "objectives": [p.objective for p in pairs],
        "seed": _SEED.value,
        "index": index,
      },
    }
    return json.dumps(row, ensure_ascii=False) + "\n" if pairs else ""


@contextlib.contextmanager
def _mapping() -> Iterator[Callable[[Maker], Iterable]]:
  """What applies a `Maker` to all of its chunks, in their order."""
  if _WORKERS.value < 2:
    yield lambda make: map(make, make.chunks())
    return
  # Forked, since the source is large and is there already.
  context = multiprocessing.get_context("fork")
  with contextlib.ExitStack() as pools:

    def mapped(make: Maker) -> Iterable:
      pool = concurrent.futures.ProcessPoolExecutor(
        _WORKERS.value, context, _start, (make,)
      )
      pools.callback(pool.shutdown, cancel_futures=True)
      return pool.map(_made, make.chunks())

    yield mapped


def _start(make: Maker) -> None:
  global _maker
  _maker = make


def _made(part: range) -> tuple[str, "Counts"]:
  return _maker(part)


class Counts:
  """What became of images and annotations; pairs by objective."""

  def __init__(self):
    self.images = collections.Counter()
    self.annotations = collections.Counter()
    self.pairs = collections.Counter()

  def leave_out(self, record, reason: str) -> None:
    """Counts an image that isn't looked at."""
    self.images[reason] += 1
    self.annotations[reason] += len(record.objects)

  def add(self, record, transform, pairs) -> None:
    """Counts an image, each of its annotations once, and its pairs."""
    from locvlm_jax.data import objectives

    crowds = sum(o.crowd for o in record.objects)
    alone = len(objectives.unique_objects(record.objects))
    visible = len(objectives.scene(record.objects, transform).unique)
    asked = sum(p.objective != "neg_pred" for p in pairs)
    self.images["used" if pairs else "nothing to ask"] += 1
    self.pairs.update(p.objective for p in pairs)
    crowd = "not static" if record.is_video else "crowd"
    self.annotations.update(
      {
        crowd: crowds,
        "not alone": len(record.objects) - crowds - alone,
        "cropped": alone - visible,
        "not drawn": visible - asked,
        "asked about": asked,
      }
    )

  def merge(self, other: "Counts") -> None:
    """Adds another's."""
    for name, counts in vars(self).items():
      counts.update(getattr(other, name))

  def sorted(self) -> dict:
    """As the summary has them."""
    return {k: dict(sorted(v.items())) for k, v in vars(self).items()}


def _progress(parts: Iterable, num: int) -> Iterator:
  """`parts`, and every five seconds a line about the time left."""
  shown = began = time.monotonic()
  for done, part in zip(itertools.count(0, _CHUNK), parts, strict=False):
    if done and (now := time.monotonic()) - shown > 5:
      shown, left = now, (now - began) / done * (num - done)
      print(f"{done:,} of {num:,} images, {left:.0f} s left", flush=True)
    yield part


def _settings() -> dict:
  from locvlm_jax.text import prompts

  flags_ = (
    _DATASET,
    _INSTANCES,
    _COORDS,
    _NUM_BINS,
    _LOCATION,
    _IMAGE_SIZE,
    _GEOMETRY,
    _SEED,
    _MAX_PAIRS,
    _EXCLUDE,
    _CAPTIONS,
  )
  if _of_videos():
    flags_ = (*flags_, _TRACKS, _STATIC_IOU)
  chosen = {flag.name: flag.value for flag in flags_}
  return chosen | {
    "geometry": _geometry(),
    "templates": prompts.TEMPLATE_VERSION,
  }


def _messages(pairs, medium: str) -> list[dict]:
  """LLaVA's form; the image or video stands before the first question."""
  messages = []
  for k, pair in enumerate(pairs):
    start = f"<{medium}>\n" if k == 0 else ""
    messages += [
      {"from": "human", "value": start + pair.question},
      {"from": "gpt", "value": pair.answer},
    ]
  return messages


if __name__ == "__main__":
  command.run(main, required=["out"])

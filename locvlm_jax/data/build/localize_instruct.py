"""Builds Localize-Instruct: LocPred, NegPred and RevLoc as conversations.

Each line of the jsonl is the conversation about one image or video in LLaVA's
format, with what it was made by:

  {"id": "42", "image": "000000000042.jpg", "conversations": [...],
   "provenance": {"objectives": ["neg_pred", ...], "seed": 0, "index": 7}}

The pairs are those that training makes on the fly: image i draws from the
generator of (seed, i). No image is opened.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from locvlm_jax import files
from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.build import drawn_pairs
from locvlm_jax.data.exclude import exclusion, leakage
from locvlm_jax.data.records import Record, Source
from locvlm_jax.data.sources import any_format, object_captions
from locvlm_jax.data.sources import tracks as tracks_lib
from locvlm_jax.progress import Progress
from locvlm_jax.text import prompts
from locvlm_jax.text.coords import Coords

OF_IMAGES, OF_VIDEOS = "localize_instruct", "localize_activitynet"
DATASETS = (OF_IMAGES, OF_VIDEOS)
_CHUNK = 1000  # images that a process is given at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What a data set is built from, and how its pairs are made.

  Attributes:
    dataset: one of DATASETS.
    instances: COCO's instances json; of images.
    images: the folder of its images.
    captions: jsonl of captions by annotation id, as targets in place of the
      categories; None: the categories.
    tracks: boxes over the frames of videos, YouTube-VIS's json; of videos.
    videos: the folder of these videos.
    static_iou: IoU of each box of an object with their median, above which the
      object counts as static.
    coords: how a location is written.
    image_size: side of the model's input, in pixels.
    geometry: how an image becomes that square, one of `geometry.KINDS`; None:
      as the presets of images and of videos have it.
    seed: of all that is random.
    max_pairs: question-answer pairs of an image, at most.
    num_pairs: so many pairs in all, drawn by seed, each a conversation of its
      own; 0: all that there are, those of an image in one conversation.
    exclude: files of evaluation sets, whose images and videos are left out.
    workers: processes; the result is the same.
  """

  dataset: str
  instances: str | None = None
  images: str | None = None
  captions: str | None = None
  tracks: str | None = None
  videos: str | None = None
  static_iou: float = tracks_lib.STATIC_IOU
  coords: Coords = Coords()
  image_size: int = 224
  geometry: str | None = None
  seed: int = 0
  max_pairs: int = 4
  num_pairs: int = 0
  exclude: Sequence[str] = ()
  workers: int = 1

  @property
  def of_videos(self) -> bool:
    """Says whether the data set is about videos."""
    return self.dataset == OF_VIDEOS

  @property
  def kind(self) -> str:
    """Names the geometry that is used."""
    return self.geometry or ("square" if self.of_videos else "center_crop")

  def summary(self) -> dict:
    """Lists what the result depends on, by the names of the flags."""
    chosen = {
      "dataset": self.dataset,
      "instances": self.instances,
      "coords": self.coords.form,
      "num_bins": self.coords.num_bins,
      "location": self.coords.location,
      "image_size": self.image_size,
      "geometry": self.kind,
      "seed": self.seed,
      "max_pairs": self.max_pairs,
      "num_pairs": self.num_pairs,
      "exclude": list(self.exclude),
      "captions": self.captions,
    }
    if self.of_videos:
      chosen |= {"tracks": self.tracks, "static_iou": self.static_iou}
    return chosen | {"templates": prompts.TEMPLATE_VERSION}


def build(settings: Settings, out: str) -> dict:
  """Writes the jsonl, whole or not at all.

  Args:
    settings: what is built from what.
    out: the file.

  Returns:
    The summary: the settings, and counts by reason that add up to the images
    and annotations that were given.

  Raises:
    DataError: an annotation file that has to be repaired.
    ValueError: a setting that is missing, or is of the other data set.
  """
  gc.disable()  # millions of objects, none of them garbage: a quarter faster
  source = _open(settings)
  gc.freeze()  # and none of them moves in the processes that share them
  gc.enable()
  leakage.check_named(settings.exclude)
  tests = [exclusion.TestSet(path) for path in settings.exclude]
  found = exclusion.find(source, exclusion.Tests(tests))
  for line in exclusion.describe(
    {settings.dataset: exclusion.WithoutExcluded(source, found)}, tests
  ):
    _log(line)
  builder = Builder(settings, source, found)
  chunks, total = builder.chunks(), Counts()
  progress = Progress("images", len(source), _log, every=5.0)
  pairs = []
  with files.replacing(out) as f, _mapping(settings.workers) as mapped:
    for chunk, (lines, counts) in zip(
      chunks, mapped(builder, chunks), strict=True
    ):
      if settings.num_pairs:
        pairs += lines
      else:
        f.writelines(lines)
      total.merge(counts)
      progress.add(len(chunk))
    if settings.num_pairs:
      drawn = drawn_pairs.draw(pairs, settings.num_pairs, settings.seed)
      f.writelines(drawn)
      total.keep_pairs(drawn_pairs.count(drawn))
  return {
    "settings": settings.summary(),
    "captions": dict(sorted(source.caption_counts.items())),
    "boxes": dict(sorted(source.box_counts.items())),
    "never denied beside kinds of it": list(source.broader),
    **total.sorted(),
  }


def _log(line: str) -> None:
  """Shows progress apart from the summary, which is what is printed."""
  print(line, file=sys.stderr, flush=True)


def _open(settings: Settings) -> Source:
  """Opens the annotations."""
  if settings.of_videos:
    _check(settings, ("tracks", "videos"), ("instances", "images", "captions"))
    return tracks_lib.Tracks(
      settings.tracks, settings.videos, settings.static_iou
    )
  _check(settings, ("instances", "images"), ("tracks", "videos"))
  source = any_format.AnyInstances(settings.instances, settings.images)
  if settings.captions:
    source = object_captions.captioned(source, settings.captions)
  return source


def _check(settings: Settings, needed, foreign) -> None:
  """Refuses settings that are missing, or that are of the other data set."""
  start = f"--dataset={settings.dataset}: "
  for name in needed:
    if not getattr(settings, name):
      raise ValueError(f"{start}--{name} is missing.")
  for name in foreign:
    if getattr(settings, name):
      raise ValueError(f"{start}--{name} is of the other data set.")


class Builder:
  """Makes the conversations of some records; call it with their range.

  Args:
    settings: how pairs are made.
    source: the annotations.
    found: what is left out.
  """

  def __init__(
    self, settings: Settings, source: Source, found: exclusion.Found
  ):
    self._settings, self._source, self._found = settings, source, found
    kept = exclusion.WithoutExcluded(source, found)
    self._pairs = objectives.PairSpec(
      settings.coords,
      source.categories,
      settings.max_pairs,
      captions=kept.object_captions(),
    )
    self._folder = os.path.abspath(source.folder)

  def chunks(self) -> list[range]:
    """Divides all records into parts for `__call__`."""
    num = len(self._source)
    return [range(i, min(i + _CHUNK, num)) for i in range(0, num, _CHUNK)]

  def __call__(self, part: range) -> tuple[list[str], "Counts"]:
    """Makes (the lines of these records, counts of what became of them)."""
    counts, lines = Counts(), []
    for i in part:
      record = self._source[i]
      if i in self._found.by_file:
        counts.leave_out(record, "of an evaluation set")
      else:
        lines += self._lines(i, record, counts)
    return lines, counts

  def _lines(self, index: int, record: Record, counts: "Counts") -> list[str]:
    """Makes the lines of a record; none where nothing can be asked."""
    s = self._settings
    transform = geometry.make(s.kind, record.width, record.height, s.image_size)
    rng = np.random.default_rng((s.seed, index))
    pairs = objectives.pairs(record, transform, self._pairs, rng)
    counts.add(record, transform, pairs)
    if s.num_pairs:
      return [
        self._line(index, record, f"{record.id}_{k}", [pair])
        for k, pair in enumerate(pairs)
      ]
    return [self._line(index, record, record.id, pairs)] if pairs else []

  def _line(self, index: int, record: Record, name: str, pairs) -> str:
    """Makes the line of a conversation, called `name`."""
    medium = "video" if record.is_video else "image"
    row = {
      "id": name,
      medium: os.path.relpath(record.image, self._folder),
      "conversations": _messages(pairs, medium),
      "provenance": {
        "objectives": [p.objective for p in pairs],
        "seed": self._settings.seed,
        "index": index,
      },
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _messages(pairs: Sequence[objectives.Pair], medium: str) -> list[dict]:
  """Writes LLaVA's form; the image or video comes before the first question."""
  messages = []
  for k, pair in enumerate(pairs):
    start = f"<{medium}>\n" if k == 0 else ""
    messages += [
      {"from": "human", "value": start + pair.question},
      {"from": "gpt", "value": pair.answer},
    ]
  return messages


class Counts:
  """Counts what became of images and annotations, and pairs by objective."""

  def __init__(self):
    self.images = collections.Counter()
    self.annotations = collections.Counter()
    self.pairs = collections.Counter()

  def leave_out(self, record: Record, reason: str) -> None:
    """Counts an image that isn't looked at."""
    self.images[reason] += 1
    self.annotations[reason] += len(record.objects)

  def add(
    self,
    record: Record,
    transform: geometry.Transform,
    pairs: Sequence[objectives.Pair],
  ) -> None:
    """Counts an image, each of its annotations once, and its pairs."""
    crowds = sum(o.crowd for o in record.objects)
    unique = len(objectives.unique_objects(record.objects))
    visible = len(objectives.visible(record.objects, transform))
    asked = sum(p.objective != "neg_pred" for p in pairs)
    self.images["used" if pairs else "nothing to ask"] += 1
    self.pairs.update(p.objective for p in pairs)
    self.annotations.update(
      {
        "not static" if record.is_video else "crowd": crowds,
        "not alone": len(record.objects) - crowds - unique,
        "cropped": unique - visible,
        "not drawn": visible - asked,
        "asked about": asked,
      }
    )

  def keep_pairs(self, kept: collections.Counter) -> None:
    """Counts the pairs that were not drawn apart from those that were."""
    left_out = self.pairs.total() - kept.total()
    self.pairs = kept + collections.Counter({"left out": left_out})

  def merge(self, other: "Counts") -> None:
    """Adds the counts of another part."""
    for name, counts in vars(self).items():
      counts.update(getattr(other, name))

  def sorted(self) -> dict[str, dict[str, int]]:
    """Lists the counts as the summary has them."""
    return {k: dict(sorted(v.items())) for k, v in vars(self).items()}


# ------------------------------------------------------------------ processes


@contextlib.contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterable]]:
  """Gives what applies a `Builder` to chunks in their order, by processes."""
  if workers < 2:
    yield map
    return
  # Forked, since the source is large and is there already.
  context = multiprocessing.get_context("fork")
  with contextlib.ExitStack() as pools:

    def mapped(builder: Builder, chunks: Sequence[range]) -> Iterable:
      pool = concurrent.futures.ProcessPoolExecutor(
        workers, context, _keep, (builder,)
      )
      pools.callback(pool.shutdown, cancel_futures=True)
      return pool.map(_built, chunks)

    yield mapped


def _keep(builder: Builder) -> None:
  """Keeps the builder of a process, which inherits it as it is forked."""
  global _builder
  _builder = builder


def _built(part: range) -> tuple[list[str], Counts]:
  return _builder(part)

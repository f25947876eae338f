"""The sources and benchmarks, by the names that configs use."""

import functools
import hashlib
import os
from collections.abc import Mapping

from locvlm_jax import errors
from locvlm_jax.data import leakage
from locvlm_jax.data.records import Source
from locvlm_jax.data.sources import (
  ade20k,
  coco,
  conversations,
  object_captions,
  object_lists,
  questions,
  refer,
  tfds_coco,
  tracks,
)

# Name in `config.data.mixture` -> (class, field with its images' folder). The
# class reads `config.data.<name>`.
SOURCES = {
  "instances": (coco.Instances, "images"),
  "novel": (coco.Instances, "images"),
  "captions": (coco.Captions, "images"),
  "refer": (refer.Refer, "images"),
  "conversations": (conversations.Conversations, "conversation_images"),
  "text": (conversations.Conversations, "conversation_images"),
  "video_conversations": (conversations.Videos, "videos"),
  "tracks": (tracks.Tracks, "videos"),
}
VIDEO_SOURCES = ("video_conversations", "tracks")

# Name in `config.eval` -> (what reads it, the fields with its paths).
BENCHMARKS = {
  "hal_ade": (ade20k.Ade20k, ("questions",)),
  "hal_act": (object_lists.ObjectLists, ("questions", "media")),
  **{
    name: (functools.partial(questions.Questions, name),
           ("questions", "answers", "media"))
    for name in questions.READERS
  },
  **{
    f"{name}_{split}": (
      functools.partial(refer.Regions, split=split), ("questions", "media"),
    )
    for name, splits in refer.SPLITS.items()
    for split in splits
  },
}  # fmt: skip


def open_source(name: str, data: Mapping) -> Source:
  """The source `name` of `config.data` or `config.eval`."""
  if name in BENCHMARKS:
    return _open_benchmark(name, data[name])
  source, images = SOURCES[name]
  if not data[name]:
    raise errors.DataError(f"data.{name}: no path. Set --config.data.{name}.")
  return source(data[name], data[images])


def _open_benchmark(name: str, files: Mapping):
  source, fields = BENCHMARKS[name]
  for field in fields:
    if not files[field] and field != "answers":
      full = f"eval.{name}.{field}"
      raise errors.DataError(f"{full}: no path. Set --config.{full}.")
  return source(*(files[field] for field in fields))


def benchmark_files(evaluation: Mapping) -> list[str]:
  """The files of questions that `config.eval` names; folders hold no COCO."""
  paths = [evaluation[name]["questions"] for name in BENCHMARKS]
  return [p for p in paths if p and not os.path.isdir(p)]


def open_sources(data: Mapping) -> dict[str, Source]:
  """Opens each source that `data.mixture` gives a positive weight.

  Records about images of the files in `data.exclude` are left out.

  Args:
    data: `config.data`.

  Raises:
    DataError: a file is missing or malformed, or nothing is left.
  """
  names = [n for n, weight in data["mixture"].items() if weight > 0]
  if not names:
    raise errors.DataError("data.mixture: no source has a positive weight.")
  sources = {n: open_source(n, data) for n in names}
  if data["object_captions"] and "instances" in sources:
    sources["instances"] = object_captions.captioned(
      sources["instances"], data["object_captions"]
    )
  if data["per_object"] and "instances" in sources:
    sources["instances"] = sources["instances"].per_object()
  return leakage.exclude(sources, data["exclude"])


def hashes(data: Mapping) -> dict[str, str]:
  """The hash of each annotation file that `config.data` trains on.

  A directory, or FOLDER:SPLIT, counts by the names and sizes of its files.
  """
  names = [n for n, weight in data["mixture"].items() if weight > 0]
  return {n: _hash(data[n]) for n in names if data[n]}


def _hash(path: str) -> str:
  if prepared := tfds_coco.parse_split(path):
    path = prepared[0]
  if os.path.isdir(path):
    names = sorted(os.scandir(path), key=lambda entry: entry.name)
    listing = [(entry.name, entry.stat().st_size) for entry in names]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()[:16]

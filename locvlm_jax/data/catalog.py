"""The sources and benchmarks, by the names that configs use."""

import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

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


def open_source(name: str, data: Any) -> Source:
  """Opens the source `name` of `config.data` or `config.eval`."""
  if name in BENCHMARKS:
    return _open_benchmark(name, data[name])
  source, images = SOURCES[name]
  if not data[name]:
    raise errors.DataError(f"data.{name}: no path. Set --config.data.{name}.")
  return source(data[name], data[images])


def _open_benchmark(name: str, files: Any):
  source, fields = BENCHMARKS[name]
  for field in fields:
    if not files[field] and field != "answers":
      full = f"eval.{name}.{field}"
      raise errors.DataError(f"{full}: no path. Set --config.{full}.")
  return source(*(files[field] for field in fields))


def benchmark_files(evaluation: Any) -> list[str]:
  """Names the files of questions in `config.eval`; folders hold no COCO."""
  paths = [evaluation[name].questions for name in BENCHMARKS]
  return [p for p in paths if p and not os.path.isdir(p)]


def used(data: Any) -> list[str]:
  """Names the sources that `data.mixture` gives a positive weight.

  Their order is that of SOURCES: which example is which depends on it.
  """
  return [name for name in SOURCES if data.mixture.get(name, 0.0) > 0]


def open_sources(
  data: Any,
  *,
  files: Any = None,
  names: Sequence[str] = (),
  exclude: Sequence[str] = (),
) -> dict[str, Source]:
  """Opens the sources that a run trains on.

  Args:
    data: `config.data`.
    files: what names their annotations and folders; default: `data`.
    names: of the sources; default: those that have a positive weight.
    exclude: files whose images are left out.

  Raises:
    DataError: a file is missing or malformed, or nothing is left.
  """
  if not (names := names or used(data)):
    raise errors.DataError("data.mixture: no source has a positive weight.")
  sources = {n: open_source(n, files or data) for n in names}
  if data.object_captions and "instances" in sources:
    sources["instances"] = object_captions.captioned(
      sources["instances"], data.object_captions
    )
  if data.per_object and "instances" in sources:
    sources["instances"] = sources["instances"].per_object()
  return leakage.exclude(sources, exclude)


def hashes(data: Any) -> dict[str, str]:
  """Hashes each annotation file that `config.data` trains on.

  A path that is a directory counts by the names and sizes of its files.
  """
  return {name: _hash(data[name]) for name in used(data) if data[name]}


def _hash(path: str) -> str:
  if prepared := tfds_coco.parse_split(path):
    path = prepared[0]  # its split counts as the whole folder
  if os.path.isdir(path):
    names = sorted(os.scandir(path), key=lambda entry: entry.name)
    listing = [(entry.name, entry.stat().st_size) for entry in names]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()[:16]

"""The sources and benchmarks, by the names that configs use."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from locvlm_jax import errors
from locvlm_jax.data.cache import entries
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.records import Source
from locvlm_jax.data.sources import (
  ade20k,
  any_format,
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
# class reads `config.data.<name>`. The order is part of every seed: where
# several sources are mixed, it says which of them is the first.
SOURCES = {
  "instances": (any_format.AnyInstances, "images"),
  "novel": (any_format.AnyInstances, "images"),
  "captions": (coco.Captions, "images"),
  "refer": (refer.Refer, "images"),
  "conversations": (conversations.Conversations, "conversation_images"),
  "text": (conversations.Text, "conversation_images"),
  "video_conversations": (conversations.Videos, "videos"),
  "tracks": (tracks.Tracks, "videos"),
  "spatial": (conversations.Conversations, "conversation_images"),
}
# Those that `config.eval` has files of, too.
_HELD_OUT = (
  "instances", "novel", "conversations", "video_conversations", "tracks",
)  # fmt: skip
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


def open_source(name: str, files: Any) -> Source:
  """Opens one source or benchmark.

  Args:
    name: of `SOURCES` or `BENCHMARKS`.
    files: what names its files: `config.data` or `config.eval`.

  Raises:
    DataError: no path is set, or a file is missing, malformed or empty.
  """
  if name in BENCHMARKS:
    return _open_benchmark(name, files[name])
  source, folder = SOURCES[name]
  if not files[name]:
    raise errors.DataError(f"data.{name}: no path. Set --config.data.{name}.")
  found = source(files[name], files[folder])
  if not len(found):
    raise errors.DataError(f"{files[name]}: no records.")
  return found


def _open_benchmark(name: str, files: Any) -> Source:
  source, fields = BENCHMARKS[name]
  for field in fields:
    if not files[field] and field != "answers":
      full = f"eval.{name}.{field}"
      raise errors.DataError(f"{full}: no path. Set --config.{full}.")
  return source(*(files[field] for field in fields))


def test_sets(evaluation: Any) -> list[exclusion.TestSet]:
  """Lists the files of annotations and questions that `config.eval` names.

  Of folders only those count that hold boxes in one of the formats: the others,
  of which only ADE20K's is one, hold no image of COCO.
  """
  found = [
    (evaluation[name], evaluation[SOURCES[name][1]])
    for name in _HELD_OUT
    if evaluation[name]
  ]
  found += [(evaluation[n].questions, evaluation[n].media) for n in BENCHMARKS]
  return [
    exclusion.TestSet(path, media)
    for path, media in found
    if path and (not os.path.isdir(path) or recognize.is_data_set(path))
  ]


def used(data: Any) -> list[str]:
  """Lists the sources that `config.data.mixture` gives a positive weight.

  They are in the order of `SOURCES`, since a config does not keep one.
  """
  unknown = [name for name in data.mixture if name not in SOURCES]
  if unknown:
    raise errors.DataError(
      f"data.mixture.{unknown[0]}: no such source; there are"
      f" {', '.join(SOURCES)}."
    )
  return [n for n in SOURCES if n in data.mixture and data.mixture[n] > 0]


def open_sources(
  data: Any,
  *,
  files: Any = None,
  names: Sequence[str] = (),
  exclude: Sequence[str | exclusion.TestSet] = (),
  genome: str = "",
) -> dict[str, Source]:
  """Opens the sources that a run trains on.

  Args:
    data: `config.data`.
    files: what names their annotations and folders; default: `data`.
    names: of the sources; default: those that have a positive weight.
    exclude: files whose images and videos are left out.
    genome: Visual Genome's image_data.json; "": not at hand.

  Raises:
    DataError: a file is missing or malformed, or nothing is left.
  """
  if not (names := names or used(data)):
    raise errors.DataError("data.mixture: no source has a positive weight.")
  files = data if files is None else files
  sources = {name: open_source(name, files) for name in names}
  _check_boxes(sources, data)
  if "instances" in sources:
    sources["instances"] = _prepared(sources["instances"], data)
  tests = [exclusion.TestSet(x) if isinstance(x, str) else x for x in exclude]
  return exclusion.exclude(sources, tests, genome)


def _check_boxes(sources: Mapping[str, Source], data: Any) -> None:
  """Refuses boxes in conversations where nothing says what they mean."""
  for name, source in sources.items():
    # What `build_data` has written is in the model's form: see `built_for`.
    is_ours = os.path.exists(f"{data.get(name, '')}.summary.json")
    if source.boxed and not data.conversation_boxes and not is_ours:
      raise errors.DataError(
        f"{source.boxed}: its text holds boxes, and data.conversation_boxes"
        " does not say what they are fractions of: set it to pad for LLaVA's,"
        " which are rewritten in this run's form and geometry, or to model if"
        f" data.{name} has them in these already."
      )


def _prepared(source: coco.Instances, data: Any) -> coco.Instances:
  """Gives objects their captions, and shows an image once for each object."""
  if data.object_captions:
    source = object_captions.captioned(source, data.object_captions)
  return source.per_object() if data.per_object else source


def hashes(data: Any) -> dict[str, str]:
  """Hashes each annotation file that `config.data` trains on.

  A path that is a directory counts by the names and sizes of its files.

  Returns:
    {name of the source: the first 16 digits of a SHA-256}.
  """
  return {name: _hash(data[name]) for name in used(data) if data[name]}


def _hash(paths: str) -> str:
  """Hashes a file, or several that are separated by commas."""
  several = [paths] if os.path.exists(paths) else paths.split(",")
  return " ".join(map(file_hash, several))


def file_hash(path: str) -> str:
  """Hashes a file; a folder by the names and sizes of what is in it."""
  if recognize.is_data_set(path):
    return _hash_all(recognize.files(path))
  if prepared := tfds_coco.parse_split(path):
    path = prepared[0]  # its split counts as the whole folder
  if os.path.isdir(path):
    names = sorted(os.scandir(path), key=lambda entry: entry.name)
    listing = [(entry.name, entry.stat().st_size) for entry in names]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
  return entries.file_hash(path)


def _hash_all(paths: Sequence[str]) -> str:
  """Hashes the contents of several files, in this order."""
  digest = hashlib.sha256()
  for path in paths:
    with open(path, "rb") as f:
      digest.update(hashlib.file_digest(f, "sha256").digest())
  return digest.hexdigest()[:16]

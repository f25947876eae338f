"""Writes the micro-world: a small seeded data set in COCO's own formats.

    python -m locvlm_jax.microworld --out DIR --train 2000 --val 200

    DIR/images/{train,val,portraits}/000000000001.jpg
    DIR/videos/{train,val}/000000000001.gif
    DIR/annotations/
      instances_{train,val}.json         the 18 seen categories ("COCO")
      instances_novel_{train,val}.json   the 6 held-out ones ("ADE20K")
      panoptic_{train,val}.json, panoptic_{train,val}/000000000001.png
      captions_{train,val,portraits}.json  COCO captions
      refs_{train,val}.json              referring expressions
      conversations_{train,val}.json     LLaVA format, general questions
      lookups_{train,val}.json           LLaVA format, colors by category
      spatial_{train,val}.json           LLaVA format, left/right, above/below
      text_train.json                    LLaVA format, no image
      vqa_{questions,annotations}_val.json  VQAv2 format, ten equal answers
      videos_{train,val}.json            YouTube-VIS format + conversations
    DIR/benchmarks/  the same as POPE, GQA, ... (benchmarks.py)
    DIR/microworld.json                  seed, version, counts; written last

Everything downstream reads these as it reads COCO. The same seed gives the
same bytes, whatever the number of workers, and the first images of a larger
set are those of a smaller one. Portraits, of a single larger object each, have
captions alone: what CLIP's pairs from the web are in the paper. Image ids start
at 1, in val at 1000001, of portraits at 2000001; annotation ids (also the
panoptic segment ids) are ten times the image's id plus the object's number from
1; the background's segment has number 0.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable

from locvlm_jax import progress
from locvlm_jax.microworld import (
  annotations,
  benchmarks,
  entries,
  pictures,
  videos,
)
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.scene import HELD_OUT, SEEN

_CHUNK, _VIDEO_CHUNK = 64, 8  # items of a job
_META, _UNFINISHED = "microworld.json", "microworld.json.unfinished"
_FOLDERS = ("annotations", "images", "videos", benchmarks.FOLDER)


@dataclasses.dataclass(frozen=True)
class _Job:
  """Consecutive images or videos, few enough to report progress by.

  Attributes:
    directory: of the data set.
    seed: of the data set.
    split: that they are in.
    start: the index of the first.
    stop: the index after the last.
  """

  directory: str
  seed: int
  split: str
  start: int
  stop: int


def write(
  directory: str,
  *,
  num_train: int,
  num_val: int,
  num_videos: int = 64,
  num_portraits: int = 0,
  seed: int = 0,
  workers: int | None = None,
  log: Callable[[str], None] = lambda line: None,
) -> str:
  """Writes the data set into `directory`, or reuses an equal one.

  Args:
    directory: made if absent. One left by an interrupted run is redone.
    num_train: training images.
    num_val: validation images.
    num_videos: videos in train; val has a fifth, rounded up.
    num_portraits: images of a single object, with captions alone.
    seed: any int from 0.
    workers: processes; default: one per available core. 0 or 1: this process.
    log: called with progress lines.

  Returns:
    `directory`.

  Raises:
    ValueError: a bad count, or the directory holds something else.
  """
  meta = _meta(seed, num_train, num_val, num_videos, num_portraits)
  if _is_written(directory, meta):
    log(f"{directory}: already written, reused")
    return directory
  _prepare(directory, meta)
  with _Mapper(workers, num_train + num_val + num_portraits) as run:
    for split, number, clips in (
      ("train", num_train, num_videos),
      ("val", num_val, -(-num_videos // 5)),
    ):
      _write_split(directory, seed, split, number, clips, run, log)
    _write_portraits(directory, seed, num_portraits, run, log)
  benchmarks.write(directory, seed)
  os.replace(
    os.path.join(directory, _UNFINISHED), os.path.join(directory, _META)
  )
  return directory


def _meta(
  seed: int, num_train: int, num_val: int, num_videos: int, num_portraits: int
) -> dict:
  for key, value, low, high in (
    ("seed", seed, 0, 2**63 - 1),
    ("num_train", num_train, 1, entries.MAX_IMAGES),
    ("num_val", num_val, 1, entries.MAX_IMAGES),
    ("num_videos", num_videos, 0, entries.MAX_IMAGES),
    ("num_portraits", num_portraits, 0, entries.MAX_IMAGES),
  ):
    if not low <= value <= high:
      raise ValueError(f"{key} is {value}; it must be {low} to {high}.")
  return {
    "version": entries.VERSION,
    "seed": seed,
    "num_train": num_train,
    "num_val": num_val,
    "num_videos": num_videos,
    "num_portraits": num_portraits,
    "seen": list(SEEN),
    "held_out": list(HELD_OUT),
  }


def _is_written(directory: str, meta: dict) -> bool:
  """Says whether this data set is there; refuses another one."""
  path = os.path.join(directory, _META)
  if not os.path.exists(path):
    return False
  with open(path, encoding="utf-8") as f:
    found = json.load(f)
  wrong = [
    f"{k}: {found.get(k)!r}, wanted {meta[k]!r}"
    for k in meta
    if found.get(k) != meta[k]
  ]
  if wrong:
    raise ValueError(
      f"{directory} holds another micro-world ({'; '.join(wrong)}). "
      "Choose another directory, or remove this one."
    )
  return True


def _prepare(directory: str, meta: dict) -> None:
  """Makes the folders, and the mark of an unfinished run."""
  mark = os.path.join(directory, _UNFINISHED)
  os.makedirs(directory, exist_ok=True)
  if os.path.exists(mark):
    for folder in _FOLDERS:
      shutil.rmtree(os.path.join(directory, folder), ignore_errors=True)
  elif os.listdir(directory):
    raise ValueError(
      f"{directory} is not empty and has no {_META}. Choose a new or an "
      "empty directory."
    )
  with open(mark, "w", encoding="utf-8") as f:
    json.dump(meta, f, indent=1)
  os.makedirs(os.path.join(directory, "images", scene_lib.PORTRAITS))
  for kind, split in itertools.product(
    ("images", "videos", "annotations/panoptic_"), scene_lib.SPLITS
  ):
    path = f"{kind}{split}" if kind.endswith("_") else f"{kind}/{split}"
    os.makedirs(os.path.join(directory, path))


class _Mapper:
  """A context that gives `map`, by several processes if that is worth it."""

  def __init__(self, workers: int | None, items: int):
    cores = (
      len(os.sched_getaffinity(0))
      if hasattr(os, "sched_getaffinity")
      else os.cpu_count() or 1
    )
    wanted = cores if workers is None else workers
    # Starting a process costs as much as making a few hundred images.
    self.workers = min(wanted, -(-items // (2 * _CHUNK)))
    self.pool = None

  def __enter__(self):
    if self.workers < 2:
      return map
    self.pool = concurrent.futures.ProcessPoolExecutor(
      self.workers, mp_context=multiprocessing.get_context("spawn")
    )
    return self.pool.map

  def __exit__(self, *error):
    if self.pool is not None:
      self.pool.shutdown(cancel_futures=True)


def _write_split(
  directory: str,
  seed: int,
  split: str,
  number: int,
  num_videos: int,
  run: Callable,
  log: Callable[[str], None],
) -> None:
  """Writes the images, videos and annotations of one split.

  Args:
    directory: of the data set.
    seed: of the data set.
    split: "train" or "val".
    number: of images.
    num_videos: how many videos.
    run: `map`, or that of a pool of processes.
    log: called with progress lines.
  """
  jobs = _jobs(directory, seed, split, number, _CHUNK)
  made = run(_write_images, jobs)
  items = _collected(f"{split} images", number, made, log)
  annotations.write_images(directory, split, items)
  jobs = _jobs(directory, seed, split, num_videos, _VIDEO_CHUNK)
  made = run(_write_videos, jobs)
  items = _collected(f"{split} videos", num_videos, made, log)
  annotations.write_videos(directory, split, items)
  if split == "train":
    texts = [entries.describe_text(seed, i) for i in range(-(-number // 2))]
    annotations.write(directory, "text_train", texts)


def _write_portraits(
  directory: str, seed: int, number: int, run: Callable, log: Callable
) -> None:
  """Writes the portraits and their captions."""
  jobs = _jobs(directory, seed, scene_lib.PORTRAITS, number, _CHUNK)
  made = run(_write_portrait_images, jobs)
  items = _collected("portraits", number, made, log)
  content = {
    "images": [item["image"] for item in items],
    "annotations": [c for item in items for c in item["captions"]],
  }
  annotations.write(directory, "captions_portraits", content)


def _jobs(
  directory: str, seed: int, split: str, number: int, chunk: int
) -> list[_Job]:
  return [
    _Job(directory, seed, split, i, min(i + chunk, number))
    for i in range(0, number, chunk)
  ]


def _collected(
  what: str,
  number: int,
  chunks: Iterable[list[dict]],
  log: Callable[[str], None],
) -> list[dict]:
  """Collects the items of all chunks, and logs how far they are."""
  found, counter = [], progress.Progress(what, number, log)
  for chunk in chunks:
    found += chunk
    counter.add(len(chunk))
  return found


# What a process does ----------------------------------------------------------


def _write_images(job: _Job) -> list[dict]:
  return [
    pictures.write(job.directory, job.seed, job.split, i)
    for i in range(job.start, job.stop)
  ]


def _write_portrait_images(job: _Job) -> list[dict]:
  return [
    entries.describe_portrait(
      pictures.write_picture(job.directory, job.seed, job.split, i), job.seed, i
    )
    for i in range(job.start, job.stop)
  ]


def _write_videos(job: _Job) -> list[dict]:
  return [
    videos.write(job.directory, job.seed, job.split, i)
    for i in range(job.start, job.stop)
  ]

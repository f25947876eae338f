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
import functools
import itertools
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator

from locvlm_jax.microworld import benchmarks, entries, pictures, videos
from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.scene import CATEGORIES, HELD_OUT, SEEN
from locvlm_jax.microworld.texts import text_only

_CHUNK = 64
_META, _UNFINISHED = "microworld.json", "microworld.json.unfinished"
_FOLDERS = ("annotations", "images", "videos", benchmarks.FOLDER)


@dataclasses.dataclass(frozen=True)
class _Job:
  """A run of consecutive items, small enough to report progress by."""

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
  """Writes the data set into `directory`, or reuses a finished equal one.

  Args:
    directory: made if absent. One left by an interrupted run is redone.
    num_train, num_val: images in each split.
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
  """An empty directory with the mark of an unfinished run."""
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
  _dump(mark, meta, indent=1)
  os.makedirs(os.path.join(directory, "images", scene_lib.PORTRAITS))
  for kind, split in itertools.product(
    ("images", "videos", "annotations/panoptic_"), scene_lib.SPLITS
  ):
    path = f"{kind}{split}" if kind.endswith("_") else f"{kind}/{split}"
    os.makedirs(os.path.join(directory, path))


class _Mapper:
  """A context that gives `map`, over processes if that is worth it."""

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
  log_ = functools.partial(_progress, log)
  items = log_(
    f"{split} images",
    number,
    run(_write_images, _jobs(directory, seed, split, number, _CHUNK)),
  )
  _write_annotations(directory, split, items)
  items = log_(
    f"{split} videos",
    num_videos,
    run(_write_videos, _jobs(directory, seed, split, num_videos, 8)),
  )
  _save(directory, f"videos_{split}", entries.videos_file(items))
  if split == "train":
    _save(
      directory,
      "text_train",
      [_text_item(seed, i) for i in range(-(-number // 2))],
    )


def _write_portraits(
  directory: str, seed: int, number: int, run: Callable, log: Callable
) -> None:
  jobs = _jobs(directory, seed, scene_lib.PORTRAITS, number, _CHUNK)
  made = run(_write_portrait_images, jobs)
  items = _progress(log, "portraits", number, made)
  content = {
    "images": [item["image"] for item in items],
    "annotations": [c for item in items for c in item["captions"]],
  }
  _save(directory, "captions_portraits", content)


def _jobs(
  directory: str, seed: int, split: str, number: int, chunk: int
) -> list[_Job]:
  return [
    _Job(directory, seed, split, i, min(i + chunk, number))
    for i in range(0, number, chunk)
  ]


def _progress(
  log: Callable[[str], None], what: str, number: int, chunks: Iterator[list]
) -> list:
  """Collects the chunks, reporting about every two seconds."""
  found, start, last = [], time.monotonic(), 0.0
  for chunk in chunks:
    found += chunk
    spent = time.monotonic() - start
    if spent - last > 2 or len(found) == number:
      last = spent
      log(
        f"{what}: {len(found)} / {number}, "
        f"{len(found) / max(spent, 1e-9):.0f} a second"
      )
  return found


# One image ----------------------------------------------------------------


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


# Files --------------------------------------------------------------------


def _write_annotations(directory: str, split: str, items: list[dict]) -> None:
  info = {"description": "micro-world", "version": str(entries.VERSION)}
  images = [item["image"] for item in items]
  base = {"info": info, "licenses": [], "images": images}
  save = functools.partial(_save, directory)
  for name, group in (("instances", SEEN), ("instances_novel", HELD_OUT)):
    kept = {CATEGORIES.index(c) + 1 for c in group}
    save(
      f"{name}_{split}",
      {
        **base,
        "categories": entries.categories(group),
        "annotations": [
          o
          for item in items
          for o in item["objects"]
          if o["category_id"] in kept
        ],
      },
    )
  stuff = {
    "id": entries.BACKGROUND_ID,
    "name": "background",
    "supercategory": "background",
    "isthing": 0,
  }
  save(
    f"panoptic_{split}",
    {
      **base,
      "categories": [*entries.categories(CATEGORIES), stuff],
      "annotations": [item["panoptic"] for item in items],
    },
  )
  save(
    f"captions_{split}",
    {**base, "annotations": [c for item in items for c in item["captions"]]},
  )
  save(f"refs_{split}", [r for item in items for r in item["refs"]])
  save(f"conversations_{split}", [item["conversation"] for item in items])
  lookups = [item["lookups"] for item in items]
  save(f"lookups_{split}", [x for x in lookups if x["conversations"]])
  if split == "val":
    pairs = [pair for item in items for pair in item["vqa"]]
    save(
      "vqa_questions_val",
      {
        "info": info,
        "task_type": "Open-Ended",
        "questions": [q for q, _ in pairs],
      },
    )
    save(
      "vqa_annotations_val",
      {"info": info, "annotations": [n for _, n in pairs]},
    )


def _text_item(seed: int, index: int) -> dict:
  turns = text_only.text_item(
    scene_lib.stream("sentences", seed, "train", index)
  )
  return {"id": f"text{index + 1}", "conversations": entries.llava(turns)}


def _save(directory: str, name: str, content: object) -> None:
  _dump(os.path.join(directory, "annotations", name + ".json"), content)


def _dump(path: str, content: object, indent: int | None = None) -> None:
  with open(path, "w", encoding="utf-8") as f:
    f.write(json.dumps(content, indent=indent))


# Videos -------------------------------------------------------------------


def _write_videos(job: _Job) -> list[dict]:
  return [
    videos.write(job.directory, job.seed, job.split, i)
    for i in range(job.start, job.stop)
  ]

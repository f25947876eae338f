"""What a frozen vision tower makes of videos, kept on disk.

Training reads each video many times, and questions come ten to a video; the
tower sees it once. `clips.Features` says where an entry lies and what it is
known by.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data.media import clips as clips_lib
from locvlm_jax.data.media import images
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.models import video as video_lib
from locvlm_jax.parallel import sharding


def open_cache(
  folder: str,
  model: locvlm.LocVLM,
  params: params_lib.Flat,
  clips: clips_lib.Clips,
) -> clips_lib.Features:
  """Opens the cache in `folder` for this tower and sampling.

  Args:
    folder: `config.video.cache`.
    model: that the features are for.
    params: flat, of which those of the vision tower count; with several
      processes each has to call.
    clips: how videos are sampled.
  """
  width = model.config.vision.width
  return clips_lib.Features(
    folder, _encoder(model, params), clips, (model.config.num_visual, width), {}
  )


def _encoder(model: locvlm.LocVLM, params: params_lib.Flat) -> str:
  """The hash of all that features depend on besides the frames."""
  cfg = model.config
  facts = (cfg.vision, cfg.dtype, cfg.video.frames, cfg.video.temporal)
  found = hashlib.sha256(repr(facts).encode())
  for path in sorted(params):
    if path.startswith("vision/") and not path.startswith("vision/unused/"):
      found.update(path.encode())
      found.update(sharding.fetch(params[path]).tobytes())
  return found.hexdigest()


def fill(
  cache: clips_lib.Features,
  model: locvlm.LocVLM,
  params: Mapping,
  paths: Iterable[str],
  mesh: jax.sharding.Mesh,
  threads: int = 1,
  enter: Callable[[int], None] = lambda batch: None,
) -> None:
  """Adds what is missing of these videos; damaged ones are told and left out.

  With several processes each has to call with the same paths; they share the
  work, and each writes what its own folder lacks.

  Args:
    cache: to be filled.
    model: its model.
    params: nested, on `mesh`.
    paths: of videos, each any number of times.
    mesh: of all processes.
    threads: that decode.
    enter: called before each batch, with its number.
  """
  if not (paths := list(dict.fromkeys(paths))):
    return
  missing = np.array([not cache.has(p) for p in paths], bool)
  everywhere = sharding.fetch(missing).reshape(-1, len(paths)).any(0)
  todo = [p for p, absent in zip(paths, everywhere, strict=True) if absent]
  encode = jax.jit(functools.partial(_encode, model))
  with jax.set_mesh(mesh):
    for number, (part, rows) in enumerate(_batches(cache, todo, mesh, threads)):
      enter(number)
      placed = sharding.put_batch(rows, mesh, len(part))
      found = sharding.fetch(encode(params, placed))
      sizes = sharding.fetch(rows["sizes"])
      for path, features, size in zip(part, found, sizes, strict=True):
        if path and size.any() and not cache.has(path):
          cache.put(path, features[0], tuple(map(int, size)))


def _encode(model, params, batch):
  return model.apply(
    {"params": params}, video_lib.visual_input(batch), method="visual_features"
  ).astype("float16")


def _batches(
  cache: clips_lib.Features, todo: Sequence[str], mesh, threads: int
) -> Iterator[tuple[list[str], dict]]:
  """(paths of a global batch, this process's rows); decodes one ahead."""
  shards = math.prod(mesh.shape[axis] for axis in sharding.BATCH)
  each = math.lcm(shards, jax.process_count())
  parts = [list(todo[i : i + each]) for i in range(0, len(todo), each)]
  mine = sharding.host_rows(each)
  told = began = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:

    def submit(part):
      part += [""] * (each - len(part))
      return [pool.submit(_read, cache, path) for path in part[mine]]

    ahead = [submit(part) for part in parts[:1]]
    for i, part in enumerate(parts):
      ahead += [submit(following) for following in parts[i + 1 : i + 2]]
      yield part, _stacked([f.result() for f in ahead.pop(0)])
      if time.monotonic() - told > 10:
        told = time.monotonic()
        left = (told - began) / (i + 1) * (len(parts) - i - 1)
        done = min((i + 1) * each, len(todo))
        print(f"{done} of {len(todo)} videos, {left:.0f} s left", flush=True)


def _read(cache: clips_lib.Features, path: str) -> dict:
  """A row's fields; black, of size 0, where there is nothing to read."""
  try:
    if path:
      clip, num, size = cache.clips.read(path)
      return {"images": clip, "frames": num, "sizes": size}
  except images.BadImage as error:
    logging.warning("no features of %s: %s", path, error)
    cache.failures[path] = str(error)
  return {"images": cache.clips.black_frames(), "frames": 0, "sizes": (0, 0)}


def _stacked(rows: Sequence[Mapping]) -> dict[str, np.ndarray]:
  return {
    "images": np.stack([row["images"] for row in rows])[:, None],
    "frames": np.array([[row["frames"]] for row in rows], np.int32),
    "sizes": np.array([row["sizes"] for row in rows], np.int32),
  }


def row_spec(
  folder: str,
  model: locvlm.LocVLM,
  params: params_lib.Flat,
  spec,
  paths: Iterable[str],
  mesh: jax.sharding.Mesh,
  *,
  threads: int,
  enter: Callable[[int], None],
) -> rows_lib.RowSpec:
  """Makes `spec` take its videos from the cache, which is filled on the way."""
  cache = open_cache(folder, model, params, spec.clips)
  fill(cache, model, params_lib.unflatten(params), paths, mesh, threads, enter)
  return dataclasses.replace(spec, clips=cache)

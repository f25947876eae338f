"""Times the input pipeline: `python -m locvlm_jax.bench input --images DIR`.

Prints samples a second. Ours makes training batches, tokens included, from JPEG
files. With --peer, a PyTorch DataLoader makes batches of images alone from the
same files, by LLaVA-1.5's preprocessing: padding to a square, transformers'
CLIP image processor.
"""

import dataclasses
import functools
import glob
import importlib.metadata
import itertools
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from locvlm_jax import ASSETS, errors
from locvlm_jax.bench import command_line, timing
from locvlm_jax.data import geometry, rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.records import Record
from locvlm_jax.text import coords, formats, tokenizer

BATCH = 32
_PATCH = 14
_TEXT = 192
_TURNS = (("Where is the cup?", "It is at [12,34,45,60]."),)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is read, and how; each is a flag of the same name."""

  images: str | None
  image_size: int
  geometry: str
  batches: int
  rounds: int
  cores: int


def define_flags() -> None:
  """Defines the flags of `main`."""
  flags.DEFINE_string("images", None, "A folder with JPEG files below it.")
  flags.DEFINE_integer("image_size", 336, "Side of the model's input.", 1)
  flags.DEFINE_enum("geometry", "pad", geometry.KINDS, "How images fit it.")
  flags.DEFINE_integer("batches", 30, f"Batches of {BATCH} in a round.", 1)
  flags.DEFINE_integer(
    "cores",
    len(os.sched_getaffinity(0)),
    "Threads of ours, worker processes of the peer.",
    1,
  )
  command_line.define_flags(rounds=3)


def main(argv: list[str]) -> None:
  """Prints what `measure` finds for the flags."""
  del argv
  settings = command_line.read(Settings)
  command_line.show(measure(settings, command_line.has_peer()))


def measure(settings: Settings, has_peer: bool) -> dict:
  """Returns samples a second and a core, and how pixels differ from PIL's."""
  files = _files(settings.images)
  streams: dict[str, Callable] = {"ours": _batches}
  if has_peer:
    # It imports torch, which need not be installed.
    from locvlm_jax.bench import peers_input

    streams["peer"] = peers_input.batches
  rates = timing.rounds(
    # Each in a process of its own, so that nothing reads ahead beside it.
    {
      name: functools.partial(
        timing.in_subprocess, _rate, stream, files, settings
      )
      for name, stream in streams.items()
    },
    settings.rounds,
  )
  result = {
    "files": len(files),
    "image_size": settings.image_size,
    "geometry": settings.geometry,
    "cores": settings.cores,
    "pillow": importlib.metadata.version("pillow"),
    "samples_per_s": rates,
  }
  for name, rate in rates.items():
    result[f"{name}_per_core"] = rate["median"] / settings.cores
  if has_peer:
    result["ratio"] = rates["ours"]["median"] / rates["peer"]["median"]
    result["pixels"] = peers_input.difference(files[:64], settings)
  return result


def _rate(stream: Callable, files: list[str], settings: Settings) -> float:
  """Measures samples a second of the batches of `stream`."""
  batches = stream(files, settings)
  next(batches)  # after the first one the workers run
  began = time.perf_counter()
  done = sum(len(x) for x in itertools.islice(batches, settings.batches))
  rate = done / (time.perf_counter() - began)
  del batches
  return rate


def _files(folder: str | None) -> list[str]:
  """Lists the JPEG files below a folder.

  Raises:
    ValueError: no folder is given, or there are none in it.
    DataError: no such folder.
  """
  if not folder:
    raise ValueError("--images is missing: a folder with JPEG files below it.")
  inside = glob.escape(folder)
  if not os.path.isdir(folder):
    raise errors.DataError(f"--images {folder}: no such folder.")
  found = sorted(glob.glob(f"{inside}/**/*.jp*g", recursive=True))
  if not found:
    raise ValueError(f"--images {folder}: no .jpg or .jpeg file below it.")
  return found


class _Images(list):
  """Files as a source of records."""

  def __getitem__(self, index) -> Record:
    path = super().__getitem__(index)
    return Record(id=path, image=path, turns=_TURNS)


def _batches(files: list[str], settings: Settings) -> Iterator[np.ndarray]:
  """Yields the images of training batches, without end."""
  spec = rows.RowSpec(
    tokenizer=tokenizer.Tokenizer.load(ASSETS / "micro_base"),
    format=formats.FORMATS["v1"],
    coords=coords.Coords("ivb", settings.image_size, "box"),
    geometry=settings.geometry,
    image_size=settings.image_size,
    num_visual=(settings.image_size // _PATCH) ** 2,
    text_length=_TEXT,
    max_pairs=4,
    weights=(1.0, 1.0, 1.0),
  )
  stream = stream_lib.train_iterator(
    {"images": _Images(files)},
    rows.RowMaker(spec),
    stream_lib.StreamSpec(
      {"images": 1.0}, BATCH, seed=0, threads=settings.cores
    ),
  )
  return (b["images"] for b in stream)

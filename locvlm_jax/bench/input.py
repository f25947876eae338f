"""Samples a second of the input pipeline, beside a PyTorch DataLoader.

Ours makes training batches, tokens included, from JPEG files. With --peer, a
PyTorch DataLoader makes batches of images alone from the same files, by
LLaVA-1.5's preprocessing: padding to a square, transformers' CLIP image
processor.
"""

import argparse
import functools
import glob
import importlib.metadata
import itertools
import os
import time
from collections.abc import Callable, Iterator

import numpy as np

from locvlm_jax import ASSETS
from locvlm_jax.bench import timing
from locvlm_jax.data import geometry, rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.records import Record
from locvlm_jax.text import coords, formats, tokenizer

BATCH = 32
_PATCH = 14
_TEXT = 192
_TURNS = (("Where is the cup?", "It is at [12,34,45,60]."),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `measure`."""
  parser.add_argument("--images", required=True, help="a folder of JPEG files")
  parser.add_argument("--image_size", type=int, default=336)
  parser.add_argument("--geometry", default="pad", choices=geometry.KINDS)
  parser.add_argument("--batches", type=int, default=30, help="of 32, a round")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument(
    "--cores",
    type=int,
    default=len(os.sched_getaffinity(0)),
    help="threads of ours, worker processes of the peer",
  )


def measure(arguments: argparse.Namespace) -> dict:
  """Returns samples a second and a core, and how pixels differ from PIL's."""
  files = _files(arguments.images)
  streams: dict[str, Callable] = {"ours": _batches}
  if arguments.peer:
    # It imports torch, which need not be installed.
    from locvlm_jax.bench import peers_input

    streams["peer"] = peers_input.batches
  rates = timing.rounds(
    # Each in a process of its own, so that nothing reads ahead beside it.
    {
      name: functools.partial(
        timing.in_subprocess, _rate, stream, files, arguments
      )
      for name, stream in streams.items()
    },
    arguments.rounds,
  )
  result = {
    "files": len(files),
    "image_size": arguments.image_size,
    "geometry": arguments.geometry,
    "cores": arguments.cores,
    "pillow": importlib.metadata.version("pillow"),
    "samples_per_s": rates,
  }
  for name, rate in rates.items():
    result[f"{name}_per_core"] = rate["median"] / arguments.cores
  if arguments.peer:
    result["ratio"] = rates["ours"]["median"] / rates["peer"]["median"]
    result["pixels"] = peers_input.difference(files[:64], arguments)
  return result


def _rate(
  stream: Callable, files: list[str], arguments: argparse.Namespace
) -> float:
  """Measures samples a second of the batches of `stream`."""
  batches = stream(files, arguments)
  next(batches)  # after the first one the workers run
  began = time.perf_counter()
  done = sum(len(x) for x in itertools.islice(batches, arguments.batches))
  rate = done / (time.perf_counter() - began)
  del batches
  return rate


def _files(folder: str) -> list[str]:
  """Lists the JPEG files below a folder.

  Raises:
    ValueError: there are none.
  """
  found = sorted(glob.glob(f"{folder}/**/*.jp*g", recursive=True))
  if not found:
    raise ValueError(f"--images {folder}: no .jpg or .jpeg file below it.")
  return found


class _Images(list):
  """Files as a source of records."""

  def __getitem__(self, index) -> Record:
    path = super().__getitem__(index)
    return Record(id=path, image=path, turns=_TURNS)


def _batches(
  files: list[str], arguments: argparse.Namespace
) -> Iterator[np.ndarray]:
  """Yields the images of training batches, without end."""
  spec = rows.RowSpec(
    tokenizer=tokenizer.Tokenizer.load(ASSETS / "micro_base"),
    format=formats.FORMATS["v1"],
    coords=coords.Coords("ivb", arguments.image_size, "box"),
    geometry=arguments.geometry,
    image_size=arguments.image_size,
    num_visual=(arguments.image_size // _PATCH) ** 2,
    text_length=_TEXT,
    max_pairs=4,
    weights=(1.0, 1.0, 1.0),
  )
  stream = stream_lib.train_iterator(
    {"images": _Images(files)},
    rows.RowMaker(spec),
    stream_lib.StreamSpec(
      {"images": 1.0}, BATCH, seed=0, threads=arguments.cores
    ),
  )
  return (b["images"] for b in stream)

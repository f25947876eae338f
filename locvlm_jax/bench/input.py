"""Samples a second of the input pipeline, beside a PyTorch DataLoader.

Ours: JPEG files to training batches, tokens included. The peer, with --peer
and torch installed: LLaVA-1.5's preprocessing of the same files (padded to a
square, transformers' CLIP image processor), images alone, in a DataLoader.
"""

import functools
import glob
import importlib.metadata
import itertools
import os
import time

import numpy as np
from PIL import Image

from locvlm_jax import ASSETS
from locvlm_jax.bench import timing
from locvlm_jax.data import geometry, images, rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.records import Record
from locvlm_jax.text import coords, formats, tokenizer

_BATCH = 32
_PATCH = 14
_TEXT = 192
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_TURNS = (("Where is the cup?", "It is at [12,34,45,60]."),)


def add_arguments(parser) -> None:
  """The arguments of `measure`."""
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
  parser.add_argument("--peer", action="store_true", help="PyTorch too")


def measure(arguments) -> dict:
  """Samples a second and a core, and how the pixels differ from PIL's."""
  files = _files(arguments.images)
  names = ("ours", "peer") if arguments.peer else ("ours",)
  rates = timing.rounds(
    # Each in a process of its own, so that nothing reads ahead beside it.
    {
      n: functools.partial(timing.in_subprocess, _rate, n, files, arguments)
      for n in names
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
    result["pixels"] = _difference(files[:64], arguments)
  return result


def _rate(name: str, files: list[str], arguments) -> float:
  stream = {"ours": _ours, "peer": _peer}[name](files, arguments)
  next(stream)  # by now the workers run
  began = time.perf_counter()
  done = sum(len(x) for x in itertools.islice(stream, arguments.batches))
  rate = done / (time.perf_counter() - began)
  del stream
  return rate


def _files(folder: str) -> list[str]:
  found = sorted(glob.glob(f"{folder}/**/*.jp*g", recursive=True))
  if not found:
    raise ValueError(f"--images {folder}: no .jpg or .jpeg file below it.")
  return found


class _Images(list):
  """Files as a source of records."""

  def __getitem__(self, index) -> Record:
    path = super().__getitem__(index)
    return Record(id=path, image=path, turns=_TURNS)


def _ours(files: list[str], arguments):

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
      {"images": 1.0}, _BATCH, seed=0, threads=arguments.cores
    ),
  )
  return (b["images"] for b in stream)


def _peer(files: list[str], arguments):
  """An endless PyTorch DataLoader of float32 images."""
  try:
    import torch
  except ImportError:
    raise ValueError("--peer needs PyTorch: pip install torch.") from None
  prepare = _llava(arguments)

  class Files(torch.utils.data.Dataset):
    def __len__(self):
      return 1 << 30

    def __getitem__(self, index):
      return torch.from_numpy(prepare(files[index % len(files)]))

  loader = torch.utils.data.DataLoader(
    Files(),
    batch_size=_BATCH,
    num_workers=arguments.cores,
    multiprocessing_context="fork",
  )
  return iter(loader)


def _llava(arguments):
  """path -> float32 [3, H, W] as LLaVA-1.5 prepares it, by transformers."""
  from transformers.models.clip import image_processing_pil_clip

  size = arguments.image_size
  processor = image_processing_pil_clip.CLIPImageProcessorPil(
    size={"shortest_edge": size}, crop_size={"height": size, "width": size}
  )
  prepare = functools.partial(_squared, arguments.geometry, size)

  def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
      square = prepare(image.convert("RGB"))
    out = processor(square, return_tensors="np")
    return np.ascontiguousarray(out["pixel_values"][0])

  return pixels


def _squared(kind: str, size: int, image: Image.Image) -> Image.Image:
  """What LLaVA does before the processor: padding to a square, or nothing."""
  if kind == "square":
    return image.resize((size, size), Image.Resampling.BICUBIC)
  if kind == "center_crop" or image.width == image.height:
    return image
  side = max(image.size)
  canvas = Image.new("RGB", (side, side), geometry.PAD_COLOR)
  corner = ((side - image.width) // 2, (side - image.height) // 2)
  canvas.paste(image, corner)
  return canvas


def _difference(files: list[str], arguments) -> dict:
  """Largest difference in 0..255, and the share of values that differ."""
  prepare, largest, unequal, total = _llava(arguments), 0, 0, 0
  mean, std = np.array(_CLIP_MEAN), np.array(_CLIP_STD)
  for path in files:
    theirs = prepare(path).transpose(1, 2, 0) * std + mean
    image = images.load_image(path)
    ours = geometry.make(
      arguments.geometry, *image.size, arguments.image_size
    ).apply_image(image)
    apart = np.abs(np.rint(theirs * 255).astype(int) - ours)
    largest, total = max(largest, int(apart.max())), total + apart.size
    unequal += int((apart > 0).sum())
  return {"largest_difference": largest, "share_unequal": unequal / total}

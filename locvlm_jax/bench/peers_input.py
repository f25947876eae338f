"""LLaVA-1.5's preprocessing in a PyTorch DataLoader, for `bench.input`."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from transformers.models.clip import image_processing_pil_clip

from locvlm_jax.bench import input as input_bench
from locvlm_jax.data import geometry
from locvlm_jax.data.media import images
from locvlm_jax.models import clip_vit


class _Files(torch.utils.data.Dataset):
  """Endlessly repeated files as float32 images."""

  def __init__(self, files: list[str], prepare: Callable):
    self._files, self._prepare = files, prepare

  def __len__(self) -> int:
    return 1 << 30

  def __getitem__(self, index: int) -> torch.Tensor:
    path = self._files[index % len(self._files)]
    return torch.from_numpy(self._prepare(path))


def batches(
  files: list[str], settings: input_bench.Settings
) -> Iterator[torch.Tensor]:
  """Yields float32 images [B, 3, H, W], without end."""
  loader = torch.utils.data.DataLoader(
    _Files(files, _preprocessing(settings)),
    batch_size=input_bench.BATCH,
    num_workers=settings.cores,
    multiprocessing_context="fork",
  )
  return iter(loader)


def difference(files: list[str], settings: input_bench.Settings) -> dict:
  """Compares our pixels with the peer's.

  Returns:
    The largest difference in 0..255, and the share of values that differ.
  """
  prepare, largest, unequal, total = _preprocessing(settings), 0, 0, 0
  mean, std = np.array(clip_vit.MEAN["clip"]), np.array(clip_vit.STD["clip"])
  for path in files:
    theirs = prepare(path).transpose(1, 2, 0) * std + mean
    image = images.load_image(path)
    ours = geometry.make(
      settings.geometry, *image.size, settings.image_size
    ).apply_image(image)
    apart = np.abs(np.rint(theirs * 255).astype(int) - ours)
    largest, total = max(largest, int(apart.max())), total + apart.size
    unequal += int((apart > 0).sum())
  return {"largest_difference": largest, "share_unequal": unequal / total}


def _preprocessing(
  settings: input_bench.Settings,
) -> Callable[[str], np.ndarray]:
  """Returns path -> float32 [3, H, W], as LLaVA-1.5 prepares an image."""
  size = settings.image_size
  processor = image_processing_pil_clip.CLIPImageProcessorPil(
    size={"shortest_edge": size}, crop_size={"height": size, "width": size}
  )
  make_square = functools.partial(_make_square, settings.geometry, size)

  def prepare(path: str) -> np.ndarray:
    with Image.open(path) as image:
      square = make_square(image.convert("RGB"))
    out = processor(square, return_tensors="np")
    return np.ascontiguousarray(out["pixel_values"][0])

  return prepare


def _make_square(kind: str, size: int, image: Image.Image) -> Image.Image:
  """Does what LLaVA does before the processor: pads to a square, or nothing."""
  if kind == "square":
    return image.resize((size, size), Image.Resampling.BICUBIC)
  if kind == "center_crop" or image.width == image.height:
    return image
  side = max(image.size)
  canvas = Image.new("RGB", (side, side), geometry.PAD_COLOR)
  corner = ((side - image.width) // 2, (side - image.height) // 2)
  canvas.paste(image, corner)
  return canvas

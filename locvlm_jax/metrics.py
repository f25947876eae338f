"""How fast the run is and how far: FLOPs, MFU, the progress line."""

import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp

from locvlm_jax import optim

# Dense bfloat16 peak of one device in FLOP/s, from the vendors' data sheets;
# keyed by the beginning of `device_kind`.
PEAK_FLOPS = {
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v6": 918e12,
}


def peak_flops(device_kind: str) -> float:
  """Peak FLOP/s of a device; measured on one large product if unknown."""
  for kind, peak in PEAK_FLOPS.items():
    if device_kind.startswith(kind):
      return peak
  return _measured_flops()


def _measured_flops(n: int = 1024, repeats: int = 20) -> float:
  x = jnp.ones((n, n), jnp.float32)
  product = jax.jit(lambda x: x @ x)
  product(x).block_until_ready()
  start = time.perf_counter()
  for _ in range(repeats):
    product(x).block_until_ready()
  whole_host = 2 * n**3 * repeats / (time.perf_counter() - start)
  return whole_host / jax.local_device_count()


def train_flops(forward: Mapping[str, float], trainable: set[str]) -> float:
  """Model FLOPs of one training sample, without rematerialisation.

  A part costs its forward pass; the gradient of its activations where
  something at or before it trains; and the gradient of its weights where it
  trains itself.

  Args:
    forward: FLOPs of the forward pass of one sample by part, in the order in
      which data flows (vision, adapter, llm).
    trainable: parts that train.
  """
  total, upstream = 0.0, False
  for part, flops in forward.items():
    trains = part in trainable
    # The gradient flows through a part to whatever trains before it.
    total += flops * (1 + upstream + trains)
    upstream |= trains
  return total


def trained_parts(paths: Iterable[str]) -> set[str]:
  """Parts whose own weights have gradients.

  A part that trains by LoRA alone has none worth counting: its cost is that of
  a frozen part that the gradient flows through.
  """
  return {path.split("/")[0] for path in paths if "_lora_" not in path}


def forward_flops(model, text_length: int) -> dict[str, float]:
  """Model FLOPs of the forward pass of one sample, by part.

  A sample has one image, or one video of all the frames that there may be.
  2 FLOPs a multiply-add of every matrix, plus attention: 4 L T^2 D for the
  ViT, half of it for the causal LLM. The head counts on text positions only.

  Args:
    model: `LocVLM`.
    text_length: text tokens of the sample.
  """
  flat = optim.param_shapes(model)
  vision, llm = model.config.vision, model.config.llm
  visual, length = (
    model.config.num_visual,
    model.config.num_visual + text_length,
  )
  patches, images = vision.num_patches, model.config.video.frames or 1

  def weights(prefix):
    return sum(
      math.prod(v.shape)
      for p, v in flat.items()
      if p.startswith(prefix) and "embed" not in p
    )

  used = weights("vision/") - weights("vision/unused")
  head = llm.vocab_size * llm.width
  body = weights("llm/") - (0 if llm.tie_embeddings else head)
  causal = 2.0 * llm.num_layers * length**2 * llm.num_heads * llm.head_dim
  square = 4.0 * vision.num_used_layers * patches**2 * vision.width
  return {
    "vision": images * (2.0 * used * patches + square),
    "adapter": 2.0 * weights("adapter/") * visual,
    "llm": 2.0 * (body * length + head * text_length) + causal,
  }


class Meter:
  """Turns counts of steps into rates and a progress line.

  Args:
    steps: of the whole run.
    batch_size: global.
    sample_flops: length of a row -> model FLOPs of one sample.
    peak: FLOP/s of all devices together.
  """

  def __init__(self, steps: int, batch_size: int,
               sample_flops: Callable[[int], float], peak: float):  # fmt: skip
    self._steps, self._batch, self._peak = steps, batch_size, peak
    self._sample_flops = functools.cache(sample_flops)
    self._reset(time.perf_counter(), 0)

  def start(self, step: int) -> None:
    """Begins to measure after `step`, when compilation is over."""
    self._reset(time.perf_counter(), step)

  def _reset(self, now: float, step: int) -> None:
    self._time, self._step = now, step
    self._positions = self._real = self._flops = 0.0  # of one sample a step

  def saw(self, length: int, real: float) -> None:
    """A step with rows of `length` positions, `real` of them on average."""
    self._positions += length
    self._real += real
    self._flops += self._sample_flops(length)

  def rates(self, step: int) -> dict[str, float]:
    """Since the last call: samples/s, tokens/s, mfu, share of padding.

    Also the seconds left. All are 0 where no step lies between.
    """
    now, done = time.perf_counter(), step - self._step
    seconds = (now - self._time) / done if done else 0.0
    each = self._batch / (seconds * done) if done else 0.0
    rates = {
      "samples_per_s": each * done,
      "tokens_per_s": each * self._positions,
      "mfu": each * self._flops / self._peak,
      "padding": 1 - self._real / max(self._positions, 1) if done else 0.0,
      "seconds_left": seconds * (self._steps - step),
    }
    self._reset(now, step)
    return rates

  def line(self, step: int, scalars: Mapping[str, float]) -> str:
    """One line of progress."""
    left = time.strftime("%H:%M:%S", time.gmtime(scalars["seconds_left"]))
    return (
      f"step {step}/{self._steps}  loss {scalars['loss']:.4f}  "
      f"acc {scalars['accuracy']:.3f}  "
      f"{scalars['samples_per_s']:.1f} samples/s  "
      f"{scalars['tokens_per_s']:.0f} tokens/s  "
      f"padding {scalars['padding']:.0%}  "
      f"MFU {scalars['mfu']:.1%}  left {left}"
    )


class JsonLines:
  """Appends a json object a line; rows at or after `step` are dropped first.

  A run that was killed resumes from an earlier checkpoint: what it logged
  beyond that step is logged again, so the old rows have to go.
  """

  def __init__(self, path: str, step: int):
    kept = []
    if os.path.exists(path):
      with open(path, encoding="utf-8") as f:
        kept = [line for line in f if _step_of(line) <= step]
    rewrite(path, kept)
    self._file = open(path, "a", encoding="utf-8")

  def write(self, row: Mapping) -> None:
    """Appends one row and flushes it."""
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def rewrite(path: str, lines: Iterable[str]) -> None:
  """Replaces a file at once: a kill leaves the old lines or the new ones."""
  with open(path + ".tmp", "w", encoding="utf-8") as f:
    f.writelines(lines)
  os.replace(path + ".tmp", path)


def _step_of(line: str) -> float:
  try:
    return float(json.loads(line)["step"])
  except (json.JSONDecodeError, KeyError, TypeError):
    return float("inf")  # a line cut off by the kill

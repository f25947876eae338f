"""Model FLOPs of a sample, and the peak of a device."""

import functools
import time
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp

from locvlm_jax.models import params, quantized

# Dense bfloat16 peak of one device in FLOP/s, from the vendors' data sheets;
# keyed by the beginning of `device_kind`.
PEAK_FLOPS = {
  "Tesla T4": 8.1e12,  # float32: it has no bfloat16
  "NVIDIA L40S": 362e12,
  "NVIDIA L4": 121e12,
  "NVIDIA A10G": 70e12,
  "NVIDIA GeForce RTX 3090": 71e12,
  "NVIDIA GeForce RTX 4090": 165e12,
  "NVIDIA GeForce RTX 5090": 209e12,
  "NVIDIA RTX A6000": 155e12,
  "NVIDIA B200": 2250e12,
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
  """Returns a device's peak FLOP/s; measures one if it is unknown."""
  for kind, peak in PEAK_FLOPS.items():
    if device_kind.startswith(kind):
      return peak
  return _measured_flops()


@functools.cache  # seconds, and the machine stays the same
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
  """Counts the model FLOPs of one training sample, without rematerialization.

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
  """Counts the model FLOPs of the forward pass of one sample, by part.

  A sample has one image, or one video of all the frames that there may be.
  2 FLOPs a multiply-add of every matrix, plus attention: 4 L T^2 D for the
  ViT, half of it for the causal LLM. The head counts on text positions only.

  Args:
    model: `LocVLM`.
    text_length: text tokens of the sample.
  """
  flat = params.param_shapes(model)
  vision, llm = model.config.vision, model.config.llm
  visual, length = (
    model.config.num_visual,
    model.config.num_visual + text_length,
  )
  patches, images = vision.num_patches, model.config.video.frames or 1

  def weights(prefix):
    return sum(
      quantized.num_values(p, v.shape, v.dtype)
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

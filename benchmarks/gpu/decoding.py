"""Times decoding steps beside the floor that reading memory sets.

A step reads every kernel of the language model once and each row's keys and
values. The time of a step is the difference between two numbers of new tokens,
so that the prefill cancels out.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax.bench import decode as bench
from locvlm_jax.inference import decode
from locvlm_jax.models import locvlm
from locvlm_jax.perf import machines

_NEVER = (-2,)  # ids that no model generates


@dataclasses.dataclass(frozen=True)
class Settings:
  """What decodes; `few` and `many` are the two numbers of new tokens."""

  model: str
  batch_sizes: tuple[int, ...]
  dtype: str = "bfloat16"
  few: int = 8
  many: int = 72
  rounds: int = 3


def measure(settings: Settings) -> dict:
  """Returns for each batch size the seconds of a step, and their floor."""
  own = bench.Settings("", settings.model, [], 0, settings.dtype, 0)
  model, params = bench.random_model(own)
  device = jax.devices()[0]
  result = {"device": device.device_kind, "bandwidth": bandwidth(device)}
  for rows in settings.batch_sizes:
    batch = bench.prompts_batch(own, model, rows)
    few, many = (
      _seconds(model, params, batch, n, settings.rounds)
      for n in (settings.few, settings.many)
    )
    step = (many - few) / (settings.many - settings.few)
    length = float(batch["lengths"].mean()) + (settings.few + settings.many) / 2
    floor = step_bytes(model, params, rows, length) / result["bandwidth"]
    result[f"batch {rows}"] = {
      "step_ms": 1e3 * step,
      "tokens_per_s": rows / step,
      "prefill_ms": 1e3 * (few - settings.few * step),
      "floor_ms": 1e3 * floor,
      "share_of_floor": floor / step,
    }
  return result


def _seconds(model, params, batch, new_tokens: int, rounds: int) -> float:
  """Returns the median seconds of a call, compiled before."""
  sampling = decode.Sampling(new_tokens, stop=_NEVER)

  def call() -> None:
    np.asarray(decode.generate(model, params, batch, sampling))

  return _median_seconds(call, rounds)


def _median_seconds(call: Callable[[], None], rounds: int) -> float:
  call()
  seconds = []
  for _ in range(rounds):
    began = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - began)
  return statistics.median(seconds)


def step_bytes(
  model: locvlm.LocVLM, params: dict, rows: int, length: float
) -> float:
  """Counts the bytes that a step has to read.

  Args:
    model, params: of all of it; the embedding is read in a few rows alone.
    rows: of the batch.
    length: positions in the cache of a row, on average over the steps.
  """
  llm = model.config.llm
  kernels = {k: v for k, v in params["llm"].items() if k != "embedding"}
  read = sum(x.nbytes for x in jax.tree.leaves(kernels))
  width = jnp.dtype(model.config.dtype).itemsize
  position = 2 * llm.num_layers * llm.num_kv_heads * llm.head_dim * width
  return read + rows * length * position


def bandwidth(device) -> float:
  """Returns bytes a second of the data sheet, or measured where it has none."""
  for known in machines.DEVICES.values():
    if device.device_kind.startswith(known.name):
      return known.bandwidth
  x = jnp.ones(1 << 24, jnp.float32)
  add = jax.jit(lambda x: x + 1)
  return 2 * x.nbytes / _median_seconds(lambda: add(x).block_until_ready(), 5)

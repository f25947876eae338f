"""How fast a run is and how far: samples/s, MFU, the progress line."""

import functools
import time
from collections.abc import Callable, Mapping

import jax

from locvlm_jax import progress
from locvlm_jax.config import Config
from locvlm_jax.perf import flops


class Meter:
  """Turns counts of steps into rates and a progress line.

  Args:
    steps: of the whole run.
    batch_size: global.
    sample_flops: length of a row -> model FLOPs of one sample.
    peak: FLOP/s of all devices together.
  """

  def __init__(
    self,
    steps: int,
    batch_size: int,
    sample_flops: Callable[[int], float],
    peak: float,
  ):
    self._steps, self._batch, self._peak = steps, batch_size, peak
    self._sample_flops = functools.cache(sample_flops)
    self._reset(time.perf_counter(), 0)

  def start(self, step: int) -> None:
    """Begins to measure after `step`, when compilation is over."""
    self._reset(time.perf_counter(), step)

  def _reset(self, now: float, step: int) -> None:
    self._time, self._step = now, step
    self._positions = self._real = self._flops = 0.0  # of one sample a step

  def count(self, length: int, real: float) -> None:
    """Counts a step: positions of an example, and those without padding."""
    self._positions += length
    self._real += real
    self._flops += self._sample_flops(length)

  def rates(self, step: int) -> dict[str, float]:
    """Measures since the last call: samples/s, tokens/s, mfu, share of padding.

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
    """Writes one line of progress."""
    left = progress.duration(scalars["seconds_left"])
    return (
      f"step {step}/{self._steps}  loss {scalars['loss']:.4f}  "
      f"acc {scalars['accuracy']:.3f}  "
      f"{scalars['samples_per_s']:.1f} samples/s  "
      f"{scalars['tokens_per_s']:.0f} tokens/s  "
      f"padding {scalars['padding']:.0%}  "
      f"MFU {scalars['mfu']:.1%}  left {left}"
    )


def of_run(config: Config, model, spec, trainable) -> Meter:
  """Measures the rates and MFU of this run on these devices.

  Args:
    config: all of it.
    model: `LocVLM`.
    spec: of the rows.
    trainable: the paths of what trains.
  """
  parts = flops.trained_parts(trainable)

  def sample_flops(length: int) -> float:
    forward = flops.forward_flops(model, length - spec.num_visual)
    if config.video.cache:  # the tower has seen them before
      forward["vision"] = 0.0
    return flops.train_flops(forward, parts)

  return Meter(
    config.steps,
    config.batch_size,
    sample_flops,
    flops.peak_flops(jax.devices()[0].device_kind) * jax.device_count(),
  )

"""Traces some steps of a run, for XProf and `locvlm_jax.profile`.

The stages of a step are named where they are computed, by `jax.named_scope`:
vision, adapter, splice, attention, mlp, head, loss, optimizer.
"""

import os
from collections.abc import Callable
from typing import Any

import jax


class TracedStep:
  """A training step that traces itself from one step to another.

  Each host writes its own trace below `directory`. `profile.hlo` also writes
  the compiled program, and `profile.memory` what is in the memory of devices
  after the last traced step.

  Args:
    train_step: jitted (state, batch) -> (state, scalars).
    profile: `config.profile`; its `steps` are the first and last to be traced.
    directory: where traces are written.
    start: steps done before the first call.
  """

  def __init__(
    self, train_step: Callable, profile: Any, directory: str, start: int
  ):
    self._train_step, self._profile = train_step, profile
    self._directory, self._step = directory, start
    self._first, self._last = profile.steps

  def __call__(self, state, batch):
    self._step += 1
    if self._step == self._first:
      self._start_trace(state, batch)
    with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
      result = self._train_step(state, batch)
    if self._step == self._last:
      jax.block_until_ready(result)
      self._stop_trace()
    return result

  def _start_trace(self, state, batch) -> None:
    os.makedirs(self._directory, exist_ok=True)
    if self._profile.hlo:
      # This compiles again: a jitted function doesn't give the program it runs.
      compiled = self._train_step.lower(state, batch).compile()
      with open(self._file("hlo.txt"), "w", encoding="utf-8") as f:
        f.write(compiled.as_text())
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's calls would drown the rest
    jax.profiler.start_trace(self._directory, profiler_options=options)

  def _stop_trace(self) -> None:
    jax.profiler.stop_trace()
    if self._profile.memory:
      jax.profiler.save_device_memory_profile(self._file("memory.prof"))
    print(f"trace of steps {self._first} to {self._last}: {self._directory}")

  def _file(self, name: str) -> str:
    return os.path.join(self._directory, f"host{jax.process_index()}.{name}")


def traced(
  train_step: Callable, profile: Any, directory: str, start: int
) -> Callable:
  """Wraps `train_step` if `config.profile.steps` has steps still to come.

  Args:
    train_step, profile, directory, start: as `TracedStep` takes them.

  Returns:
    A `TracedStep`, or `train_step` itself where there is nothing to trace.
  """
  if not profile.steps or start >= profile.steps[0]:
    return train_step
  return TracedStep(train_step, profile, directory, start)

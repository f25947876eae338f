"""The compiled training step of a run, one program for each length of rows."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Mapping

import jax

from locvlm_jax.parallel import hosts, sharding
from locvlm_jax.perf import machines
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.journal import Scalars


class Program:
  """Runs training steps and keeps account of what was compiled for them.

  Args:
    train_step: jitted (state, batch) -> (state, scalars).
    traced: the same; also writes the traces that the config asks for.
    mesh: that batches are put on.
    rows: of the global batch.
    watch: is told when a step compiles, which may take longer than a step.
    advice: says what to change where a step does not fit in memory.
  """

  def __init__(
    self,
    train_step: Callable,
    traced: Callable,
    mesh: jax.sharding.Mesh,
    rows: int,
    watch: hosts.Watch,
    advice: Callable[[], str] = str,
  ):
    self._step, self._traced = train_step, traced
    self._mesh, self._rows, self._watch = mesh, rows, watch
    self._lengths: set[int] = set()
    self._advice = advice

  def __call__(
    self, step: int, state: step_lib.TrainState, batch: Mapping
  ) -> tuple[step_lib.TrainState, Scalars]:
    """Trains on a batch of this host's rows.

    Args:
      step: its number.
      state: before it; it is donated.
      batch: see `data/records.py`.

    Returns:
      The state after the step, and its scalars; both may not be ready yet.

    Raises:
      ValueError: the devices have too little memory; says what to change.
    """
    rows = step_lib.inputs(batch)
    length, began = rows["tokens"].shape[1], time.monotonic()
    compiles, first = length not in self._lengths, not self._lengths
    self._watch.enter(step, "compile" if compiles else "step")
    rows = sharding.put_batch(rows, self._mesh, self._rows)
    if first:
      self._watch.compare("program", self._digest(state, rows))
    try:
      state, scalars = self._traced(state, rows)
      if compiles:
        jax.block_until_ready(state.step)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise ValueError(
        f"step {step}: out of memory with rows of {length} positions."
        f" {self._advice()}"
      ) from None
    self._lengths.add(length)
    if first and hosts.is_first():
      print(f"compiled in {time.monotonic() - began:.1f} s", flush=True)
    self._watch.enter(step, "step")
    return state, scalars

  def check_memory(self, state: step_lib.TrainState, longest: Mapping) -> None:
    """Compares what a batch of the longest rows needs with the devices' memory.

    Such a batch may come up late in the run. It is compiled and not run.

    Args:
      state: before the first step.
      longest: the shapes of the batch.

    Raises:
      ValueError: it needs more; says what to change.
    """
    if not (has := device_memory()):
      return
    self._watch.enter(0, "compile")
    compiled = self._step.lower(state, longest).compile()
    needs = compiled.memory_analysis().peak_memory_in_bytes
    if needs > has:
      raise ValueError(
        f"data.text_length: a batch of rows of {longest['tokens'].shape[1]}"
        f" positions needs {needs / 2**30:.1f} GiB of the {has / 2**30:.1f} GiB"
        " of a device. Use a larger --config.accumulate,"
        " --config.model.remat=full, more devices, or shorter rows;"
        " locvlm_jax.plan --search tries them."
      )

  def check_compiled_once(self) -> None:
    """Asserts that there is one program for each length of rows."""
    size, lengths = self._step._cache_size(), len(self._lengths)
    assert size <= lengths, f"{size} programs for {lengths} lengths of rows"

  def _digest(self, state, rows: Mapping) -> dict[str, str]:
    """Identifies the program, where several processes have to agree on it."""
    if jax.process_count() == 1:
      return {}
    text = self._step.lower(state, rows).as_text()
    return {"program": hashlib.sha256(text.encode()).hexdigest()[:16]}


def device_here() -> machines.Device:
  """Describes the device at hand, whose speed is known if its kind is.

  Raises:
    ValueError: it does not say how much memory it has.
  """
  kind, has = jax.local_devices()[0].device_kind, device_memory()
  if not has:
    raise ValueError(
      f"device {kind}: it does not say how much memory it has: name it, as in"
      " --device 24GB."
    )
  known = [d for d in machines.DEVICES.values() if kind.startswith(d.name)]
  unknown = machines.Device(kind, has, math.inf, math.inf)
  return dataclasses.replace((known or [unknown])[0], memory=has)


def device_memory() -> int:
  """Returns the bytes of a device that JAX may use; 0 where it does not say."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("bytes_limit", 0)

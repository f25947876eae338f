"""What a run writes down: progress lines, metrics, incidents.

metrics.jsonl     numbers every `log_every` steps; also for TensorBoard
incidents.jsonl   the examples of steps that were skipped, or had a spike
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from locvlm_jax import files
from locvlm_jax.config import Config
from locvlm_jax.models import quantized
from locvlm_jax.parallel import hosts, sharding
from locvlm_jax.training import loss_guard, meter, optimizer

Scalars = Mapping[str, jax.Array]


class StepResult(NamedTuple):
  """What a step has used and computed.

  Attributes:
    step: counted from 1.
    examples: int32 [B], indices in the stream; of this host's rows.
    scalars: still on the devices.
    length: positions of an example, padding included.
    real: positions of an example that are no padding, on average.
  """

  step: int
  examples: np.ndarray
  scalars: Scalars
  length: int
  real: float


class Journal:
  """Reads each step's numbers and writes down what has to be known.

  The numbers of a step are read when the next one is under way, so that the
  devices never wait for the host.

  Args:
    config: of the run.
    workdir: where the files go; the first process alone writes them.
    start: steps done before; lines of later ones are replaced.
    rates: measures the speed.
    name_records: gives the record behind each example.
    counts: of this host's rows so far, as `rows.RowMaker` has them.
  """

  def __init__(
    self,
    config: Config,
    workdir: str,
    start: int,
    rates: meter.Meter,
    name_records: Callable[[Sequence[int]], list[str]],
    counts: Callable[[], Mapping[str, int]] = dict,
  ):
    self._config, self._rates = config, rates
    self._name_records, self._counts = name_records, counts
    self._guard = loss_guard.Guard(config.faults)
    self._lr = optimizer.schedule(config.optim, config.steps)
    self._files = _Files(workdir, start) if hosts.is_first() else None
    self._waiting: StepResult | None = None
    self._newest: dict[str, float] = {}
    self._first = True

  def add(self, result: StepResult) -> None:
    """Reads the step before `result`, whose own numbers wait.

    Raises:
      NotFinite: too many steps in a row were skipped.
    """
    self.flush()
    self._waiting = result

  def flush(self) -> dict[str, float]:
    """Reads the newest step, and gives its numbers.

    Raises:
      NotFinite: too many steps in a row were skipped.
    """
    if self._waiting:
      result, self._waiting = self._waiting, None
      self._newest = self._read(result)
    return self._newest

  def write(self, step: int, numbers: Mapping[str, float], line: str) -> None:
    """Prints a line and keeps its numbers."""
    if self._files:
      print(line, flush=True)
      self._files.write(step, numbers)

  def close(self) -> None:
    """Closes the files."""
    if self._files:
      self._files.close()

  def _read(self, result: StepResult) -> dict[str, float]:
    step = result.step
    scalars = {k: float(v) for k, v in jax.device_get(result.scalars).items()}
    if reason := self._guard.reason(scalars):
      self._report_incident(result, reason, scalars)
    self._guard.check(step)
    if self._first:  # it included compilation
      self._rates.start(step)
      self._first = False
    else:
      self._rates.count(result.length, result.real)
    last = step == self._config.steps
    if (step % self._config.log_every == 0 or last) and not scalars["skipped"]:
      numbers = scalars | self._rates.rates(step)
      numbers |= self._learning_rates(step)
      line = self._rates.line(step, numbers) + left_out(self._counts())
      self.write(step, numbers, line)
    return scalars

  def _learning_rates(self, step: int) -> dict[str, float]:
    """Returns the rate of a step, and the adapter's where it has its own."""
    rate, optim = float(self._lr(step - 1)), self._config.optim
    own = rate * optim.adapter_lr / optim.lr
    return {"lr": rate} | ({"adapter_lr": own} if own else {})

  def _report_incident(
    self, result: StepResult, reason: str, scalars: Mapping[str, float]
  ) -> None:
    # Every process gathers, the first writes.
    examples = sharding.fetch(result.examples).tolist()
    step, loss = result.step, scalars["loss"]
    print(f"step {step}: {reason}: loss {loss}", flush=True)
    if not self._files:
      return
    self._files.report(
      {
        "step": step,
        "why": reason,
        "scalars": {k: repr(v) for k, v in scalars.items()},  # json has no NaN
        "examples": examples,
        "records": self._name_records(examples),
      }
    )


def left_out(counts: Mapping[str, int]) -> str:
  """Tells what rows were read without, and what they were cut off to fit.

  Args:
    counts: as `rows.RowMaker` has them; rows that were read ahead are in it.

  >>> left_out({"turns": 9, "turns left out": 3, "skipped": 1})
  '  left out: 3 of 12 turns, 1 records'
  """
  lost = [counts.get(f"turns {why}", 0) for why in ("left out", "cropped away")]
  parts = []
  if turns := sum(lost):
    parts.append(f"{turns} of {turns + counts['turns']} turns")
  if tokens := counts.get("tokens cut off", 0):
    parts.append(f"{tokens} tokens of {counts['turns cut off']} turns")
  if skipped := counts.get("skipped", 0):
    parts.append(f"{skipped} records")
  return f"  left out: {', '.join(parts)}" if parts else ""


class _Files:
  """The files of a journal, and TensorBoard's where clu can write them."""

  def __init__(self, workdir: str, start: int):
    self._lines = JsonLines(os.path.join(workdir, "metrics.jsonl"), start)
    path = os.path.join(workdir, "incidents.jsonl")
    self._incidents = JsonLines(path, start)
    try:
      from clu import metric_writers  # brings TensorFlow, which may be absent

      self._board = metric_writers.SummaryWriter(workdir)
    except ImportError:
      self._board = None

  def write(self, step: int, numbers: Mapping[str, float]) -> None:
    self._lines.write({"step": step, **numbers})
    if self._board:
      self._board.write_scalars(step, numbers)

  def report(self, incident: Mapping) -> None:
    self._incidents.write(incident)

  def close(self) -> None:
    self._lines.close()
    self._incidents.close()
    if self._board:
      self._board.close()


class JsonLines:
  """Appends a json object a line; rows after `step` are dropped first.

  A run that was killed resumes from an earlier checkpoint: what it logged
  beyond that step is logged again, so the old rows have to go.
  """

  def __init__(self, path: str, step: int):
    kept = []
    if os.path.exists(path):
      with open(path, encoding="utf-8") as f:
        kept = [line for line in f if _step_of(line) <= step]
    files.write_lines(path, kept)
    self._file = open(path, "a", encoding="utf-8")

  def write(self, row: Mapping) -> None:
    """Appends one row and flushes it."""
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def _step_of(line: str) -> float:
  try:
    return float(json.loads(line)["step"])
  except (json.JSONDecodeError, KeyError, TypeError):
    return math.inf  # a line cut off by the kill


def write_overview(workdir: str, state) -> None:
  """Writes shape, dtype and sharding of each parameter to parameters.txt."""
  try:
    from clu import parameter_overview  # not on every GPU image
  except ImportError:
    return
  parts = {"trained": state.trainable, "frozen": state.frozen}
  tables = [
    parameter_overview.get_parameter_overview(flat, include_stats="sharding")
    for flat in parts.values()
  ]
  lines = [f"{n}\n{t}\n" for n, t in zip(parts, tables, strict=True)]
  files.write_lines(os.path.join(workdir, "parameters.txt"), lines)


def summary(config: Config, state, sources: Mapping, mesh) -> str:
  """Describes in a few lines what is about to run."""

  def millions(flat):
    sizes = (quantized.num_values(p, v.shape, v.dtype) for p, v in flat.items())
    return sum(sizes) / 1e6

  left = (
    " by the model's size" if config.mesh.data == config.mesh.fsdp == -1 else ""
  )
  data = ", ".join(f"{name}={source!r}" for name, source in sources.items())
  return (
    f"stage {config.stage}: {config.steps} steps of {config.batch_size} rows\n"
    f"  parameters: {millions(state.trainable):.2f} M trained, "
    f"{millions(state.frozen):.2f} M frozen (parameters.txt)\n"
    f"  mesh: {dict(mesh.shape)} on {jax.devices()[0].device_kind}{left}\n"
    f"  data: {data}"
  )

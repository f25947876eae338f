"""The train loop: step after step, with what is written down on the way."""

import contextlib
import json
import os

import jax

from locvlm_jax import agreement, checks, errors, files
from locvlm_jax.config import Config, plain
from locvlm_jax.data.records import Batch
from locvlm_jax.parallel import folder_lock, hosts
from locvlm_jax.training import setup, validation
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.journal import Scalars, StepResult


def train(config: Config, workdir: str, replay: int = 0) -> None:
  """Trains one stage, from its newest checkpoint to its last step.

  Args:
    config: all of it.
    workdir: absolute path of the run's folder.
    replay: a step to compute again, with nothing written; 0: train.

  Raises:
    Fault: why it ended early.
  """
  checks.check(config)
  agreement.check(config, agreement.source(config), start=True)
  if not replay:
    files.check_writable(workdir, "--workdir")
  with hosts.Watch(config.faults) as watch:
    mesh = setup.meet(config, watch)
    with contextlib.ExitStack() as stack:
      if not replay:
        stack.enter_context(folder_lock.held(workdir, "train"))
      _train(config, workdir, mesh, watch, replay)


def _train(config: Config, workdir: str, mesh, watch, replay: int) -> None:
  """Opens the run and goes through its steps."""
  watch.enter(0, "open data")
  # Opened before anything is compiled, so that a wrong path shows now.
  data = setup.Data.open(config)
  watch.compare("data", data.hashes)
  with jax.set_mesh(mesh):
    run, state = setup.open_run(config, workdir, data, mesh, watch, replay)
    with contextlib.closing(run):
      _replay(run, state, replay) if replay else _loop(run, state)
  if not replay:
    run.data.report(workdir)


def _loop(run: setup.Run, state: step_lib.TrainState) -> None:
  """Trains from `run.start` to the last step."""
  config, watch, journal = run.config, run.watch, run.journal
  if hosts.is_first():
    path = os.path.join(run.workdir, "config.json")
    files.write_json(path, plain(config))
  batches, measured = run.data.batches(run.start), {}
  watch.attend(run.data.rows_read)
  for step in range(run.start + 1, config.steps + 1):
    if watch.stop_requested(step):
      return _preempt(run, step - 1, state)
    watch.enter(step, "data" if step > run.start + 1 else "first batch")
    batch = next(batches)
    run.data.check_bad_share()
    state, scalars = run.program(step, state, batch)
    journal.add(_result(config, step, batch, scalars))
    if run.validation.due(step):
      measured = _validate(run, step, state)
    if run.checkpoints.due(step) or step == config.steps:
      _save(run, step, state, journal.flush() | measured)
    run.checkpoints.check()
  run.program.check_compiled_once()


def _result(
  config: Config, step: int, batch: Batch, scalars: Scalars
) -> StepResult:
  """What the journal has to know of a step."""
  pack = config.data.pack
  return StepResult(
    step=step,
    examples=batch["example"].ravel(),
    scalars=scalars,
    length=batch["tokens"].shape[1] // pack,
    real=float(batch["lengths"].mean()) / pack,
  )


def _validate(
  run: setup.Run, step: int, state: step_lib.TrainState
) -> dict[str, float]:
  """Measures the parameters after `step`, and writes the numbers down."""
  run.watch.enter(step, "validate")
  numbers = run.validation({**state.frozen, **state.trainable})
  run.journal.write(step, numbers, validation.told(step, numbers))
  return numbers


def _save(
  run: setup.Run, step: int, state: step_lib.TrainState, metrics: dict
) -> None:
  run.watch.enter(step, "save")
  run.checkpoints.save(
    step,
    run.items(state),
    run.info(step),
    metrics=metrics,
    last=step == run.config.steps,
  )


def _preempt(run: setup.Run, step: int, state: step_lib.TrainState) -> None:
  """Saves where all processes have stopped, and ends the command.

  Raises:
    Preempted: always.
  """
  run.journal.flush()
  run.watch.enter(step, "save")
  if step > run.start:
    run.checkpoints.save(step, run.items(state), run.info(step), last=True)
  raise errors.Preempted(
    f"preempted: {run.workdir} is saved at step {step} of {run.config.steps}; "
    "run the same command again to go on."
  )


def _replay(run: setup.Run, state: step_lib.TrainState, last: int) -> None:
  """Trains from the checkpoint to step `last`, and prints what happened there.

  Raises:
    ValueError: the run has no such step.
  """
  if not 0 < last <= run.config.steps:
    raise ValueError(f"--replay={last}: not of 1 to {run.config.steps}.")
  batches = run.data.batches(run.start)
  for step in range(run.start + 1, last + 1):
    batch = next(batches)
    state, scalars = run.program(step, state, batch)
  numbers = {k: float(v) for k, v in scalars.items()}
  print(f"replay of step {last}: {json.dumps(numbers)}")
  examples = batch["example"].ravel().tolist()
  names = run.data.name_records(examples)
  for example, name in zip(examples, names, strict=True):
    print(f"  example {example}: {name}", flush=True)

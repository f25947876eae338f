"""Trains one stage: `python -m locvlm_jax.train --config F --workdir DIR`.

Run again with the same arguments it resumes from the newest checkpoint, and
goes on exactly where it stopped. The workdir receives

  checkpoints/    parameters, optimizer, position in the data, config
  metrics.jsonl   one line every `log_every` steps; also for TensorBoard
  config.json     every field as resolved
  profile/        traces of the steps that `config.profile` names
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from locvlm_jax import command


def main(argv: list[str]) -> None:
  """Flags to a config, then `train`."""
  del argv
  train(command.config(), command.workdir())


def train(config: Mapping, workdir: str) -> None:
  """Mesh, data, state; then the loop.

  Args:
    config: the resolved config as plain data.
    workdir: absolute path of the run's folder.
  """
  # Late, so that --help and a misspelt field answer at once.
  import jax

  from locvlm_jax import build, sharding

  build.check(config)
  config = build.with_exclusions(config)
  mesh = sharding.make_mesh(config["mesh"])
  build.check_mesh(config, mesh)
  os.makedirs(workdir, exist_ok=True)
  # Opened before anything is compiled, so that a wrong path shows now.
  data = _open_data(config)
  with jax.set_mesh(mesh):
    run = _open_run(config, workdir, data, mesh)
    build.write_json(os.path.join(workdir, "config.json"), config)
    with contextlib.closing(run.saved):
      _loop(config, workdir, data, run, mesh)
  _report(data.make_row, workdir)


class _Data(NamedTuple):
  sources: Mapping  # name -> records by index
  spec: Any  # preprocess.RowSpec
  make_row: Any  # record -> row; counts what it skips


class _Run(NamedTuple):
  saved: Any  # checkpoint.Checkpoints
  start: int  # steps done
  state: Any  # train_step.State at `start`
  train_step: Any  # state, batch -> state, scalars
  meter: Any  # metrics.Meter


def _open_data(config: Mapping) -> _Data:
  from locvlm_jax import build
  from locvlm_jax.data import pipeline, preprocess

  text = build.load_tokenizer(config)
  sources = pipeline.open_sources(config["data"])
  spec = build.row_spec(config, text, sources)
  return _Data(sources, spec, preprocess.RowMaker(spec))


def _open_run(config: Mapping, workdir: str, data: _Data, mesh) -> _Run:
  """Parameters and optimizer, from the newest checkpoint if there is one."""
  from locvlm_jax import build, checkpoint, optim, sharding
  from locvlm_jax import train_step as step_lib

  model = build.model(config)
  params = build.initial_params(config, model, mesh)
  trainable, frozen = optim.split(params, config["trainable"])
  tx = optim.make(config["optim"], config["steps"])
  state, shardings = step_lib.init_state(trainable, frozen, tx, mesh)
  saved = checkpoint.Checkpoints(
    build.checkpoint_dir(workdir), every=config["checkpoint_every"],
    keep=config["checkpoint_keep"],
  )  # fmt: skip
  start = saved.latest or 0
  if start:
    build.check_same_run(config, saved.info(start), workdir)
    state = step_lib.from_items({
      name: saved.restore(start, name, item)
      for name, item in step_lib.to_items(state).items()
    })  # fmt: skip
    print(f"resumed {workdir} at step {start}", flush=True)
  train_step = step_lib.jit_train_step(
    model, tx, shardings, sharding.batch_sharding(mesh), config["accumulate"]
  )
  print(
    build.summary(config, trainable, frozen, data.sources, mesh), flush=True
  )
  meter = build.meter(config, model, data.spec, trainable)
  return _Run(saved, start, state, train_step, meter)


def _loop(config: Mapping, workdir: str, data: _Data, run: _Run, mesh) -> None:
  """Batch, step, progress line, checkpoint; from `run.start` to the end."""
  import jax

  from locvlm_jax import optim, sharding, tracing
  from locvlm_jax import train_step as step_lib
  from locvlm_jax.data import pipeline

  batches = pipeline.train_iterator(
    data.sources, config["data"]["mixture"], data.make_row,
    batch_size=config["batch_size"], seed=config["seed"],
    host=jax.process_index(), num_hosts=jax.process_count(), start=run.start,
    threads=config["data"]["threads"], window=config["data"]["sort_window"],
  )  # fmt: skip
  learning_rate = optim.schedule(config["optim"], config["steps"])
  train_step = tracing.traced(
    run.train_step, config["profile"], os.path.join(workdir, "profile"),
    run.start,
  )  # fmt: skip
  state, began, lengths = run.state, time.monotonic(), set()
  with _writers(workdir, run.start) as write:
    for step in range(run.start + 1, config["steps"] + 1):
      batch = step_lib.inputs(next(batches))
      _check_bad_share(data.make_row, config["data"]["max_bad_share"])
      length = batch["tokens"].shape[1]
      lengths.add(length)
      run.meter.saw(length, float(batch["lengths"].mean()))
      batch = sharding.put_batch(batch, mesh, config["batch_size"])
      state, scalars = train_step(state, batch)
      if step == run.start + 1:
        jax.block_until_ready(state.step)
        print(f"compiled in {time.monotonic() - began:.1f} s", flush=True)
        run.meter.start(step)
      last = step == config["steps"]
      if step % config["log_every"] == 0 or last:
        scalars = {k: float(v) for k, v in scalars.items()}
        _check_finite(step, scalars)
        scalars |= run.meter.rates(step)
        scalars |= {"lr": float(learning_rate(step - 1))}
        print(run.meter.line(step, scalars), flush=True)
        write(step, scalars)
      info = {"config": config, "next_step": step}
      run.saved.save(step, step_lib.to_items(state), info, last=last)
  _check_compiled_once(run.train_step, len(lengths))


def _check_compiled_once(train_step, lengths: int) -> None:
  """One program for each length of a row: more is our own mistake."""
  size = train_step._cache_size()
  assert size <= lengths, f"{size} programs for {lengths} lengths of rows"


@contextlib.contextmanager
def _writers(workdir: str, start: int):
  """A function that writes scalars as json lines and for TensorBoard."""
  from locvlm_jax import metrics

  lines = metrics.JsonLines(os.path.join(workdir, "metrics.jsonl"), start)
  try:
    from clu import metric_writers

    board = metric_writers.SummaryWriter(workdir)
  except ImportError:  # json lines alone, where clu or TensorFlow is absent
    board = None

  def write(step, scalars):
    lines.write({"step": step, **scalars})
    if board:
      board.write_scalars(step, scalars)

  try:
    yield write
  finally:
    lines.close()
    if board:
      board.close()


def _check_finite(step: int, scalars: dict[str, float]) -> None:
  for name, value in scalars.items():
    if value != value or value in (float("inf"), float("-inf")):
      raise command.NotFinite(
        f"step {step}: {name} is {value}. Lower optim.lr, or resume from the "
        "last checkpoint with another seed."
      )


def _check_bad_share(make_row, limit: float) -> None:
  """Stops when more than `limit` of the records can't be used."""
  from locvlm_jax.data import batch

  counts = make_row.counts
  rows = counts["rows"] + counts["skipped"]
  # One bad record among the first few says nothing about the share.
  if counts["skipped"] > max(1, limit * rows) and rows >= 100:
    examples = list(make_row.skipped.items())[:3]
    raise batch.DataError(
      f"{counts['skipped']} of {rows} records can't be used, more than "
      f"data.max_bad_share={limit}: "
      + "; ".join(f"{name}: {why}" for name, why in examples)
    )


def _report(make_row, workdir: str) -> None:
  """What the data left out, at the end of the run."""
  counts = dict(make_row.counts)
  print("data: " + ", ".join(f"{v} {k}" for k, v in sorted(counts.items())))
  for name, why in list(make_row.skipped.items())[:20]:
    print(f"  skipped {name}: {why}")
  with open(os.path.join(workdir, "data.json"), "w", encoding="utf-8") as f:
    json.dump({"counts": counts, "skipped": make_row.skipped}, f, indent=2)


if __name__ == "__main__":
  command.run(main)

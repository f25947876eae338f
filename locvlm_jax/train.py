"""Trains one stage: `python -m locvlm_jax.train --config F --workdir DIR`.

Run again with the same arguments it resumes from the newest checkpoint, and
goes on exactly where it stopped. The workdir receives

  checkpoints/    parameters, optimizer, position in the data, config
  metrics.jsonl   one line every `log_every` steps; also for TensorBoard
  config.json     every field as resolved
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping

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

  from locvlm_jax import build, checkpoint, optim, sharding
  from locvlm_jax import train_step as step_lib
  from locvlm_jax.data import pipeline, preprocess

  build.check(config)
  mesh = sharding.make_mesh(config["mesh"])
  build.check_mesh(config, mesh)
  os.makedirs(workdir, exist_ok=True)

  # Data: opened before anything is compiled, so that a wrong path shows now.
  text = build.load_tokenizer(config)
  data = config["data"]
  sources = pipeline.open_sources(data)
  spec = build.row_spec(config, text, sources)
  make_row = preprocess.RowMaker(spec)

  with jax.set_mesh(mesh):
    # State: parameters, optimizer; from the newest checkpoint if there is one.
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
    build.write_json(os.path.join(workdir, "config.json"), config)
    print(build.summary(config, trainable, frozen, sources, mesh), flush=True)

    # Loop.
    batches = pipeline.train_iterator(
      sources, data["mixture"], make_row, batch_size=config["batch_size"],
      seed=config["seed"], host=jax.process_index(),
      num_hosts=jax.process_count(), start=start, threads=data["threads"],
    )  # fmt: skip
    train_step = step_lib.jit_train_step(
      model, tx, shardings, sharding.batch_sharding(mesh),
      config["accumulate"],
    )  # fmt: skip
    meter = build.meter(config, model, spec, trainable)
    learning_rate = optim.schedule(config["optim"], config["steps"])
    with contextlib.closing(saved), _writers(workdir, start) as write:
      began = time.monotonic()
      for step in range(start + 1, config["steps"] + 1):
        batch = next(batches)
        _check_bad_share(make_row, data["max_bad_share"])
        batch = sharding.put_batch(
          step_lib.inputs(batch), mesh, config["batch_size"]
        )
        state, scalars = train_step(state, batch)
        if step == start + 1:
          jax.block_until_ready(state.step)
          print(f"compiled in {time.monotonic() - began:.1f} s", flush=True)
          meter.start(step)
        if step % config["log_every"] == 0 or step == config["steps"]:
          scalars = {k: float(v) for k, v in scalars.items()}
          _check_finite(step, scalars)
          scalars |= meter.rates(step) | {"lr": float(learning_rate(step - 1))}
          print(meter.line(step, scalars), flush=True)
          write(step, scalars)
        saved.save(step, step_lib.to_items(state),
                   {"config": config, "next_step": step},
                   last=step == config["steps"])  # fmt: skip
    _check_compiled_once(train_step)
  _report(make_row, workdir)


def _check_compiled_once(train_step) -> None:
  """Shapes are static: a second program is our own mistake."""
  size = train_step._cache_size()
  assert size <= 1, f"the train step was compiled {size} times"


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

"""The train loop: mesh, data, state; then step after step."""

import contextlib
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from locvlm_jax import assemble, checks, errors, files, provenance
from locvlm_jax.data import catalog, stream
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.inference import video_features
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import hosts, sharding
from locvlm_jax.training import guards, journal, optimizer, resume, tracing
from locvlm_jax.training import meter as meter_lib
from locvlm_jax.training import step as step_lib
from locvlm_jax.training import validation as validation_lib
from locvlm_jax.weights import checkpoints, initial


def train(config: Mapping, workdir: str, replay: int = 0) -> None:
  """Mesh, data, state; then the loop.

  Args:
    config: the resolved config as plain data.
    workdir: absolute path of the run's folder.
    replay: a step to compute again, with nothing written; 0: train.

  Raises:
    Fault: why it ended early.
  """
  # Late, so that --help and a misspelt field answer at once.
  import jax

  checks.check(config)
  config = assemble.with_exclusions(config)
  with hosts.Watch(config["faults"]) as watch:
    watch.meet()
    watch.at(0, "compare hosts")
    watch.agree("run", provenance.facts(config))
    mesh = sharding.make_mesh(config["mesh"])
    checks.check_batch(config, mesh)
    os.makedirs(workdir, exist_ok=True)
    watch.at(0, "open data")
    # Opened before anything is compiled, so that a wrong path shows now.
    data = _open_data(config)
    watch.agree("data", data.fingerprint)
    with jax.set_mesh(mesh):
      run = _open_run(config, workdir, data, mesh, watch, replay)
      with contextlib.closing(run.saved):
        if config["video"]["cache"]:
          data = _with_features(config, data, run)
        if replay:
          _replay(config, workdir, data, run, replay)
        else:
          _loop(config, workdir, data, run)
    if not replay:
      _report(data.make_row, workdir)


class _Data(NamedTuple):
  sources: Mapping  # name -> records by index
  spec: Any  # rows.RowSpec
  make_row: Any  # record -> row; counts what it skips
  fingerprint: Mapping  # name -> hash of its annotations


@dataclasses.dataclass
class _Run:
  saved: Any  # checkpoint.Checkpoints
  start: int  # steps done before this process began
  model: Any  # LocVLM
  state: Any  # step.TrainState
  train_step: Any  # state, batch -> state, scalars
  traced_step: Any  # the same; writes a trace of the steps that are named
  meter: Any  # metrics.Meter
  mesh: Any
  watch: Any  # hosts.Watch
  validation: Any  # validation.Validation


class _Done(NamedTuple):
  step: int  # counted from 1
  examples: Any  # int32 [B]; of this host
  scalars: Any  # still on the devices
  length: int  # positions of a row
  real: float  # of them, on average, no padding
  first: bool  # included compilation


def _open_data(config: Mapping) -> _Data:

  text = assemble.load_tokenizer(config)
  data = ml_collections.FrozenConfigDict(config["data"])
  sources = assemble.training_sources(config)
  spec = assemble.row_spec(config, text, sources)
  hashes = catalog.hashes(data)
  return _Data(sources, spec, rows_lib.RowMaker(spec), hashes)


def _stream_spec(config: Mapping) -> stream.StreamSpec:
  data = ml_collections.FrozenConfigDict(config["data"])
  return stream.StreamSpec.of(data, config["batch_size"], config["seed"])


def _open_run(
  config: Mapping, workdir: str, data: _Data, mesh, watch, replay: int
) -> _Run:
  """Parameters and optimizer, from the newest checkpoint if there is one."""

  watch.at(0, "restore")
  model = assemble.model(config)
  params = initial.initial_params(config, model, mesh)
  trainable, frozen = params_lib.split(params, config["trainable"])
  tx = optimizer.make(config["optim"], config["steps"])
  state, shardings = step_lib.init_state(trainable, frozen, tx, mesh)
  saved = checkpoints.Checkpoints(
    checkpoints.checkpoint_dir(workdir),
    every=config["checkpoint_every"],
    keep=resume.retention(config),
    read_only=bool(replay),
  )
  start, items = 0, step_lib.to_items(state)
  if not replay:
    saved.check_room(items)
  found = saved.newest(
    items,
    lambda info: resume.check_same_run(config, info, workdir, data.fingerprint),
    before=replay or None,
  )
  if found:
    start, state = found[0], step_lib.from_items(found[1])
    print(f"resumed {workdir} at step {start}", flush=True)
  train_step = step_lib.jit_train_step(
    model, tx, shardings, sharding.batch_sharding(mesh), config["accumulate"]
  )
  print(
    journal.summary(config, trainable, frozen, data.sources, mesh), flush=True
  )
  meter = meter_lib.of_run(config, model, data.spec, trainable)
  measured = validation_lib.Validation(config, model, mesh)
  traced_step = train_step
  if not replay:
    traced_step = tracing.traced(
      train_step, config["profile"], os.path.join(workdir, "profile"), start
    )
  return _Run(
    saved,
    start,
    model,
    state,
    train_step,
    traced_step,
    meter,
    mesh,
    watch,
    measured,
  )


def _with_features(config: Mapping, data: _Data, run: _Run) -> _Data:
  """The data with features of its videos in place of their frames."""

  records = (s[i] for s in data.sources.values() for i in range(len(s)))
  spec = video_features.row_spec(
    config,
    run.model,
    {**run.state.frozen, **run.state.trainable},
    data.spec,
    (record.image for record in records if record.image),
    run.mesh,
    threads=config["data"]["threads"],
    at=lambda batch: run.watch.at(batch, "features"),
  )
  return data._replace(spec=spec, make_row=rows_lib.RowMaker(spec))


def _loop(config: Mapping, workdir: str, data: _Data, run: _Run) -> None:
  """Step, progress line, checkpoint; from `run.start` to the end.

  The numbers of a step are read when the next one is under way, so that the
  devices never wait for the host.
  """

  if hosts.is_first():
    files.write_json(os.path.join(workdir, "config.json"), config)
  step, pending, validated = run.start, None, {}
  with _journal(config, workdir, data, run) as (look, write):
    for done in _steps(config, data, run):
      if pending:
        look(pending)
      step, pending = done.step, done
      if run.validation.due(step):
        validated = _validated(run, step, write)
      if run.saved.due(step) or step == config["steps"]:
        numbers, pending = look(done) | validated, None
        run.watch.at(step, "save")
        run.saved.save(
          step,
          step_lib.to_items(run.state),
          _info(config, data, step),
          metrics=numbers,
          last=step == config["steps"],
        )
      run.saved.check()
    if pending:
      look(pending)
    if step < config["steps"]:
      _preempted(config, workdir, data, run, step)


def _validated(run: _Run, step: int, write) -> dict[str, float]:
  """Measures the parameters after `step`."""
  run.watch.at(step, "validate")
  numbers = run.validation({**run.state.frozen, **run.state.trainable})
  shown = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
  write(step, numbers, f"step {step}  {shown}")
  return numbers


def _info(config: Mapping, data: _Data, step: int) -> dict:
  return {"config": config, "next_step": step, "data": dict(data.fingerprint)}


def _preempted(config, workdir, data, run, step: int) -> None:
  """Saves where all processes have stopped, and tells."""

  run.watch.at(step, "save")
  if step > run.start:
    run.saved.save(
      step, step_lib.to_items(run.state), _info(config, data, step), last=True
    )
  raise errors.Preempted(
    f"preempted: {workdir} is saved at step {step} of {config['steps']}; run "
    "the same command again to go on."
  )


def _steps(config: Mapping, data: _Data, run: _Run) -> Iterator[_Done]:
  """Each step when it is under way; `run.state` is the state after it.

  Ends before `config.steps` if a process was asked to end.
  """
  import jax

  batches = stream.train_iterator(
    data.sources,
    data.make_row,
    _stream_spec(config),
    host=jax.process_index(),
    num_hosts=jax.process_count(),
    start=run.start,
  )
  began, lengths = time.monotonic(), set()
  pack = config["data"]["pack"]
  for step in range(run.start + 1, config["steps"] + 1):
    if run.watch.stops_before(step):
      return
    run.watch.at(step, "data" if lengths else "first batch")
    batch = next(batches)
    rows = step_lib.inputs(batch)
    _check_bad_share(data.make_row, config["data"]["max_bad_share"])
    length = rows["tokens"].shape[1]
    run.watch.at(step, "step" if length in lengths else "compile")
    rows = sharding.put_batch(rows, run.mesh, config["batch_size"] // pack)
    if not lengths:
      run.watch.agree("program", _program(run, rows))
    run.state, scalars = run.traced_step(run.state, rows)
    first = not lengths
    if length not in lengths:  # compilation is not bounded as a step is
      jax.block_until_ready(run.state.step)
    if first and hosts.is_first():
      print(f"compiled in {time.monotonic() - began:.1f} s", flush=True)
    lengths.add(length)
    run.watch.at(step, "step")
    real = float(batch["lengths"].mean()) / pack
    examples = batch["example"].ravel()
    yield _Done(step, examples, scalars, length // pack, real, first)
  _check_compiled_once(run.train_step, len(lengths))


def _program(run: _Run, batch: Mapping) -> dict:
  """What identifies the compiled step, where processes are to agree on it."""
  import hashlib

  import jax

  if jax.process_count() == 1:
    return {}
  text = run.train_step.lower(run.state, batch).as_text()
  return {"program": hashlib.sha256(text.encode()).hexdigest()[:16]}


@contextlib.contextmanager
def _journal(config: Mapping, workdir: str, data: _Data, run: _Run):
  """A function that reads a step's scalars, and tells what is to be told."""
  import jax

  guard = guards.Guard(config["faults"])
  learning_rate = optimizer.schedule(config["optim"], config["steps"])

  def tell(done: _Done, why: str, scalars: Mapping) -> None:
    examples = sharding.fetch(done.examples).tolist()
    records = stream.record_ids(data.sources, _stream_spec(config), examples)
    print(f"step {done.step}: {why}: loss {scalars['loss']}", flush=True)
    numbers = {k: repr(v) for k, v in scalars.items()}  # json knows no NaN
    incident(
      {
        "step": done.step,
        "why": why,
        "scalars": numbers,
        "examples": examples,
        "records": records,
      }
    )

  with _writers(workdir, run.start) as (write, incident):

    def look(done: _Done) -> dict[str, float]:
      step = done.step
      scalars = {k: float(v) for k, v in jax.device_get(done.scalars).items()}
      if why := guard.look(scalars):
        tell(done, why, scalars)
      guard.check(step)
      if done.first:
        run.meter.start(step)
      else:
        run.meter.saw(done.length, done.real)
      last = step == config["steps"]
      if (step % config["log_every"] == 0 or last) and not scalars["skipped"]:
        line = scalars | run.meter.rates(step)
        line |= {"lr": float(learning_rate(step - 1))}
        write(step, line, run.meter.line(step, line))
      return scalars

    yield look, write


def _replay(config, workdir, data: _Data, run: _Run, step: int) -> None:
  """Trains from the checkpoint to `step`, and prints what happened there."""

  if not 0 < step <= config["steps"]:
    raise ValueError(f"--replay={step}: not of 1 to {config['steps']}.")
  until = itertools.islice(_steps(config, data, run), step - run.start)
  *_, done = until
  numbers = {k: float(v) for k, v in done.scalars.items()}
  print(f"replay of step {step}: {json.dumps(numbers)}")
  examples = done.examples.tolist()
  records = stream.record_ids(data.sources, _stream_spec(config), examples)
  for example, record in zip(examples, records, strict=True):
    print(f"  example {example}: {record}", flush=True)


def _check_compiled_once(train_step, lengths: int) -> None:
  """One program for each length of a row: more is our own mistake."""
  size = train_step._cache_size()
  assert size <= lengths, f"{size} programs for {lengths} lengths of rows"


@contextlib.contextmanager
def _writers(workdir: str, start: int):
  """Functions that write scalars and incidents; the first process does.

  Scalars are printed, and go into json lines and to TensorBoard.
  """

  if not hosts.is_first():
    yield (lambda step, scalars, line: None), (lambda incident: None)
    return
  lines = journal.JsonLines(os.path.join(workdir, "metrics.jsonl"), start)
  incidents = journal.JsonLines(os.path.join(workdir, "incidents.jsonl"), start)
  try:
    from clu import metric_writers

    board = metric_writers.SummaryWriter(workdir)
  except ImportError:  # json lines alone, where clu or TensorFlow is absent
    board = None

  def write(step, scalars, line):
    print(line, flush=True)
    lines.write({"step": step, **scalars})
    if board:
      board.write_scalars(step, scalars)

  try:
    yield write, incidents.write
  finally:
    lines.close()
    incidents.close()
    if board:
      board.close()


def _check_bad_share(make_row, limit: float) -> None:
  """Stops when more than `limit` of the records can't be used."""

  counts = make_row.counts
  rows = counts["rows"] + counts["skipped"]
  # One bad record among the first few says nothing about the share.
  if counts["skipped"] > max(1, limit * rows) and rows >= 100:
    examples = list(make_row.skipped.items())[:3]
    raise errors.DataError(
      f"{counts['skipped']} of {rows} records can't be used, more than "
      f"data.max_bad_share={limit}: "
      + "; ".join(f"{name}: {why}" for name, why in examples)
    )


def _report(make_row, workdir: str) -> None:
  """What the data left out on this host, at the end of the run."""

  counts = dict(make_row.counts)
  print("data: " + ", ".join(f"{v} {k}" for k, v in sorted(counts.items())))
  for name, why in list(make_row.skipped.items())[:20]:
    print(f"  skipped {name}: {why}")
  files.write_json(
    os.path.join(workdir, hosts.host_file("data.json")),
    {"counts": counts, "skipped": make_row.skipped},
  )

"""Opens what a run needs: its data, its state, its compiled step."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from locvlm_jax import assemble, checks, errors, files, provenance
from locvlm_jax.config import Config, freeze
from locvlm_jax.data import rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.records import Batch, Source
from locvlm_jax.inference import video_features
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import hosts, sharding
from locvlm_jax.training import (
  data_hashes,
  meter,
  optimizer,
  planning,
  resume,
  tracing,
)
from locvlm_jax.training import journal as journal_lib
from locvlm_jax.training import program as program_lib
from locvlm_jax.training import step as step_lib
from locvlm_jax.training import validation as validation_lib
from locvlm_jax.training.losses import digits
from locvlm_jax.training.room import before_start
from locvlm_jax.weights import checkpoints as checkpoints_lib
from locvlm_jax.weights import checksums, frozen, initial, runs


@dataclasses.dataclass
class Data:
  """What a run trains on.

  Attributes:
    config: of the run.
    sources: records, by the source's name.
    make_row: turns a record into a row; counts what it skips.
    hashes: of what it reads, of `data_hashes.of`.
  """

  config: Config
  sources: Mapping[str, Source]
  make_row: rows.RowMaker
  hashes: Mapping[str, str]

  @classmethod
  def open(cls, config: Config) -> "Data":
    """Opens the sources of `config.data`: reads annotations, decodes no image.

    Raises:
      DataError: a file is missing or malformed.
    """
    sources = assemble.training_sources(config)
    text = assemble.load_tokenizer(config)
    make_row = rows.RowMaker(assemble.row_spec(config, text, sources))
    hashes = data_hashes.of(config, sources, text.fingerprint())
    return cls(config, sources, make_row, hashes)

  def batches(self, start: int) -> Iterator[Batch]:
    """Streams batches of this host's rows, from step `start` on."""
    return stream_lib.train_iterator(
      self.sources,
      self.make_row,
      self._spec,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      start=start,
    )

  def name_records(self, examples: Sequence[int]) -> list[str]:
    """Names the record behind each example of the stream."""
    return stream_lib.record_ids(self.sources, self._spec, examples)

  @property
  def _spec(self) -> stream_lib.StreamSpec:
    config = self.config
    return stream_lib.StreamSpec.of(config.data, config.batch_size, config.seed)

  def rows_read(self) -> int:
    """Counts the rows that this host has read so far, usable or not."""
    counts = self.make_row.counts
    return counts["rows"] + counts["skipped"] + counts["nothing to ask"]

  def left_out(self) -> list[str]:
    """Says in lines which records show images of evaluation sets."""
    return exclusion.describe(self.sources, assemble.test_sets(self.config))

  def check_bad_share(self) -> None:
    """Stops the run where too many records can't be used.

    Raises:
      DataError: more than `data.max_bad_share` of them; names three.
    """
    counts, limit = self.make_row.counts, self.config.data.max_bad_share
    total = counts["rows"] + counts["skipped"]
    # One bad record among the first few says nothing about the share.
    if counts["skipped"] > max(1, limit * total) and total >= 100:
      some = list(self.make_row.skipped.items())[:3]
      raise errors.DataError(
        f"{counts['skipped']} of {total} records can't be used, more than "
        f"data.max_bad_share={limit}: "
        + "; ".join(f"{name}: {why}" for name, why in some)
      )

  def report(self, workdir: str) -> None:
    """Prints what this host's rows left out, and writes it to data.json."""
    counts, skipped = dict(self.make_row.counts), self.make_row.skipped
    print("data: " + ", ".join(f"{v} {k}" for k, v in sorted(counts.items())))
    for name, why in list(skipped.items())[:20]:
      print(f"  skipped {name}: {why}")
    path = os.path.join(workdir, hosts.host_file("data.json"))
    files.write_json(path, {"counts": counts, "skipped": skipped})


@dataclasses.dataclass
class Run:
  """A run that is ready to train.

  Attributes:
    config: all of it.
    workdir: absolute path of its folder.
    start: steps done before this process began.
    watch: of all processes.
    data: what it trains on.
    program: the compiled step.
    journal: what it writes down.
    validation: what it measures on the way.
    checkpoints: where it is saved.
    refers: what they say of parameters that they do not store; None: they
      store all.
  """

  config: Config
  workdir: str
  start: int
  watch: hosts.Watch
  data: Data
  program: program_lib.Program
  journal: journal_lib.Journal | None
  validation: validation_lib.Validation
  checkpoints: checkpoints_lib.Checkpoints
  refers: Mapping | None

  def items(self, state: step_lib.TrainState) -> dict:
    """Returns what a checkpoint stores of the state."""
    return step_lib.to_items(state, frozen=self.refers is None)

  def info(self, step: int) -> dict:
    """Describes the checkpoint after `step`."""
    hashes = self.data.hashes
    return resume.run_info(self.config, step, hashes, self.refers)

  def close(self) -> None:
    """Closes files; waits for a save that is under way."""
    if self.journal:
      self.journal.close()
    self.checkpoints.close()


def meet(config: Config, watch: hosts.Watch) -> jax.sharding.Mesh:
  """Connects the processes, compares them, and makes their mesh.

  Raises:
    Mismatch: they differ.
    ValueError: the mesh does not divide the batch, or the devices have not the
      attention of the config.
  """
  watch.connect()
  watch.enter(0, "compare hosts")
  watch.compare("run", provenance.facts(config))
  mesh = sharding.make_mesh(assemble.mesh_sizes(config))
  checks.check_batch(config, mesh)
  assemble.training_model(config)  # before data are read
  return mesh


def open_run(
  config: Config,
  workdir: str,
  data: Data,
  mesh: jax.sharding.Mesh,
  watch: hosts.Watch,
  replay: int = 0,
) -> tuple[Run, step_lib.TrainState]:
  """Makes the run and its state, from the newest checkpoint if there is one.

  Args:
    config: all of it.
    workdir: absolute path of the run's folder.
    data: what it trains on.
    mesh: of all processes; it has to be set.
    watch: of all processes.
    replay: a step that will be computed again, with nothing written; 0: none.
  """
  watch.enter(0, "restore")
  model = assemble.training_model(config)
  # What it can't measure shows now, before anything is read or compiled.
  measured = validation_lib.Validation(config, model, mesh)
  checkpoints = _open_checkpoints(config, workdir, bool(replay))
  init = _init(config, workdir, checkpoints)
  params = initial.initial_params(config, model, mesh, init)
  first = not runs.finished(workdir)
  origins = initial.describe(config, model, params) if first else []
  tx = optimizer.make(config.optim, config.steps)
  state, where = step_lib.init_state(
    *params_lib.split(params, config.trainable), tx, mesh
  )
  del params
  refers = frozen.reference(init, state.frozen, workdir)
  start, state, refers = _restore(
    config, workdir, data, checkpoints, state, refers, replay
  )
  print(journal_lib.summary(config, state, data.sources, mesh))
  print(*data.left_out(), *origins, sep="\n", flush=True)
  if config.video.cache:
    data = _with_features(data, model, state, mesh, watch)
  train_step = _train_step(config, model, tx, where, mesh, data)
  traced, journal = train_step, None
  if not replay:
    directory = os.path.join(workdir, "profile")
    traced = tracing.traced(train_step, config.profile, directory, start)
    journal = _journal(config, workdir, start, model, data, state)
  program = program_lib.Program(
    train_step,
    traced,
    mesh,
    config.batch_size // config.data.pack,
    watch,
    lambda: before_start.advice(config, mesh, program_lib.device_memory()),
  )
  run = Run(
    config=config,
    workdir=workdir,
    start=start,
    watch=watch,
    data=data,
    program=program,
    journal=journal,
    validation=measured,
    checkpoints=checkpoints,
    refers=refers,
  )
  if not replay:
    _check_room(run, state, model, mesh)
  return run, state


def _train_step(config: Config, model, tx, where, mesh, data: Data):
  """Makes the step, with the loss on digits if there is one."""
  spec = data.make_row.spec
  far = digits.build(
    config.optim.digit_loss,
    spec.coords,
    spec.tokenizer,
    config.model.llm.vocab_size,
  )
  return step_lib.jit_train_step(
    model,
    tx,
    where,
    sharding.batch_sharding(mesh),
    config.accumulate,
    config.seed,
    far,
  )


def _journal(
  config: Config, workdir: str, start: int, model, data: Data, state
) -> journal_lib.Journal:
  """Opens what the run writes down, with an overview of its parameters."""
  if hosts.is_first():
    journal_lib.write_overview(workdir, state)
  make_row = data.make_row
  return journal_lib.Journal(
    config,
    workdir,
    start,
    meter.of_run(config, model, make_row.spec, state.trainable),
    data.name_records,
    lambda: dict(make_row.counts),
  )


def _check_room(run: Run, state, model, mesh: jax.sharding.Mesh) -> None:
  """Refuses a step that does not fit; a run that is refused is closed."""
  sharded = sharding.batch_sharding(mesh)
  try:
    before_start.check_estimate(run.config, mesh, program_lib.device_memory())
    if before_start.is_tight(run.config):
      longest = planning.longest_batch(run.config, model, sharded)
      run.program.check_memory(state, longest)
  except ValueError:
    run.close()
    raise


def _open_checkpoints(
  config: Config, workdir: str, read_only: bool
) -> checkpoints_lib.Checkpoints:
  return checkpoints_lib.Checkpoints(
    runs.checkpoint_dir(workdir),
    every=config.checkpoint_every,
    keep=resume.retention(config),
    read_only=read_only,
  )


def _init(config: Config, workdir: str, checkpoints) -> Any:
  """`config.init`; of a run that goes on, where its frozen parameters are."""
  if not (refers := checkpoints.refers()):
    return config.init
  found = frozen.located(refers, workdir, config.init)
  return freeze({**config.init.to_dict(), **found})


def _restore(
  config, workdir, data: Data, checkpoints, state, refers, replay: int
) -> tuple[int, step_lib.TrainState, Mapping | None]:
  """(steps done, the state after them, what checkpoints will refer to)."""
  if not replay:
    checkpoints.check_room(step_lib.to_items(state, frozen=refers is None))

  def accept(info: Mapping) -> None:
    resume.check_same_run(config, info, workdir, data.hashes)
    if "frozen" in info:
      leaves = refers["leaves"] if refers else checksums.describe(state.frozen)
      frozen.check(info["frozen"], leaves, workdir)

  items = step_lib.to_items(state)
  found = checkpoints.newest(items, accept, before=replay or None)
  if not found:
    return 0, state, refers
  step, items = found
  stored = items["params"]["frozen"]
  if stored and refers and checksums.describe(stored) != refers["leaves"]:
    refers = None  # another `init` than the run began with
  items["params"]["frozen"] = stored or state.frozen
  print(f"resumed {workdir} at step {step}", flush=True)
  return step, step_lib.from_items(items), refers


def _with_features(
  data: Data, model: locvlm.LocVLM, state, mesh, watch: hosts.Watch
) -> Data:
  """The data with features of its videos in place of their frames."""
  records = (s[i] for s in data.sources.values() for i in range(len(s)))
  spec = video_features.row_spec(
    data.config.video.cache,
    model,
    {**state.frozen, **state.trainable},
    data.make_row.spec,
    (record.image for record in records if record.image),
    mesh,
    threads=data.config.data.threads,
    enter=lambda batch: watch.enter(batch, "features"),
  )
  return dataclasses.replace(data, make_row=rows.RowMaker(spec))

"""What an experiment trains and evaluates, and where that is kept.

An *arm* is one way to train; with a seed it is a *run*. What a run is asked is
an *evaluation*, of one suite of tasks. Folders are named after all that they
depend on, so that what is finished is found again, and what has changed is
made anew: a run that is asked more is not trained again.
"""

import dataclasses
import functools
import hashlib
import json
import os

from locvlm_jax.experiments import depends


@dataclasses.dataclass(frozen=True)
class World:
  """The micro-world that arms are trained and evaluated on."""

  train: int
  val: int
  videos: int

  @property
  def name(self) -> str:
    """Returns the name of its folder."""
    return f"world-{self.train}-{self.val}-{self.videos}"

  @property
  def arguments(self) -> list[str]:
    """Returns what `locvlm_jax.microworld` is given, but --out."""
    numbers = dataclasses.asdict(self)
    return [f"--{name}={number}" for name, number in numbers.items()]


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to train, whatever the seed.

  Attributes:
    name: in tables and folders.
    words: of the config, such as "stage2".
    fields: what differs from that config, as ("optim.lr=1e-3", ...).
    start: the arm whose weights it starts from; None: those of its config.
    captions: the arm whose model describes the objects first: its captions
      take the place of categories (the paper's pseudo-data).
  """

  name: str
  words: str
  fields: tuple[str, ...] = ()
  start: "Arm | None" = None
  captions: "Arm | None" = None


@dataclasses.dataclass(frozen=True)
class Suite:
  """Tasks that are asked in one evaluation."""

  name: str
  tasks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Run:
  """An arm with a seed, in a micro-world.

  Attributes:
    arm: what is trained.
    seed: of training; questions are the same for all.
    config: the file, and after a colon words that are added to the arm's.
    world: that it is trained on.
    overrides: words such as "--config.steps=3" that every command receives.
  """

  arm: Arm
  seed: int
  config: str
  world: World
  overrides: tuple[str, ...] = ()

  @property
  def needs(self) -> tuple["Run", ...]:
    """Lists the runs that have to be finished before."""
    arms = (self.arm.start, self.arm.captions)
    return tuple(dataclasses.replace(self, arm=arm) for arm in arms if arm)

  @property
  def kind(self) -> str:
    """Names what takes about as long."""
    return self.arm.words

  @functools.cached_property
  def name(self) -> str:
    """Returns the name of its folder, with a hash of what it depends on."""
    settings = [
      depends.digest(run.settings, run.arm.fields) for run in self._chain()
    ]
    return f"{self.arm.name}-seed{self.seed}-{_digest((self, settings))}"

  def _chain(self) -> list["Run"]:
    """Lists itself and all runs that it needs."""
    return [self, *(r for need in self.needs for r in need._chain())]

  @property
  def settings(self) -> str:
    """Returns its config: the file, and after a colon the words."""
    file, _, words = self.config.partition(":")
    return f"{file}:{','.join(filter(None, (self.arm.words, words)))}"

  def folder(self, workdir: str) -> str:
    """Returns its folder below the workdir of the experiment."""
    return os.path.join(workdir, self.name)

  def arguments(self, workdir: str) -> list[str]:
    """Returns what every command of this run is given."""
    return [
      f"--config={self.settings}",
      f"--config.root={os.path.join(workdir, self.world.name)}",
      f"--config.seed={self.seed}",
      *(f"--config.{field}" for field in self.arm.fields),
      *self.overrides,
      f"--workdir={self.folder(workdir)}",
    ]

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""
    return commands_of(self, workdir)

  def caption_arguments(self, workdir: str, path: str) -> list[str]:
    """Returns the arguments with which the other arm's model describes."""
    other = dataclasses.replace(self, arm=self.arm.captions)
    return [*other.arguments(workdir), "--mode=self_training", f"--out={path}",
            "--config.eval.max_new_tokens=12"]  # fmt: skip


def commands_of(run, workdir: str) -> list[tuple[str, list[str]]]:
  """Lists the commands that train a run: pseudo-captions first, if it has any.

  Args:
    run: a `Run`, or a `full.steps.FullRun`.
    workdir: of the experiment.
  """
  found, train = [], run.arguments(workdir)
  if run.arm.captions:
    path = os.path.join(run.folder(workdir), "captions.jsonl")
    found.append(("pseudo_label", run.caption_arguments(workdir, path)))
    train.append(f"--config.data.object_captions={path}")
  if run.arm.start:
    before = dataclasses.replace(run, arm=run.arm.start).folder(workdir)
    train.append(f"--config.init.checkpoint={before}")
  return [*found, ("train", train)]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """A run that is asked a suite of tasks.

  Attributes:
    run: whose weights are asked.
    suite: the tasks.
    samples: questions a task; they are the same for all runs.
  """

  run: Run
  suite: Suite
  samples: int

  @property
  def needs(self) -> tuple[Run, ...]:
    """Lists the runs that have to be finished before."""
    return (self.run,)

  @property
  def kind(self) -> str:
    """Names what takes about as long."""
    return self.suite.name

  def folder(self, workdir: str) -> str:
    """Returns its folder, below that of its run."""
    digest = _digest((self.suite, self.samples))
    name = f"{self.suite.name}-{digest}"
    return os.path.join(self.run.folder(workdir), name)

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""
    asked = [f"--tasks={','.join(self.suite.tasks)}",
             f"--samples={self.samples}",
             f"--out={self.folder(workdir)}"]  # fmt: skip
    return [("evaluate", [*self.run.arguments(workdir), *asked])]


def _digest(value) -> str:
  """Hashes dataclasses by their content."""
  content = json.dumps(value, sort_keys=True, default=dataclasses.asdict)
  return hashlib.sha256(content.encode()).hexdigest()[:8]

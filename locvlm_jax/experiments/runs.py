"""What an experiment trains and evaluates, and where that is kept.

An *arm* is one way to train; with a seed it is a *run*. A run's folder is named
after all that it depends on, so that what is finished is found again, and what
has changed is trained anew.
"""

import dataclasses
import functools
import hashlib
import json
import os


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
    tasks: that it is evaluated on.
  """

  name: str
  words: str
  fields: tuple[str, ...] = ()
  start: "Arm | None" = None
  captions: "Arm | None" = None
  tasks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Run:
  """An arm with a seed, in a micro-world.

  Attributes:
    arm: what is trained.
    seed: of training; questions are the same for all.
    config: the file, and after a colon words that are added to the arm's.
    world: that it is trained on.
    samples: questions a task.
    overrides: words such as "--config.steps=3" that every command receives.
  """

  arm: Arm
  seed: int
  config: str
  world: World
  samples: int
  overrides: tuple[str, ...] = ()

  @property
  def needs(self) -> tuple["Run", ...]:
    """Lists the runs that have to be finished before."""
    arms = (self.arm.start, self.arm.captions)
    return tuple(dataclasses.replace(self, arm=arm) for arm in arms if arm)

  @functools.cached_property
  def name(self) -> str:
    """Returns the name of its folder, with a hash of what it depends on."""
    content = json.dumps(dataclasses.asdict(self), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"{self.arm.name}-seed{self.seed}-{digest[:8]}"

  def folder(self, workdir: str) -> str:
    """Returns its folder below the workdir of the experiment."""
    return os.path.join(workdir, self.name)

  def commands(self, workdir: str) -> list[tuple[str, list[str]]]:
    """Lists (command of the package, its arguments), in order."""
    arm, folder = self.arm, self.folder(workdir)
    file, _, words = self.config.partition(":")
    shared = [
      f"--config={file}:{','.join(filter(None, (arm.words, words)))}",
      f"--config.root={os.path.join(workdir, self.world.name)}",
      f"--config.seed={self.seed}",
      *(f"--config.{field}" for field in arm.fields),
      *self.overrides,
    ]
    mine = [*shared, f"--workdir={folder}"]
    found = []
    if arm.captions:
      path = os.path.join(folder, "captions.jsonl")
      found.append(("pseudo_label", self._captions(workdir, path)))
      mine.append(f"--config.data.object_captions={path}")
    start = []
    if arm.start:
      before = dataclasses.replace(self, arm=arm.start).folder(workdir)
      start = [f"--config.init.checkpoint={before}"]
    found.append(("train", mine + start))
    if arm.tasks:
      asked = [f"--tasks={','.join(arm.tasks)}", f"--samples={self.samples}"]
      found.append(("evaluate", mine + asked))
    return found

  def _captions(self, workdir: str, path: str) -> list[str]:
    """Returns the arguments with which the other arm's model describes."""
    other = dataclasses.replace(self, arm=self.arm.captions)
    ((_, arguments),) = [c for c in other.commands(workdir) if c[0] == "train"]
    kept = [a for a in arguments if not a.startswith("--config.init.")]
    return [*kept, "--mode=self_training", f"--out={path}",
            "--config.eval.max_new_tokens=12"]  # fmt: skip

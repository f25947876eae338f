"""Frozen parameters that a checkpoint refers to instead of storing them.

What does not train is what `config.init` named, and stays where it was. The
info of a checkpoint then has, under "frozen",

  init     {field of config.init: absolute path}
  beside   the same paths from the run's own folder, for one that moves with it
  leaves   {parameter: [shape, dtype, checksum]}

so that other numbers are never taken for those that the run had.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax import errors
from locvlm_jax.weights import checksums, placement, stored

FIELDS = ("checkpoint", "llava", "vision", "llm")  # of config.init


def reference(init: Any, frozen: Mapping, workdir: str) -> dict | None:
  """Describes frozen parameters by where they came from and their checksums.

  Args:
    init: `config.init`, which gave all of them.
    frozen: {path: array}; all processes have to call.
    workdir: of the run.

  Returns:
    What a checkpoint keeps in their place; None where no file has them.

  Raises:
    NotFinite: an array holds what is not a number.
  """
  paths = {name: os.path.abspath(init[name]) for name in FIELDS if init[name]}
  if not paths or not frozen:
    return None
  beside = {name: os.path.relpath(p, workdir) for name, p in paths.items()}
  leaves = checksums.describe(frozen)
  return {"init": paths, "beside": beside, "leaves": leaves}


def located(refers: Mapping, workdir: str, given: Any = None) -> dict[str, str]:
  """Finds the directories that a checkpoint refers to.

  Args:
    refers: what `reference` returned.
    workdir: of the run, where it is now.
    given: `config.init` of the command, if it has one; read where a directory
      has moved.

  Returns:
    The fields of `config.init`.

  Raises:
    DataError: a directory has moved; names it and the field.
  """
  given = given or dict.fromkeys(FIELDS, "")
  # A run that the checkpoint refers to may refer to others in turn.
  chained = "checkpoint" in refers["init"]
  found = {name: given[name] if chained else "" for name in FIELDS}
  for name, path in refers["init"].items():
    beside = os.path.join(workdir, refers["beside"][name])
    places = [p for p in (path, beside, given[name]) if p and os.path.exists(p)]
    if not places:
      raise errors.DataError(
        f"{path}: no such directory. {workdir} took parameters that it does"
        f" not train from there ({next(iter(refers['leaves']))}) and stores"
        " none of them: name its new place with"
        f" --config.init.{name}={_flag(name)}."
      )
    found[name] = os.path.normpath(places[0])
  return found


def _flag(name: str) -> str:
  """What follows the field; `convert` has flags of its own for some."""
  flags = {"vision": "DIR (convert: --vision)", "llm": "DIR (convert: --base)"}
  return flags.get(name, "DIR")


def referred(
  refers: Mapping, opened: Mapping[str, Any], workdir: str
) -> dict[str, "Referred"]:
  """Takes what a checkpoint refers to from the parameters of its directories.

  Args:
    refers: what `reference` returned.
    opened: {path: parameter on disk} of the directories that `located` found.
    workdir: of the run, for messages.

  Raises:
    Mismatch: a directory does not have a parameter, or in another shape.
  """
  found = {}
  for path, (shape, dtype, checksum) in refers["leaves"].items():
    value = opened.get(path)
    if value is None or value.shape != tuple(shape):
      raise _changed(refers, path, workdir)
    changed = _changed(refers, path, workdir)
    found[path] = Referred(value, jnp.dtype(dtype), checksum, changed)
  return found


@dataclasses.dataclass(frozen=True)
class Referred:
  """A parameter that lies in another directory than the run's.

  Attributes:
    value: the parameter there.
    dtype: in which the run had it.
    checksum: that it had.
    changed: raised where it is another one now.
  """

  value: placement.Tensor | stored.StoredArray | Any
  dtype: np.dtype
  checksum: int
  changed: errors.Mismatch

  @property
  def shape(self) -> tuple[int, ...]:
    return self.value.shape

  def read(self) -> np.ndarray:
    """Reads all of it into host memory.

    Raises:
      Mismatch: it is not what the run had.
    """
    x = np.asarray(self.value.read()).astype(self.dtype)
    self._check(jnp.asarray(x))
    return x

  def place(self, dtype: Any, where: jax.sharding.Sharding) -> jax.Array:
    """Reads all of it, as `dtype`, onto one device or a mesh.

    Raises:
      Mismatch: it is not what the run had.
    """
    x = self.value.place(self.dtype, where)
    self._check(x)
    return x.astype(dtype)

  def _check(self, x: jax.Array) -> None:
    if int(checksums.audits({"x": x})["x"][0]) != self.checksum:
      raise self.changed


def check(refers: Mapping, leaves: Mapping[str, list], workdir: str) -> None:
  """Compares frozen parameters with those that a checkpoint refers to.

  Args:
    refers: what `reference` returned when the checkpoint was saved.
    leaves: {path: [shape, dtype, checksum]} of those that are there now.
    workdir: of the run, for messages.

  Raises:
    Mismatch: names the first that differs.
  """
  for path, row in refers["leaves"].items():
    if list(leaves.get(path, ())) != list(row):
      raise _changed(refers, path, workdir)


def _changed(refers: Mapping, path: str, workdir: str) -> errors.Mismatch:
  places = ", ".join(f"init.{k}={v}" for k, v in refers["init"].items())
  return errors.Mismatch(
    f"{workdir} has frozen parameters from {places}, and {path} there is"
    " another one now: bring back the files that the run began with."
  )

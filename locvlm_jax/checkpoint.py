"""Checkpoints: parameters, optimizer, position in the data, config.

  <directory>/<step>/params      {"trainable": {path: array}, "frozen": ...}
                     optimizer   {"step": ..., "opt_state": ...}
                     info        json: the data position, the resolved config

Each step directory is committed by a file that is written last, so that a
save cut short never counts as a checkpoint.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import options as ocp_options


@dataclasses.dataclass(frozen=True)
class Saved:
  """An array of a checkpoint, still on disk.

  Attributes:
    directory: of the item.
    keys: where in the item's tree.
    shape: of the array.
    dtype: as saved.
  """

  directory: str
  keys: tuple[str, ...]
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self) -> np.ndarray:
    """All of it, in host memory."""
    return self._restore(ocp.RestoreArgs(restore_type=np.ndarray))

  def place(self, dtype: Any, where: jax.sharding.Sharding) -> jax.Array:
    """All of it, as `dtype`; each process reads its own devices' slices."""
    return self._restore(ocp.ArrayRestoreArgs(sharding=where, dtype=dtype))

  def _restore(self, how: ocp.RestoreArgs):
    def nested(leaf):
      return functools.reduce(lambda x, key: {key: x}, self.keys[::-1], leaf)

    args = ocp.args.PyTreeRestore(
      item=nested(0), restore_args=nested(how), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      tree = reader.restore(self.directory, args=args)
    return functools.reduce(lambda x, key: x[key], self.keys, tree)


class Checkpoints:
  """Saves and restores in one directory.

  Args:
    directory: absolute path; made if absent.
    every: steps between saves; the last step is always saved.
    keep: how many of the latest steps stay.
    read_only: for restoring alone; the directory has to exist.
  """

  def __init__(self, directory: str, *, every: int = 1, keep: int = 2,
               read_only: bool = False):  # fmt: skip
    self.directory = directory
    self._every = every
    atomicity = ocp_options.AtomicityOptions(
      mode=ocp_options.AtomicityMode.COMMIT_FILE
    )
    self._manager = ocp.CheckpointManager(
      directory,
      item_handlers={
        "params": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        "info": ocp.JsonCheckpointHandler(),
      },
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=not read_only,
        atomicity_options=atomicity,
      ),
    )

  @property
  def latest(self) -> int | None:
    """The newest step on disk, None if there is none."""
    return self._manager.latest_step()

  def save(self, step: int, items: Mapping[str, Any], info: Mapping, *,
           last: bool = False) -> None:  # fmt: skip
    """Saves in the background if `step` is due.

    Args:
      step: of the state.
      items: {name: pytree of arrays}.
      info: what json can hold.
      last: save whatever the interval says, and wait until it is on disk.
    """
    if (last or step % self._every == 0) and self.latest != step:
      saves = {name: ocp.args.StandardSave(t) for name, t in items.items()}
      saves["info"] = ocp.args.JsonSave(dict(info))
      self._manager.save(step, args=ocp.args.Composite(**saves))
    if last:
      self._manager.wait_until_finished()

  def info(self, step: int) -> dict:
    """What `save` was given as `info`."""
    args = ocp.args.Composite(info=ocp.args.JsonRestore())
    return self._manager.restore(step, args=args)["info"]

  def restore(self, step: int, name: str, like: Any) -> Any:
    """The item `name` of `step`, laid out as `like`.

    Args:
      step: which checkpoint.
      name: which item.
      like: a pytree of arrays, or of `jax.ShapeDtypeStruct` with shardings.

    Raises:
      ValueError: shapes, dtypes or paths differ from what was saved.
    """
    like = jax.tree.map(_abstract, like)
    self._check(step, name, like)
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(like)})
    return self._manager.restore(step, args=args)[name]

  def open(self, step: int, name: str) -> dict[str, Saved]:
    """The arrays of the item `name` by their last key, none read yet."""
    directory = os.path.join(self.directory, str(step), name)
    tree = self.shapes(step, name, None)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    keys = [tuple(map(_name, path)) for path, _ in leaves]
    return {
      k[-1]: Saved(directory, k, tuple(leaf.shape), np.dtype(leaf.dtype))
      for k, (_, leaf) in zip(keys, leaves, strict=True)
    }

  def shapes(self, step: int, name: str, sharding) -> Any:
    """What was saved, as `jax.ShapeDtypeStruct` placed by `sharding`."""
    tree = self._manager.item_metadata(step)[name]
    tree = getattr(tree, "tree", tree)
    return jax.tree.map(
      lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding), tree
    )

  def _check(self, step: int, name: str, like: Any) -> None:
    """Orbax casts another dtype silently; it has to be an error."""
    saved = _leaves(self.shapes(step, name, None))
    for path, leaf in _leaves(like).items():
      if path not in saved:
        raise ValueError(f"{self.directory}: step {step} has no {path}.")
      found = (tuple(saved[path].shape), saved[path].dtype)
      if found != (tuple(leaf.shape), leaf.dtype):
        raise ValueError(
          f"{self.directory}: step {step}: {path} is {found}, the config "
          f"wants {(tuple(leaf.shape), leaf.dtype)}."
        )

  def close(self) -> None:
    """Waits for pending saves; raises if one failed."""
    self._manager.wait_until_finished()
    self._manager.close()


def _abstract(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _leaves(tree: Any) -> dict[str, Any]:
  """{path: leaf}; attributes, keys and indices are all named alike."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    "/".join(_name(entry) for entry in path): leaf for path, leaf in leaves
  }


def _name(entry) -> str:
  for attribute in ("key", "name", "idx"):
    if hasattr(entry, attribute):
      return str(getattr(entry, attribute))
  raise AssertionError(entry)

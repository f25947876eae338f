"""Checkpoints: parameters, optimizer, position in the data, config.

  <directory>/<step>/params      {"trainable": {path: array}, "frozen": ...},
                                 "frozen" empty where info says where they are
                     optimizer   {"step": ..., "opt_state": ...}
                     info        json: the data position, the resolved config,
                                 shape, dtype and checksum of every array
  <directory>.damaged/<step>     moved there because it could not be trusted

Each step directory is committed by a file that is written last, so that a
save cut short never counts as a checkpoint. Orbax does not notice a flipped
bit; the checksums do, on whatever mesh an array is restored.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import options as ocp_options

from locvlm_jax import errors
from locvlm_jax.weights import checksums as checksums_lib
from locvlm_jax.weights import disk_room, stored
from locvlm_jax.weights.retention import Retention

_ITEMS = ("params", "optimizer", "info")


class _Always:
  """Saves whatever it is asked to: `Checkpoints` decides."""

  def should_save(self, step, previous_steps, *, context) -> bool:
    del step, previous_steps, context
    return True


_NEWEST = Retention()


class Checkpoints:
  """Saves and restores in one directory.

  Args:
    directory: absolute path; made if absent.
    every: steps between saves; the last step and pinned ones are saved too.
    keep: which checkpoints stay.
    read_only: for restoring alone; the directory has to exist.
  """

  def __init__(
    self,
    directory: str,
    *,
    every: int = 1,
    keep: Retention = _NEWEST,
    read_only: bool = False,
  ):
    self.directory = directory
    self._every, self._keep, self._read_only = every, keep, read_only
    self._saving = False
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
        preservation_policy=keep.policy(),
        save_decision_policy=_Always(),
        best_fn=keep.goodness if keep.best else None,
        create=not read_only,
        atomicity_options=atomicity,
      ),
    )

  @property
  def latest(self) -> int | None:
    """The newest step on disk, None if there is none."""
    return self._manager.latest_step()

  @property
  def steps(self) -> list[int]:
    """All steps on disk, the oldest first."""
    return sorted(self._manager.all_steps())

  def due(self, step: int) -> bool:
    """Says whether `save` would save `step` though it is not the last."""
    return step % self._every == 0 or step in self._keep.pinned

  def save(
    self,
    step: int,
    items: Mapping[str, Any],
    info: Mapping,
    *,
    metrics: Mapping[str, float] | None = None,
    last: bool = False,
  ) -> None:
    """Saves in the background if `step` is due.

    Args:
      step: of the state.
      items: {name: pytree of arrays}.
      info: what json can hold.
      metrics: scalars that tell the best checkpoints.
      last: save whatever the interval says, and wait until it is on disk.

    Raises:
      NotFinite: an array is not finite; nothing is saved.
      SaveFailed: this save, or the one before, failed.
    """
    self.check()
    if (last or self.due(step)) and self.latest != step:
      leaves = {
        name: checksums_lib.describe(tree) for name, tree in items.items()
      }
      # As json gives it back, so that the digest is of what is on disk.
      info = json.loads(json.dumps({**info, "leaves": leaves}))
      info["sha256"] = checksums_lib.digest(info)
      saves = {name: ocp.args.StandardSave(t) for name, t in items.items()}
      saves["info"] = ocp.args.JsonSave(info)
      self._saving = True
      self._attempt(
        lambda: self._manager.save(
          step, args=ocp.args.Composite(**saves), metrics=metrics
        )
      )
    if last:
      self.wait()

  def check(self) -> None:
    """Raises SaveFailed if a save in the background has failed.

    Orbax itself would tell at the next save, or never.
    """
    if self._saving and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until the save in the background is on disk.

    Raises:
      SaveFailed: it did not get there.
    """
    self._attempt(self._manager.wait_until_finished)
    self._saving = False

  def _attempt(self, save: Callable[[], Any]) -> None:
    try:
      save()
    except Exception as e:
      free = shutil.disk_usage(self.directory).free
      raise errors.SaveFailed(
        f"{self.directory}: a checkpoint was not saved: {_first_line(e)} "
        f"({free / 2**20:.0f} MiB free). Earlier ones are intact: make room "
        "and run the same command again."
      ) from e

  def check_room(self, items: Mapping[str, Any]) -> None:
    """Refuses to start where not even one more checkpoint would fit.

    Raises:
      SaveFailed: names the directory, the bytes needed and those free.
    """
    # Those that stay, and one that is written before another is deleted.
    wanted = self._keep.latest + self._keep.best + 1 - len(self.steps)
    disk_room.check(self.directory, items, max(wanted, 1))

  def newest(
    self,
    like: Mapping[str, Any],
    accept: Callable[[Mapping], None],
    before: int | None = None,
  ) -> tuple[int, dict[str, Any]] | None:
    """Restores the newest good checkpoint; None if there is none yet.

    What is damaged is moved to `<directory>.damaged` and named.

    Args:
      like: {item: pytree of arrays or shapes, with shardings}.
      accept: given the info of a checkpoint; raises to refuse it.
      before: the newest of those before this step.

    Raises:
      NoCheckpoint: there were some, and all are damaged.
      ValueError: shapes, dtypes or paths differ from what was saved.
    """
    if not self._read_only:
      self._clear_unfinished()
    for step in reversed(self.steps):
      # Step 0 are imported weights, without an optimizer.
      if step == 0 or (before is not None and step >= before):
        continue
      info, why = self._agreed(lambda step=step: self.info(step))
      if info:
        accept(info)
        wanted = _stored_in(info, like)
        for name, tree in wanted.items():
          self._check(step, info["leaves"][name], tree)
        items, why = self._agreed(
          lambda step=step, wanted=wanted: {
            n: self.restore(step, n, t) for n, t in wanted.items()
          }
        )
      if why is None:
        return step, items
      if self._read_only:
        raise stored.Damaged(f"{self.directory}: step {step}: {why}")
      self._quarantine(str(step), why)
    if aside := self._set_aside():
      raise errors.NoCheckpoint(
        f"{self.directory}: no checkpoint is left that can be restored; "
        f"{self._aside} holds {', '.join(aside)}. Delete that folder to "
        "begin anew."
      )
    return None

  @property
  def _aside(self) -> str:
    return f"{self.directory}.damaged"

  def _set_aside(self) -> list[str]:
    names = os.listdir(self._aside) if os.path.isdir(self._aside) else ()
    return sorted(n for n in names if n != "unfinished")

  def _agreed(self, read: Callable[[], Any]) -> tuple[Any, str | None]:
    """(what was read, None), or (None, why not) if any process failed."""
    found, why = None, None
    try:
      found = read()
    except Exception as e:  # Orbax raises whatever its layers raise
      why = _first_line(e)
    if jax.process_count() > 1:
      good = multihost_utils.process_allgather(np.array(why is None))
      if not good.all():
        bad = np.flatnonzero(~good).tolist()
        return None, why or f"processes {bad} can't read it"
    return found, why

  def _quarantine(self, name: str, why: str, to: str = "") -> None:
    """Moves a step aside, and tells."""
    target = os.path.join(self._aside, to or name)
    if jax.process_index() == 0:
      os.makedirs(self._aside, exist_ok=True)
      if os.path.lexists(target):
        _remove(target)
      os.rename(os.path.join(self.directory, name), target)
      print(f"checkpoint {name}: {why}; moved to {target}", flush=True)
    _barrier(f"quarantine {name}")
    self._manager.reload()

  def _clear_unfinished(self) -> None:
    """Moves aside whatever is named as a step and is none."""
    _barrier("unfinished")
    names = [n for n in os.listdir(self.directory) if n.isdecimal()]
    finished = {str(step) for step in self.steps}
    for name in sorted(names):
      path = os.path.join(self.directory, name)
      if os.path.islink(path):
        self._quarantine(name, "is a link")
      elif name not in finished and os.path.isdir(path):
        if all(
          os.path.exists(os.path.join(path, item, stored.COMMITTED))
          for item in _ITEMS
        ):
          self._quarantine(name, f"has no {stored.COMMITTED}")
        else:
          self._quarantine(name, "is not finished", to="unfinished")

  def refers(self) -> Mapping | None:
    """Returns what the newest checkpoint says of parameters elsewhere."""
    for step in reversed(self.steps):
      with contextlib.suppress(stored.Damaged):
        return self.info(step).get("frozen")
    return None

  def info(self, step: int) -> dict:
    """Reads what `save` was given as `info`, and the checksums in `leaves`.

    Raises:
      Damaged: it is not what was saved.
    """
    path = os.path.join(self.directory, str(step), "info")
    try:
      info = ocp.JsonCheckpointHandler().restore(epath.Path(path))
    except (OSError, ValueError) as e:
      raise stored.Damaged(f"{path}: {_first_line(e)}") from None
    if not isinstance(info, dict) or info.get("sha256") != checksums_lib.digest(
      info
    ):
      raise stored.Damaged(f"{path}: is not what was saved")
    return info

  def restore(self, step: int, name: str, like: Any) -> Any:
    """Reads the item `name` of `step`, laid out as `like`.

    Args:
      step: which checkpoint.
      name: which item.
      like: a pytree of arrays, or of `jax.ShapeDtypeStruct` with shardings.

    Raises:
      ValueError: shapes, dtypes or paths differ from what was saved.
      Damaged: an array is not what was saved.
    """
    like = jax.tree.map(_abstract, like)
    leaves = self.info(step)["leaves"][name]
    self._check(step, leaves, like)
    path = epath.Path(self.directory) / str(step) / name
    # Not by the manager, where one process that fails leaves all others
    # waiting.
    tree = ocp.StandardCheckpointHandler().restore(
      path, args=ocp.args.StandardRestore(like)
    )
    for where, (checksum, _) in jax.device_get(
      checksums_lib.audits(checksums_lib.leaves(tree))
    ).items():
      if checksum != leaves[where][2]:
        raise stored.Damaged(f"{path}: {where} does not have its checksum")
    return tree

  def open(self, step: int, name: str) -> dict[str, stored.StoredArray]:
    """Opens the arrays of the item `name` by their last key; reads none."""
    directory = os.path.join(self.directory, str(step), name)
    checksums = self.info(step)["leaves"][name]
    tree = self._manager.item_metadata(step)[name]
    tree = getattr(tree, "tree", tree)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    keys = [tuple(map(checksums_lib.name, path)) for path, _ in leaves]
    return {
      k[-1]: stored.StoredArray(
        directory,
        k,
        tuple(leaf.shape),
        np.dtype(leaf.dtype),
        checksums["/".join(k)][2],
      )
      for k, (_, leaf) in zip(keys, leaves, strict=True)
    }

  def _check(self, step: int, saved: Mapping[str, Sequence], like: Any) -> None:
    """Orbax casts another dtype silently; it has to be an error."""
    for path, leaf in checksums_lib.leaves(like).items():
      if path not in saved:
        raise ValueError(f"{self.directory}: step {step} has no {path}.")
      found = (tuple(saved[path][0]), saved[path][1])
      if found != (tuple(leaf.shape), str(leaf.dtype)):
        raise ValueError(
          f"{self.directory}: step {step}: {path} is {found}, the config "
          f"wants {(tuple(leaf.shape), str(leaf.dtype))}."
        )

  def close(self) -> None:
    """Waits for pending saves; SaveFailed if one failed."""
    self.wait()
    self._manager.close()


def _stored_in(info: Mapping, like: Mapping[str, Any]) -> dict[str, Any]:
  """What a checkpoint has of `like`: perhaps no frozen parameters."""
  if "frozen" not in info:
    return dict(like)
  return {**like, "params": {**like["params"], "frozen": {}}}


def _barrier(name: str) -> None:
  """All processes have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def _remove(path: str) -> None:
  if os.path.isdir(path) and not os.path.islink(path):
    shutil.rmtree(path)
  else:
    os.remove(path)


def _first_line(e: Exception) -> str:
  text = str(e).strip() or type(e).__name__
  return f"{text.splitlines()[0][:300]}"


def _abstract(x) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

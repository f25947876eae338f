"""Arrays of a checkpoint that are still on disk."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax import errors
from locvlm_jax.weights import checksums as checksums_lib

COMMITTED = "commit_success.txt"  # what Orbax leaves in a finished checkpoint


class Damaged(errors.Fault):
  """A checkpoint does not hold what was saved; says which and why."""

  code = errors.BAD_DATA


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array of a checkpoint, still on disk.

  Attributes:
    directory: of the item.
    keys: where in the item's tree.
    shape: of the array.
    dtype: as saved.
    checksum: as saved.
  """

  directory: str
  keys: tuple[str, ...]
  shape: tuple[int, ...]
  dtype: np.dtype
  checksum: int

  def read(self) -> np.ndarray:
    """Reads all of it into host memory.

    Raises:
      Damaged: it is not what was saved.
    """
    x = self._restore()
    self._check(jnp.asarray(x))
    return x

  def place(self, dtype: Any, where: jax.sharding.Sharding) -> jax.Array:
    """Reads all of it, as `dtype`; each process its own devices' slices.

    Raises:
      Damaged: it is not what was saved.
    """
    x = self._restore(where)
    self._check(x)
    return x.astype(dtype)

  def _check(self, x: jax.Array) -> None:
    if int(checksums_lib.audits({"x": x})["x"][0]) != self.checksum:
      raise Damaged(
        f"{self.directory}: {'/'.join(self.keys)} is damaged. Resume that run:"
        " it moves the step aside and goes on from the one before."
      )

  def _restore(self, where: jax.sharding.Sharding | None = None):
    """Reads it onto devices, or with None into host memory."""
    # Late: to import it takes half a second, which a start without a
    # checkpoint does not wait for.
    import orbax.checkpoint as ocp

    how = ocp.RestoreArgs(restore_type=np.ndarray)
    if where is not None:
      how = ocp.ArrayRestoreArgs(sharding=where, dtype=self.dtype)

    def nested(leaf):
      return functools.reduce(lambda x, key: {key: x}, self.keys[::-1], leaf)

    args = ocp.args.PyTreeRestore(
      item=nested(0), restore_args=nested(how), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
      tree = reader.restore(self.directory, args=args)
    return functools.reduce(lambda x, key: x[key], self.keys, tree)

"""Whether checkpoints fit on the disk."""

import math
import shutil
from typing import Any

import jax

from locvlm_jax import errors


def check(directory: str, items: Any, wanted: int) -> None:
  """Refuses where one more checkpoint does not fit.

  Where that one fits and the others do not, a line says so: a later save would
  fail, and leave the earlier ones intact.

  Args:
    directory: that checkpoints are written to.
    items: what one stores: arrays or their shapes.
    wanted: how many more will be there at a time.

  Raises:
    SaveFailed: names the directory, the bytes needed and those free.
  """
  size = sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(items)
  )
  free = shutil.disk_usage(directory).free
  if free < size:
    raise errors.SaveFailed(
      f"{directory}: a checkpoint of {size:,} bytes does not fit into"
      f" {free:,} bytes. Make room, or take another --workdir."
    )
  if free < wanted * size:
    print(
      f"{directory}: {wanted} checkpoints of {size:,} bytes will be there at a"
      f" time, and {free // size} fit into {free:,} bytes: make room, or keep"
      " fewer (checkpoint_keep, checkpoint_best).",
      flush=True,
    )

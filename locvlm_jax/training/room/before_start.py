"""Sees to it that a run's step has room on its devices, before it begins."""

import jax

from locvlm_jax import assemble
from locvlm_jax.config import Config
from locvlm_jax.models import layers
from locvlm_jax.training.room import answer, memory
from locvlm_jax.training.room.layout import Layout


def check_estimate(config: Config, mesh: jax.sharding.Mesh, has: int) -> None:
  """Prints what a step needs by an estimate, and refuses what is far off.

  Args:
    config: of the run.
    mesh: that it runs on.
    has: bytes of a device; 0: not known, and nothing is done.

  Raises:
    ValueError: it needs a tenth more than there is; says what fits.
  """
  if not has:
    return
  kind = mesh.devices.flat[0].device_kind
  needs = memory.memory(config, Layout.of(config), kind, dict(mesh.shape))
  parts = f"{needs.total / 2**30:.1f} GiB of {has / 2**30:.1f}"
  print(f"memory of a step, by an estimate: {parts}", flush=True)
  if needs.total > 1.1 * has:
    raise ValueError(
      f"a step with rows of {memory.row_length(config, config.data.pack)}"
      f" positions needs {parts} of a device. {advice(config, mesh, has)}"
    )


def advice(config: Config, mesh: jax.sharding.Mesh, has: int) -> str:
  """Says what to set so that a step fits; see `proposals`."""
  kind = mesh.devices.flat[0].device_kind
  return answer.shortly(config, has, kind, dict(mesh.shape)) if has else ""


def is_tight(config: Config) -> bool:
  """Says whether a step is to be compiled for its longest rows first.

  Rows of usual length are known to fit (models/layers.py).
  """
  is_long = assemble.row_length(config) > layers.LONG_ROW
  return is_long or config.data.pack > 1

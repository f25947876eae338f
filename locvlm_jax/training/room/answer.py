"""Whether a config fits on a device, in words."""

import math
from collections.abc import Mapping

from locvlm_jax.config import Config, replaced
from locvlm_jax.perf import machines
from locvlm_jax.training import planning
from locvlm_jax.training.room import memory, proposals
from locvlm_jax.training.room.layout import Layout


def tell(config: Config, device: machines.Device, search: bool) -> str:
  """Answers "will it fit?" for one device, without a compiler.

  Args:
    config: all of it.
    device: that it is to run on.
    search: also says what would fit.
  """
  layout = Layout.of(config)
  needs = memory.memory(config, layout, device.name or "NVIDIA")
  lines = [needs.table(device.memory), *_hours(config, device)]
  if search:
    lines.append(advice(config, device.memory, device.name or "NVIDIA"))
  return "\n".join(lines)


def shortly(
  config: Config, has: int, kind: str, shards: Mapping[str, int]
) -> str:
  """Says the same in one line, for a run that does not fit.

  Args:
    config: of the run.
    has: bytes of a device.
    kind: of the device, as jax names it.
    shards: size of each mesh axis.
  """
  found = proposals.find(config, has, kind, shards)
  if not found:
    return "Nothing that was tried fits: use more devices or a smaller model."
  return (
    f"By an estimate this fits, in {found.needs.total / 2**30:.1f} GiB:"
    f" {found.flags()}."
  )


def advice(config: Config, has: int, kind: str) -> str:
  """Says what to set so that a step fits on one device.

  Args:
    config: all of it.
    has: bytes of a device.
    kind: of the device, as jax names it.
  """
  found = proposals.find(config, has, kind)
  if not found:
    return "nothing that was tried fits: use more devices, or a smaller model."
  changed = replaced(config, found.fields)
  device = next(
    (d for d in machines.DEVICES.values() if kind.startswith(d.name)), None
  )
  lines = [f"fits: {found.flags()}", found.needs.table(has)]
  return "\n".join(lines + (_hours(changed, device) if device else []))


def _hours(config: Config, device: machines.Device) -> list[str]:
  """Says how long the run takes at the floor, if the device is known."""
  if not math.isfinite(device.bandwidth):
    return []
  target = machines.Machine(device.name, device, (1,))
  layout = Layout({"data": 1, "fsdp": 1, "tensor": 1}, 1, config.model.remat)
  hours = 24 * planning.floor(config, target, layout, 0)["days"]
  return [
    f"  run          {hours:8.1f} hours at the floor, {2 * hours:.1f} at half"
    " of it"
  ]

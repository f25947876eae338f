"""What to set so that a training step fits on a device."""

import dataclasses
from collections.abc import Iterator, Mapping

from locvlm_jax import assemble
from locvlm_jax.config import Config, replaced
from locvlm_jax.training.room import memory
from locvlm_jax.training.room.layout import Layout

# Of a device's memory: an estimate may be a tenth off, most are 3 %.
SAFE = 0.95
# What is given up, the least first: the step's arithmetic stays; moments are
# rounded; few parameters train, and the others are rounded; rows are cut off
# sooner.
_HALF_MOMENT = {"optim.mu_dtype": "bfloat16"}
_FEW_BITS = {"optim.moments": "8bit", "optim.masters": "split"}
_NF4 = {"model.llm.base_weights": "nf4"}
_RANKS = (128, 64, 16, 8)
_LORA = ("adapter", "llm/layers/.*_lora_[ab]")
_SHORTEST = 64  # text tokens of a row
_REMAT = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Proposal:
  """Fields that make a step fit.

  Attributes:
    fields: {name: value} that differ from the config's.
    needs: the memory that one device then needs.
  """

  fields: Mapping[str, object]
  needs: memory.Memory

  def flags(self, before: str = "--config.") -> str:
    """Writes the fields as a command's flags, each with its beginning."""
    return " ".join(
      f"{before}{name}={_text(value)}" for name, value in self.fields.items()
    )


def find(
  config: Config,
  has: int,
  device_kind: str,
  shards: Mapping[str, int] | None = None,
) -> Proposal | None:
  """Finds what fits, with the least that is given up; None: nothing does.

  Args:
    config: all of it.
    has: bytes of a device.
    device_kind: as jax names it.
    shards: size of each mesh axis; None: a single device.
  """
  has = int(SAFE * has)
  for fields in _changes(config):
    changed = replaced(config, fields)
    fitting = _fitting(changed, has, device_kind, shards)
    if fitting:
      layout, needs = fitting
      own = {"model.remat": layout.remat, "accumulate": layout.accumulate}
      return Proposal(fields | own, needs)
  return None


def _changes(config: Config) -> Iterator[dict]:
  """Lists what may be given up, the least first."""
  yield {}
  moment = _HALF_MOMENT if config.optim.mu_dtype == "float32" else {}
  if moment:
    yield dict(moment)
  if config.optim.name == "adamw" and config.optim.moments == "float":
    yield dict(_FEW_BITS)
  loras = [r for r in _RANKS if not config.lora.rank or r < config.lora.rank]
  ranks = [{"lora.rank": rank, "trainable": _LORA} for rank in loras]
  if any(pattern.startswith("llm") for pattern in config.trainable):
    yield from ranks
    yield from ({**rank, **_NF4} for rank in ranks)
    ranks = [{**rank, **_NF4} for rank in ranks]
  last, text = ranks[-1] if ranks else {}, config.data.text_length // 2
  while text >= _SHORTEST:
    yield {**last, **moment, "data.text_length": text}
    text //= 2


def _fitting(config: Config, has: int, kind: str, shards):
  """Finds the layout that recomputes least; (layout, memory) or None."""
  least = Layout(assemble.mesh_sizes(config), 1, _REMAT[-1])
  if memory.state(config, least, kind, shards).total > has:
    return None  # whatever the rows are
  rows = config.batch_size // config.data.pack
  of = dict(shards or {})
  share = of.get("data", 1) * of.get("fsdp", 1)
  counts = [
    n for n in range(1, rows + 1)
    if rows % n == 0 and not (rows // n) % share
  ]  # fmt: skip
  for remat in _REMAT:
    most = Layout(assemble.mesh_sizes(config), counts[-1], remat)
    if memory.memory(config, most, kind, shards).total > has:
      continue  # nor do more rows at a time
    for count in counts:
      layout = dataclasses.replace(most, accumulate=count)
      needs = memory.memory(config, layout, kind, shards)
      if needs.total <= has:
        return layout, needs
  return None


def _text(value: object) -> str:
  is_list = isinstance(value, tuple | list)
  return f"'{','.join(value)}'" if is_list else str(value)

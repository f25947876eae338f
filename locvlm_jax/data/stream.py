"""The stream of training batches.

Position i of the global stream is one example: the sources are mixed by
weight, each shuffled anew every epoch, or by epoch, all shuffled together, and
example i draws its randomness from (seed, i). The order within a source does
not depend on the others: of two runs with one seed that mix them otherwise, one
sees the same records of it as the other, and then perhaps more. A host takes a
contiguous block of each global batch:

  step              0               1
  example     0 1 2 3 4 5 6 7 | 8 9 ...
  of 2 hosts  0 0 0 0 1 1 1 1 | 0 0 ...

so neither the number of hosts nor that of threads changes what is trained on,
and the position is one integer: the step. With a window, the examples of that
many steps are sorted by length among them, alike on all hosts.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from locvlm_jax.data import packing
from locvlm_jax.data.records import Batch, Record, Records
from locvlm_jax.data.rows import RowMaker

MIX_BY = ("weight", "epoch")
# What is added to the seed for the order of a source, and 0 for others. It must
# not depend on what else is mixed.
_SEEDS = {"conversations": 1, "tracks": 1, "text": 2, "spatial": 3}


@dataclasses.dataclass(frozen=True)
class StreamSpec:
  """Which examples are in the stream, in which order, and how they are batched.

  Attributes:
    mixture: the weight of each source.
    batch_size: examples in the global batch.
    seed: of the order and of the wording.
    mix_by: what a weight means. "weight": the source's share of the examples,
      whatever its size; "epoch": how often an epoch has each of its records, a
      whole number.
    window: steps whose examples are sorted by length together; 0: none, and
      all rows have the greatest length.
    pack: examples of a row; above 1 needs a window, which puts long ones and
      short ones together.
    threads: that read; 0: the caller's own.

  Raises:
    ValueError: an unknown `mix_by`, or a `pack` without a window or that does
      not divide the batch.
  """

  mixture: Mapping[str, float]
  batch_size: int
  seed: int
  mix_by: str = "weight"
  window: int = 0
  pack: int = 1
  threads: int = 2

  @classmethod
  def of(cls, data: Any, batch_size: int, seed: int) -> "StreamSpec":
    """Reads how a run trains from `config.data`."""
    return cls(
      mixture=dict(data.mixture),
      batch_size=batch_size,
      seed=seed,
      mix_by=data.mix_by,
      window=data.sort_window,
      pack=data.pack,
      threads=data.threads,
    )

  def __post_init__(self):
    if self.mix_by not in MIX_BY:
      raise ValueError(f"data.mix_by={self.mix_by!r}: not one of {MIX_BY}.")
    if self.pack > 1 and not self.window:
      raise ValueError(
        f"data.pack={self.pack}: needs data.sort_window, such as 8."
      )


def train_iterator(
  sources: Mapping[str, Records],
  make_row: RowMaker,
  spec: StreamSpec,
  *,
  host: int = 0,
  num_hosts: int = 1,
  start: int = 0,
) -> Iterator[Batch]:
  """Makes the endless batches of this host's rows.

  Args:
    sources: records by the source's name; see `catalog.open_sources`.
    make_row: turns a record into a row; counts what it skips.
    spec: which examples, in which order.
    host: index of this host.
    num_hosts: hosts that share each batch; it has to divide its rows.
    start: the first step, from 0 on.

  Raises:
    ValueError: the hosts or `spec.pack` do not divide the batch, or a weight
      is not what `spec.mix_by` takes.
  """
  _check_divides(spec, num_hosts)
  records = _mixed(sources, spec)
  examples = records.map_with_index(_MakeExample(make_row, spec.seed))
  plan = _plan(records, make_row, spec)
  own = _HostBlock(examples, plan, spec.batch_size, host, num_hosts, start)
  batches = own.batch(
    spec.batch_size // num_hosts,
    drop_remainder=True,
    batch_fn=functools.partial(packing.packed, pack=spec.pack),
  ).map_with_index(
    lambda i, batch: packing.cropped(batch, plan.length(start + i))
  )
  options = grain.ReadOptions(
    num_threads=spec.threads, prefetch_buffer_size=4 * spec.threads
  )
  return iter(batches.to_iter_dataset(options))


def record_ids(
  sources: Mapping[str, Records], spec: StreamSpec, examples: Sequence[int]
) -> list[str]:
  """Names the record behind each example of the stream, by its image or id."""
  records = _mixed(sources, spec)
  found = [records[int(i)] for i in examples]
  return [record.image or record.id for record in found]


def _check_divides(spec: StreamSpec, num_hosts: int) -> None:
  if spec.batch_size % (spec.pack * num_hosts):
    raise ValueError(
      f"data.pack={spec.pack}: with {num_hosts} hosts it has to divide"
      f" batch_size={spec.batch_size}."
    )


# ------------------------------------------------------- the order of examples


def _mixed(sources, spec: StreamSpec) -> grain.MapDataset:
  """Orders the records of all sources in one endless stream."""
  if spec.mix_by == "epoch":
    return _in_epochs(sources, spec)
  parts = [
    grain.MapDataset.source(source)
    .seed(spec.seed + _SEEDS.get(name, 0))
    .shuffle()
    .repeat()
    for name, source in sources.items()
  ]
  if len(parts) == 1:
    return parts[0]
  weights = [float(spec.mixture[name]) for name in sources]
  return grain.MapDataset.mix(parts, [w / sum(weights) for w in weights])


def _in_epochs(sources, spec: StreamSpec) -> grain.MapDataset:
  """Shows every record as often as its weight says, then all over again."""
  parts = []
  for name, source in sources.items():
    times = spec.mixture[name]
    if times != int(times):
      raise ValueError(
        f"data.mixture.{name}={times}: with data.mix_by=epoch it says how often"
        " an epoch has each record; use a whole number."
      )
    parts.append(grain.MapDataset.source(source).repeat(int(times)))
  epoch = grain.MapDataset.concatenate(parts)
  return epoch.seed(spec.seed).shuffle().repeat(None)


def _plan(
  records: grain.MapDataset, make_row: RowMaker, spec: StreamSpec
) -> packing.Plan:
  """Says which examples are in the batch of each step."""
  longest = make_row.spec.length
  if not spec.window:
    return packing.InOrder(spec.batch_size, longest)
  lengths = records.map_with_index(_MeasureExample(make_row, spec.seed))
  return packing.ByLength(
    lengths.__getitem__,
    spec.batch_size,
    window=spec.window,
    pack=spec.pack,
    longest=spec.pack * longest,
    seed=spec.seed,
  )


@dataclasses.dataclass
class _MakeExample:
  """Makes the row of example i of the global stream."""

  make_row: RowMaker
  seed: int

  def __call__(self, index: int, record: Record) -> dict[str, np.ndarray]:
    row = self.make_row(record, np.random.default_rng((self.seed, index)))
    return {**row, "example": np.int32(index % (1 << 31))}


@dataclasses.dataclass
class _MeasureExample:
  """Tells the least length of a row for example i, opening no image."""

  make_row: RowMaker
  seed: int

  def __call__(self, index: int, record: Record) -> int:
    rng = np.random.default_rng((self.seed, index))
    return self.make_row.min_length(record, rng)


class _HostBlock(grain.MapDataset):
  """This host's contiguous rows of each global batch, from `start` on."""

  def __init__(
    self,
    parent: grain.MapDataset,
    plan: packing.Plan,
    batch_size: int,
    host: int,
    num_hosts: int,
    start: int,
  ):
    super().__init__(parent)
    assert batch_size % num_hosts == 0, (batch_size, num_hosts)
    self._plan, self._local = plan, batch_size // num_hosts
    self._host, self._start = host, start

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, self._local)
    examples = self._plan.examples(self._start + step)
    return self._parent[examples[self._host * self._local + row]]

  def __str__(self) -> str:
    return "HostBlock"

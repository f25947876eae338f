"""The stream of training batches.

Position i of the global stream is one example: the sources are mixed by
weight, each shuffled anew every epoch, or by epoch, all shuffled together, and
example i draws its randomness from (seed, i). A host takes a contiguous block
of each global batch:

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
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data.records import Batch, Record, Source

MIX_BY = ("weight", "epoch")


class _HostBlock(grain.MapDataset):
  """This host's contiguous rows of each global batch, from `start` on."""

  def __init__(
    self, parent, plan, batch_size: int, host: int, num_hosts: int, start: int
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


@dataclasses.dataclass
class _Examples:
  """Example i of the global stream, as a row."""

  make_row: rows_lib.RowMaker
  seed: int

  def __call__(self, index: int, record: Record) -> dict:
    rng = np.random.default_rng((self.seed, index))
    row = self.make_row(record, rng)
    return {**row, "example": np.int32(index % (1 << 31))}


@dataclasses.dataclass
class _Needs:
  """The positions that example i needs."""

  make_row: rows_lib.RowMaker
  seed: int

  def __call__(self, index: int, record: Record) -> int:
    return self.make_row.needs(
      record, np.random.default_rng((self.seed, index))
    )


def _plan(records, make_row, batch_size, window: int, pack: int, seed: int):
  longest = make_row.spec.length
  if not window:
    return packing.InOrder(batch_size, longest)
  needs = records.map_with_index(_Needs(make_row, seed))
  return packing.ByLength(needs, batch_size, window, pack, pack * longest, seed)


def _mixed(sources, mixture, mix_by, seed) -> grain.MapDataset:
  if mix_by == "epoch":
    return _epochs(sources, mixture, seed)
  parts = [
    grain.MapDataset.source(source).seed(seed + i).shuffle().repeat(None)
    for i, source in enumerate(sources.values())
  ]
  if len(parts) == 1:
    return parts[0]
  weights = [float(mixture[name]) for name in sources]
  total = sum(weights)
  return grain.MapDataset.mix(parts, [w / total for w in weights])


def _epochs(sources, mixture, seed) -> grain.MapDataset:
  """Every record as often as its source's weight says, then all over again."""
  parts = []
  for name, source in sources.items():
    times = mixture[name]
    if times != int(times):
      raise ValueError(
        f"data.mixture.{name}={times}: with data.mix_by=epoch it says how often"
        " an epoch has each record; use a whole number."
      )
    parts.append(grain.MapDataset.source(source).repeat(int(times)))
  every = grain.MapDataset.concatenate(parts)
  return every.seed(seed).shuffle().repeat(None)


def record_ids(
  sources: Mapping[str, Source],
  mixture: Any,
  mix_by: str,
  seed: int,
  examples: Sequence[int],
) -> list[str]:
  """The record behind each example of the stream, by its image or id."""
  records = _mixed(sources, mixture, mix_by, seed)
  found = [records[int(i)] for i in examples]
  return [record.image or record.id for record in found]


def train_iterator(
  sources: Mapping[str, Source],
  mixture: Any,
  make_row: rows_lib.RowMaker,
  *,
  batch_size: int,
  seed: int,
  host: int = 0,
  num_hosts: int = 1,
  start: int = 0,
  threads: int = 2,
  window: int = 0,
  mix_by: str = "weight",
  pack: int = 1,
) -> Iterator[Batch]:
  """Endless batches of this host's rows, from step `start` on.

  Args:
    sources: by name, as `open_sources` gives them.
    mixture: weight of each source.
    make_row: record -> row; keeps the count of what was skipped.
    batch_size: examples in the global batch; `num_hosts` has to divide its
      rows.
    seed: of the order and of the wording.
    host: index of this host.
    num_hosts: hosts that share each batch.
    start: the first step.
    threads: reader threads; 0 reads in the caller's.
    window: steps whose examples are sorted by length together; 0: none, and
      all rows have the length of `make_row.spec`.
    mix_by: "weight": of each source's share of the rows, whatever its size;
      "epoch": how often an epoch has each of its records, a whole number.

    pack: examples of a row; above 1 needs a window, which puts long ones and
      short ones together.

  Raises:
    ValueError: an unknown `mix_by`, a weight that it does not take, or a
      `pack` without a window or that does not divide the batch.
  """
  if mix_by not in MIX_BY:
    raise ValueError(f"data.mix_by={mix_by!r}: not one of {MIX_BY}.")
  if pack > 1 and not window:
    raise ValueError(f"data.pack={pack}: needs data.sort_window, such as 8.")
  if batch_size % (pack * num_hosts):
    raise ValueError(
      f"data.pack={pack}: with {num_hosts} hosts it has to divide batch_size="
      f"{batch_size}."
    )
  records = _mixed(sources, mixture, mix_by, seed)
  examples = records.map_with_index(_Examples(make_row, seed))
  plan = _plan(records, make_row, batch_size, window, pack, seed)
  block = _HostBlock(examples, plan, batch_size, host, num_hosts, start)
  rows = block.batch(
    batch_size // num_hosts,
    drop_remainder=True,
    batch_fn=functools.partial(packing.packed, pack=pack),
  )
  rows = rows.map_with_index(
    lambda i, b: packing.cropped(b, plan.length(start + i))
  )
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=4 * threads
  )
  return iter(rows.to_iter_dataset(options))

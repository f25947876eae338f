"""The stream of training batches.

Position i of the global stream is one example: the sources are mixed by
weight, each shuffled anew every epoch, and example i draws its randomness from
(seed, i). A host takes a contiguous block of each global batch:

  step              0               1
  example     0 1 2 3 4 5 6 7 | 8 9 ...
  of 2 hosts  0 0 0 0 1 1 1 1 | 0 0 ...

so neither the number of hosts nor that of threads changes what is trained on,
and the position is one integer: the step.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping

import grain
import numpy as np

from locvlm_jax.data import batch, coco, conversations, preprocess

# Name in `config.data.mixture` -> (class, field with its images' folder). The
# class reads `config.data.<name>`.
SOURCES = {
  "instances": (coco.Instances, "images"),
  "novel": (coco.Instances, "images"),
  "captions": (coco.Captions, "images"),
  "conversations": (conversations.Conversations, "conversation_images"),
  "text": (conversations.Conversations, "conversation_images"),
}


def open_source(name: str, data: Mapping) -> batch.Source:
  """The source `name` of `config.data` or `config.eval`."""
  source, images = SOURCES[name]
  if not data[name]:
    raise batch.DataError(f"data.{name}: no path. Set --config.data.{name}.")
  return source(data[name], data[images])


def open_sources(data: Mapping) -> dict[str, batch.Source]:
  """Opens each source that `data.mixture` gives a positive weight.

  Args:
    data: `config.data`.
  """
  names = [n for n, weight in data["mixture"].items() if weight > 0]
  if not names:
    raise batch.DataError("data.mixture: no source has a positive weight.")
  sources = {n: open_source(n, data) for n in names}
  if data["per_object"] and "instances" in sources:
    sources["instances"] = sources["instances"].per_object()
  return sources


class _HostBlock(grain.MapDataset):
  """This host's contiguous rows of each global batch, from `start` on."""

  def __init__(self, parent, batch_size: int, host: int, num_hosts: int,
               start: int):  # fmt: skip
    super().__init__(parent)
    assert batch_size % num_hosts == 0, (batch_size, num_hosts)
    self._global, self._local = batch_size, batch_size // num_hosts
    self._host, self._start = host, start

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    step, row = divmod(index, self._local)
    first = (self._start + step) * self._global + self._host * self._local
    return self._parent[first + row]

  def __str__(self) -> str:
    return "HostBlock"


@dataclasses.dataclass
class _Examples:
  """Example i of the global stream, as a row."""

  make_row: preprocess.RowMaker
  seed: int

  def __call__(self, index: int, record: batch.Record) -> dict:
    rng = np.random.default_rng((self.seed, index))
    row = self.make_row(record, rng)
    return {**row, "example": np.int32(index % (1 << 31))}


def _mixed(sources, mixture, seed) -> grain.MapDataset:
  parts = [
    grain.MapDataset.source(source).seed(seed + i).shuffle().repeat(None)
    for i, source in enumerate(sources.values())
  ]
  if len(parts) == 1:
    return parts[0]
  weights = [float(mixture[name]) for name in sources]
  total = sum(weights)
  return grain.MapDataset.mix(parts, [w / total for w in weights])


def _stack(rows) -> batch.Batch:
  return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def train_iterator(
  sources: Mapping[str, batch.Source],
  mixture: Mapping[str, float],
  make_row: preprocess.RowMaker,
  *,
  batch_size: int,
  seed: int,
  host: int = 0,
  num_hosts: int = 1,
  start: int = 0,
  threads: int = 2,
) -> Iterator[batch.Batch]:
  """Endless batches of this host's rows, from step `start` on.

  Args:
    sources: by name, as `open_sources` gives them.
    mixture: weight of each source.
    make_row: record -> row; keeps the count of what was skipped.
    batch_size: rows in the global batch; `num_hosts` has to divide it.
    seed: of the order and of the wording.
    host: index of this host.
    num_hosts: hosts that share each batch.
    start: the first step.
    threads: reader threads; 0 reads in the caller's.
  """
  examples = _mixed(sources, mixture, seed).map_with_index(
    _Examples(make_row, seed)
  )
  block = _HostBlock(examples, batch_size, host, num_hosts, start)
  rows = block.batch(
    batch_size // num_hosts, drop_remainder=True, batch_fn=_stack
  )
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=4 * threads
  )
  return iter(rows.to_iter_dataset(options))

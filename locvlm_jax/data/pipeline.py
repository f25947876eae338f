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
import hashlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

from locvlm_jax.data import (
  ade20k,
  batch,
  coco,
  conversations,
  leakage,
  object_captions,
  object_lists,
  preprocess,
  questions,
  refer,
  tracks,
)

# Of the length of a row: few lengths, so that few programs are compiled.
LENGTH_MULTIPLE = 64

MIX_BY = ("weight", "epoch")

# Name in `config.data.mixture` -> (class, field with its images' folder). The
# class reads `config.data.<name>`.
SOURCES = {
  "instances": (coco.Instances, "images"),
  "novel": (coco.Instances, "images"),
  "captions": (coco.Captions, "images"),
  "refer": (refer.Refer, "images"),
  "conversations": (conversations.Conversations, "conversation_images"),
  "text": (conversations.Conversations, "conversation_images"),
  "video_conversations": (conversations.Videos, "videos"),
  "tracks": (tracks.Tracks, "videos"),
}
VIDEO_SOURCES = ("video_conversations", "tracks")

# Name in `config.eval` -> (what reads it, the fields with its paths).
BENCHMARKS = {
  "hal_ade": (ade20k.Ade20k, ("questions",)),
  "hal_act": (object_lists.ObjectLists, ("questions", "media")),
  **{
    name: (functools.partial(questions.Questions, name),
           ("questions", "answers", "media"))
    for name in questions.READERS
  },
  **{
    f"{name}_{split}": (
      functools.partial(refer.Regions, split=split), ("questions", "media"),
    )
    for name, splits in refer.SPLITS.items()
    for split in splits
  },
}  # fmt: skip


def open_source(name: str, data: Mapping) -> batch.Source:
  """The source `name` of `config.data` or `config.eval`."""
  if name in BENCHMARKS:
    return _open_benchmark(name, data[name])
  source, images = SOURCES[name]
  if not data[name]:
    raise batch.DataError(f"data.{name}: no path. Set --config.data.{name}.")
  return source(data[name], data[images])


def _open_benchmark(name: str, files: Mapping):
  source, fields = BENCHMARKS[name]
  for field in fields:
    if not files[field] and field != "answers":
      full = f"eval.{name}.{field}"
      raise batch.DataError(f"{full}: no path. Set --config.{full}.")
  return source(*(files[field] for field in fields))


def benchmark_files(evaluation: Mapping) -> list[str]:
  """The files of questions that `config.eval` names; folders hold no COCO."""
  paths = [evaluation[name]["questions"] for name in BENCHMARKS]
  return [p for p in paths if p and not os.path.isdir(p)]


def open_sources(data: Mapping) -> dict[str, batch.Source]:
  """Opens each source that `data.mixture` gives a positive weight.

  Records about images of the files in `data.exclude` are left out.

  Args:
    data: `config.data`.

  Raises:
    DataError: a file is missing or malformed, or nothing is left.
  """
  names = [n for n, weight in data["mixture"].items() if weight > 0]
  if not names:
    raise batch.DataError("data.mixture: no source has a positive weight.")
  sources = {n: open_source(n, data) for n in names}
  if data["object_captions"] and "instances" in sources:
    sources["instances"] = object_captions.captioned(
      sources["instances"], data["object_captions"]
    )
  if data["per_object"] and "instances" in sources:
    sources["instances"] = sources["instances"].per_object()
  return leakage.without(sources, data["exclude"])


def fingerprint(data: Mapping) -> dict[str, str]:
  """The hash of each annotation file that `config.data` trains on.

  A path that is a directory counts by the names and sizes of its files.
  """
  names = [n for n, weight in data["mixture"].items() if weight > 0]
  return {n: _hash(data[n]) for n in names if data[n]}


def _hash(path: str) -> str:
  if os.path.isdir(path):
    names = sorted(os.scandir(path), key=lambda entry: entry.name)
    listing = [(entry.name, entry.stat().st_size) for entry in names]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()[:16]


class _InOrder:
  """Step after step takes the next examples, in rows of one length."""

  def __init__(self, batch_size: int, length: int):
    self._batch, self._length = batch_size, length

  def examples(self, step: int) -> Sequence[int]:
    """The example of each row of the global batch."""
    return range(step * self._batch, (step + 1) * self._batch)

  def length(self, step: int) -> int:
    """The positions of its rows."""
    del step
    return self._length


class _ByLength:
  """The examples of some steps, sorted by length, so that little is padding.

    needed positions, 3 steps of 2        5 9 | 2 7 | 3 8
    sorted, steps in random order         8 9 | 2 3 | 5 7
    length of the rows, multiples of 4     12    4     8

  With two to a row, long ones go with short ones:

    packed, a row a step                  2+9 | 5+7 | 3+8
    length of the rows                     12    12    12

  Args:
    needs: example -> positions that it needs.
    batch_size: examples of the global batch.
    window: steps whose examples are sorted together.
    pack: examples of a row.
    longest: the length of a row at most.
    seed: of the order of the steps.
  """

  def __init__(self, needs, batch_size: int, window: int, pack: int,
               longest: int, seed: int):  # fmt: skip
    self._needs, self._batch, self._window = needs, batch_size, window
    self._pack, self._longest, self._seed = pack, longest, seed
    self._lock = threading.Lock()
    self._planned = functools.lru_cache(4)(self._plan)

  def examples(self, step: int) -> Sequence[int]:
    """The example of each row of the global batch."""
    return self._at(step)[0]

  def length(self, step: int) -> int:
    """The positions of its rows."""
    return self._at(step)[1]

  def _at(self, step: int) -> tuple[list[int], int]:
    number, place = divmod(step, self._window)
    with self._lock:  # threads wait for the one that plans
      return self._planned(number)[place]

  def _plan(self, number: int) -> list[tuple[list[int], int]]:
    first = number * self._window * self._batch
    examples = first + np.arange(self._window * self._batch)
    needs = np.array([self._needs[int(i)] for i in examples])
    parts = np.argsort(needs, kind="stable").reshape(self._pack, -1)
    parts[1::2] = parts[1::2, ::-1]
    rows = parts.T
    order = np.argsort(needs[rows].sum(1), kind="stable")
    steps = rows[order].reshape(self._window, -1, self._pack)
    rng = np.random.default_rng((self._seed, number))
    return [
      (examples[rows].ravel().tolist(), self._rounded(needs[rows].sum(1).max()))
      for rows in steps[rng.permutation(self._window)]
    ]

  def _rounded(self, length) -> int:
    return min(int(length + -length % LENGTH_MULTIPLE), self._longest)


class _HostBlock(grain.MapDataset):
  """This host's contiguous rows of each global batch, from `start` on."""

  def __init__(self, parent, plan, batch_size: int, host: int, num_hosts: int,
               start: int):  # fmt: skip
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

  make_row: preprocess.RowMaker
  seed: int

  def __call__(self, index: int, record: batch.Record) -> dict:
    rng = np.random.default_rng((self.seed, index))
    row = self.make_row(record, rng)
    return {**row, "example": np.int32(index % (1 << 31))}


@dataclasses.dataclass
class _Needs:
  """The positions that example i needs."""

  make_row: preprocess.RowMaker
  seed: int

  def __call__(self, index: int, record: batch.Record) -> int:
    return self.make_row.needs(
      record, np.random.default_rng((self.seed, index))
    )


def _plan(records, make_row, batch_size, window: int, pack: int, seed: int):
  longest = make_row.spec.length
  if not window:
    return _InOrder(batch_size, longest)
  needs = records.map_with_index(_Needs(make_row, seed))
  return _ByLength(needs, batch_size, window, pack, pack * longest, seed)


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
  sources: Mapping[str, batch.Source],
  mixture: Mapping[str, float],
  mix_by: str,
  seed: int,
  examples: Sequence[int],
) -> list[str]:
  """The record behind each example of the stream, by its image or id."""
  records = _mixed(sources, mixture, mix_by, seed)
  found = [records[int(i)] for i in examples]
  return [record.image or record.id for record in found]


def _stack(rows) -> batch.Batch:
  return {k: np.stack([row[k] for row in rows]) for k in rows[0]}


def _packed(rows, pack: int) -> batch.Batch:
  """Batch whose rows hold `pack` of these, one after the other."""
  if pack == 1:
    return _stack(rows)
  return _stack(
    [_joined(rows[i : i + pack]) for i in range(0, len(rows), pack)]
  )


def _joined(rows) -> dict:
  """One row of several: all padding moves to its end.

  tokens  a a . .   b b b .      ->   a a b b b . . .
  segments                            1 1 2 2 2 0 0 0
  """
  size = len(rows[0]["tokens"])
  real = np.concatenate([np.arange(size) < row["lengths"] for row in rows])
  order = np.argsort(~real, kind="stable")
  number = np.repeat(np.arange(1, len(rows) + 1, dtype=np.int32), size)

  def joined(name):
    return np.concatenate([row[name] for row in rows])

  # The first token of a conversation has nothing to be predicted from.
  targets = joined("loss_mask") & (np.arange(len(order)) % size > 0)
  media = {k: joined(k) for k in ("images", "frames") if k in rows[0]}
  return media | {
    "tokens": joined("tokens")[order],
    "loss_mask": targets[order], "lengths": np.int32(real.sum()),
    "segments": (number * real)[order],
    "valid": np.array([row["valid"] for row in rows]),
    "example": np.array([row["example"] for row in rows]),
  }  # fmt: skip


def _cropped(b: batch.Batch, length: int) -> batch.Batch:
  """Without the padding that no row of the global batch needs."""
  positions = {"tokens", "loss_mask", "segments"} & b.keys()
  return b | {k: b[k][:, :length] for k in positions}


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
  window: int = 0,
  mix_by: str = "weight",
  pack: int = 1,
) -> Iterator[batch.Batch]:
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
    batch_size // num_hosts, drop_remainder=True,
    batch_fn=functools.partial(_packed, pack=pack),
  )  # fmt: skip
  rows = rows.map_with_index(lambda i, b: _cropped(b, plan.length(start + i)))
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=4 * threads
  )
  return iter(rows.to_iter_dataset(options))

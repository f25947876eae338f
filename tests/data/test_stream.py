"""The stream of batches: alike on all hosts, and mixed as it says."""

import numpy as np
import pytest
from row_specs import row_spec

from configs import base
from locvlm_jax.data import rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.records import Record
from locvlm_jax.text import formats


def _stream(world, text, threads=2, **place):
  return stream_lib.train_iterator(
    {"instances": world.source()},
    rows.RowMaker(row_spec(text)),
    stream_lib.StreamSpec({"instances": 1.0}, 8, seed=3, threads=threads),
    **place,
  )


def _steps(iterator, num):
  return [next(iterator) for _ in range(num)]


def _equal(a, b):
  return all(
    np.array_equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x
  )


def test_stream_is_the_same_for_any_hosts_threads_and_start(world, text):
  whole = _steps(_stream(world, text, threads=0), 4)
  assert _equal(whole, _steps(_stream(world, text, threads=3), 4))
  assert _equal(whole[2:], _steps(_stream(world, text, start=2), 2))
  for num_hosts in (2, 4):
    parts = [
      _steps(_stream(world, text, host=h, num_hosts=num_hosts), 4)
      for h in range(num_hosts)
    ]
    joined = [
      {k: np.concatenate([p[s][k] for p in parts]) for k in whole[0]}
      for s in range(4)
    ]
    assert _equal(whole, joined)


def test_stream_shows_each_record_once_an_epoch(world, text):
  batches = _steps(_stream(world, text, threads=0), 3)  # 24 rows: 4 epochs of 6
  red = np.concatenate([b["images"][:, 0, 0, 0, 0] for b in batches])
  for epoch in np.split(np.round(red / 40).astype(int), 4):
    assert sorted(epoch) == list(range(6))


class _Words:
  """Records without an image, told apart by their words."""

  def __init__(self, *words):
    self._words = words

  def __len__(self):
    return len(self._words)

  def __getitem__(self, index):
    return Record(str(index), turns=((self._words[index], "cup"),))


def test_mixture_follows_the_weights(world, text):
  stream = stream_lib.train_iterator(
    {"instances": world.source(), "text": _Words(*["a red ball"] * 5)},
    rows.RowMaker(row_spec(text)),
    stream_lib.StreamSpec(
      {"instances": 3.0, "text": 1.0}, batch_size=40, seed=0, threads=0
    ),
  )
  tokens = next(stream)["tokens"]
  assert (~(tokens == formats.IMAGE_TOKEN).any(1)).sum() == 10


def test_an_epoch_has_each_record_as_often_as_its_weight_says(text):
  spec = stream_lib.StreamSpec(
    {"a": 2.0, "b": 1.0}, batch_size=7, seed=0, threads=0, mix_by="epoch"
  )

  def epochs(num):
    stream = stream_lib.train_iterator(
      {"a": _Words("red", "ball"), "b": _Words("cup", "dog", "a")},
      rows.RowMaker(row_spec(text)),
      spec,
    )
    return [tuple(map(tuple, next(stream)["tokens"])) for _ in range(num)]

  first, second, third = epochs(3)
  assert sorted(first) == sorted(second) == sorted(third)
  assert len({first, second, third}) == 3  # in another order each time
  counts = sorted(first.count(row) for row in set(first))
  assert counts == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mix_by": "step"}, "mix_by='step'"),
    ({"mix_by": "epoch", "mixture": {"a": 0.5}}, "mixture.a=0.5"),
  ],
)
def test_wrong_mixing_is_named(text, changes, message):
  fields = {"mixture": {"a": 1.0}, "batch_size": 1, "seed": 0} | changes
  with pytest.raises(ValueError, match=message):
    stream_lib.train_iterator(
      {"a": _Words("red")},
      rows.RowMaker(row_spec(text)),
      stream_lib.StreamSpec(**fields),
    )


def test_examples_are_named_by_the_image_or_id_of_their_record(world, text):
  spec = stream_lib.StreamSpec({"instances": 1.0, "text": 1.0}, 8, seed=3)
  sources = {"instances": world.source(), "text": _Words("red", "ball")}
  names = stream_lib.record_ids(sources, spec, range(8))
  images = {str(world.folder / f"images/{i:012d}.jpg") for i in range(6)}
  assert set(names) & images and set(names) & {"0", "1"}
  assert set(names) <= images | {"0", "1"}


def test_the_spec_of_a_run_is_read_from_its_config():
  data = base.get_config().data
  data.update(mix_by="epoch", sort_window=4, pack=2, threads=7)
  spec = stream_lib.StreamSpec.of(data, batch_size=16, seed=5)
  assert spec.mixture["instances"] == 1.0 and spec.mix_by == "epoch"
  assert (spec.batch_size, spec.seed, spec.threads) == (16, 5, 7)
  assert (spec.window, spec.pack) == (4, 2)

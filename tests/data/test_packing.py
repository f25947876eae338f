"""Rows sorted by length and packed: the same examples, less padding."""

import functools
import json

import numpy as np
import pytest
from row_specs import row_spec

from locvlm_jax.data import packing
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.data.sources import conversations


def _stream(world, text, window=4, pack=1, threads=0, **place):
  """Images and texts of many lengths, four to a batch."""
  return stream_lib.train_iterator(
    {"instances": world.source(), "text": _texts(world)},
    rows_lib.RowMaker(row_spec(text, text_length=200, num_visual=4)),
    stream_lib.StreamSpec(
      {"instances": 1.0, "text": 1.0},
      batch_size=4,
      seed=3,
      window=window,
      pack=pack,
      threads=threads,
    ),
    **place,
  )


def _texts(world):
  path = world.folder / "text.json"
  rows = [
    {
      "conversations": [
        {"from": "human", "value": "where " * n},
        {"from": "gpt", "value": "there " * n},
      ]
    }
    for n in range(1, 31)
  ]
  path.write_text(json.dumps(rows))
  return conversations.Conversations(str(path), "")


def _steps(stream, num):
  return [next(stream) for _ in range(num)]


def test_sorted_rows_are_the_same_examples_with_less_padding(world, text):
  steps = _steps(_stream(world, text), 8)
  for first in (0, 4):  # each window has the examples that it would have
    window = np.concatenate([s["example"] for s in steps[first : first + 4]])
    assert sorted(window) == list(range(first * 4, first * 4 + 16))
  lengths = {s["tokens"].shape[1] for s in steps}
  assert len(lengths) > 1 and max(lengths) <= 204
  assert all(n % packing.LENGTH_MULTIPLE == 0 or n == 204 for n in lengths)
  for step in steps:
    n = step["tokens"].shape[1]
    assert step["loss_mask"].shape == (4, n) and step["loss_mask"].any(1).all()
    assert step["lengths"].max() > n - packing.LENGTH_MULTIPLE - 4


def test_packed_rows_are_the_same_examples_one_after_another(world, text):
  def rows(**options):
    steps = _steps(_stream(world, text, **options), 4)
    return {
      int(example): (s, i)
      for s in steps
      for i, example in enumerate(s["example"].ravel())
    }

  single, packed = rows(), rows(pack=2)
  assert single.keys() == packed.keys()
  for example, (step, place) in packed.items():
    row, part = divmod(place, 2)
    alone, at = single[example]
    here = step["segments"][row] == part + 1
    n = alone["lengths"][at]
    for name in ("tokens", "loss_mask"):
      np.testing.assert_array_equal(step[name][row][here], alone[name][at][:n])
    image = step["images"][row, part]
    np.testing.assert_array_equal(image, alone["images"][at, 0])
    assert (step["segments"][row] > 0).sum() == step["lengths"][row]


def test_packing_leaves_less_padding(world, text):
  def padding(pack):
    steps = _steps(_stream(world, text, pack=pack), 8)
    real = sum(s["lengths"].sum() for s in steps)
    return 1 - real / sum(s["tokens"].size for s in steps)

  assert padding(4) < padding(2) < padding(1)


@pytest.mark.parametrize(
  ("changes", "message"),
  [({"window": 0}, "needs data.sort_window"), ({"pack": 3}, "divide batch")],
)
def test_wrong_packing_is_named(world, text, changes, message):
  with pytest.raises(ValueError, match=message):
    _stream(world, text, **{"pack": 2} | changes)


def test_a_row_does_not_depend_on_being_sorted(world, text):
  rows = {}
  for step in _steps(_stream(world, text, window=0), 4):
    rows |= dict(zip(step["example"].tolist(), step["tokens"], strict=True))
  for step in _steps(_stream(world, text, window=4), 4):
    for example, tokens in zip(step["example"], step["tokens"], strict=True):
      whole = rows[int(example)]
      np.testing.assert_array_equal(tokens, whole[: len(tokens)])
      assert (whole[len(tokens) :] == text.pad_id).all()


@pytest.mark.parametrize("threads, pack", [(0, 1), (3, 1), (2, 2)])
def test_sorted_rows_are_alike_on_hosts_and_after_a_restart(
  world, text, threads, pack
):
  stream = functools.partial(_stream, world, text, pack=pack)
  whole = _steps(stream(), 7)
  hosts = [stream(host=h, num_hosts=2, threads=threads) for h in (0, 1)]
  for want, *parts in zip(whole, *(_steps(h, 7) for h in hosts), strict=True):
    for key in want:
      np.testing.assert_array_equal(
        np.concatenate([part[key] for part in parts]), want[key]
      )
  again = stream(start=5, threads=threads)
  for want, got in zip(whole[5:], _steps(again, 2), strict=True):
    np.testing.assert_array_equal(got["tokens"], want["tokens"])

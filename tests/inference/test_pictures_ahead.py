"""Pictures are read by threads, ahead of the batch that asks about them."""

import dataclasses
import time

import numpy as np
import pytest
from paths import ASSETS
from PIL import Image
from row_specs import row_spec

from locvlm_jax.evals import session
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import pictures, predictor
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.question import Question
from locvlm_jax.parallel import sharding
from locvlm_jax.text import tokenizer


@pytest.fixture
def ahead():
  reader = pictures.ReadingAhead(2)
  yield reader
  reader.close()


def _taken(ahead, *batches: str) -> list[str]:
  """Takes the pictures of each batch; lists what was read for that."""
  read = []

  def reader(name):
    read.append(name)
    return {"images": np.full(100, ord(name), np.uint8)}

  for batch in batches:
    ahead.begin(reader, [(name,) for name in batch])
  for batch in batches:
    found = ahead.take(reader, [(name,) for name in batch])
    assert [found[name,]["images"][0] for name in batch] == [*map(ord, batch)]
  return sorted(read)


def test_a_picture_of_several_questions_is_read_once(ahead):
  assert _taken(ahead, "aba", "ac", "ba") == ["a", "b", "c"]
  assert _taken(ahead, "ab") == []  # nor for the next task


def test_pictures_that_have_no_room_are_read_again():
  ahead = pictures.ReadingAhead(1, kept=250)
  _taken(ahead, "a", "b", "a", "c")
  assert _taken(ahead, "ac") == []  # b was used longest ago
  assert _taken(ahead, "b") == ["b"]
  _taken(ahead, "abcd")
  assert ahead.take(lambda name: None, [("e",)]) == {("e",): None}
  ahead.close()


def test_batches_are_the_same_whether_pictures_are_read_ahead_or_not(
  tmp_path, ahead
):
  rng = np.random.default_rng(0)
  for name in "abc":
    pixels = rng.integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{name}.png")
  (tmp_path / "broken.png").write_bytes(b"none")
  loaded = Image.open(tmp_path / "a.png")
  paths = [str(tmp_path / f"{n}.png") for n in ("a", "b", "broken", "c", "a")]
  asked = [Question(str(i), path, "?") for i, path in enumerate(paths)]
  asked += [Question("m", paths[1], "?", mirrored=True)]
  asked += [Question("s", paths[1], "?", size=(9, 9)), Question("n", None, "?")]
  asked += [Question("p", loaded, "?"), Question("2", (paths[0], loaded), "?")]
  spec = row_spec(tokenizer.Tokenizer.load(ASSETS / "micro_base"))
  mesh = sharding.make_mesh({"data": 1, "fsdp": -1, "tensor": 1})
  plain = predictor.Predictor(None, {}, mesh, spec, predictor.Decoding())
  early = dataclasses.replace(plain, ahead=ahead, skipped={})
  everything = slice(0, len(asked))
  early.read_ahead(asked[:3])
  want, got = plain._media(asked, everything), early._media(asked, everything)
  assert want.keys() == got.keys() and plain.skipped == early.skipped
  for name, value in want.items():
    np.testing.assert_array_equal(got[name], value)
  assert not want["valid"].all()


def test_reading_goes_on_while_questions_are_answered(tmp_path):
  """Where reading dominates, twice as many images a second at least."""

  def seconds(threads):
    reader = pictures.ReadingAhead(threads)

    def read(_):
      time.sleep(0.005)

    def begin(questions):
      reader.begin(read, [(q.id,) for q in questions])

    def answer(questions):
      reader.take(read, [(q.id,) for q in questions])
      time.sleep(0.01)
      return [Answer("yes")] * len(questions)

    began = time.monotonic()
    session.ask_task(
      EVALS["pope_random"],
      [Question(str(i), None, "?", truth={"answers": ["yes"]})
       for i in range(48)],
      answer,
      batch_size=6,
      max_bad_share=1.0,
      read_ahead=begin if threads > 1 else None,
    )  # fmt: skip
    reader.close()
    return time.monotonic() - began

  assert seconds(1) > 2 * seconds(2)

"""Questions about one image as branches of a row."""

import numpy as np
import pytest
from row_specs import row_spec

from locvlm_jax.data import rows as rows_lib
from locvlm_jax.text import encoding, formats, tree

TURNS = [
  ("where is the cup", "there"),
  ("is there a ball", "no"),
  ("what is in the picture", "a star and a ball"),
]


def encoded(text, turns=TURNS, limit=60, most=60):
  return tree.encode_tree(
    text, formats.FORMATS["bare"], turns, 4, limit, most=most
  )


def test_a_branch_behind_what_is_shared_is_the_row_of_its_question(text):
  got = encoded(text)
  assert got.turns_used == len(TURNS)
  shared = got.segments == tree.SHARED
  for number, turn in enumerate(TURNS, 1):
    alone = encoding.encode_conversation(
      text, formats.FORMATS["bare"], [turn], 4, 60
    )
    own = shared | (got.segments == number)
    np.testing.assert_array_equal(got.tokens[own], alone.tokens)
    np.testing.assert_array_equal(got.loss_mask[own], alone.loss_mask)


def test_what_does_not_fit_is_left_out_and_counted(text):
  whole = encoded(text)
  first = int((whole.segments == 1).sum() + (whole.segments == -1).sum())
  got = encoded(text, limit=first - 4)
  assert got.turns_used == 1 and len(got.tokens) == first
  with pytest.raises(encoding.TooLong):
    encoded(text, most=2)
  short, long = TURNS[1], ("where " * 20, "there " * 20)
  assert encoded(text, [short, long, short], most=40).turns_used == 1


def test_captions_have_no_branches(text):
  with pytest.raises(ValueError, match="data.tree=60.*without questions"):
    tree.encode_tree(text, formats.FORMATS["plain"], TURNS, 4, 60, most=60)


def test_rows_number_the_questions_of_the_objectives_alone(world, text):
  make = rows_lib.RowMaker(row_spec(text, text_length=200, tree=60))
  plain = rows_lib.RowMaker(row_spec(text, text_length=200))
  numbers = set()
  for i, record in enumerate([world.source()[0]] * 4):
    row = make(record, np.random.default_rng(i))
    length = plain.min_length(record, np.random.default_rng(i))
    assert make.min_length(record, np.random.default_rng(i)) <= length + 8
    assert row["segments"].shape == row["tokens"].shape
    assert (row["segments"] != 0).sum() == row["lengths"]
    numbers |= set(row["segments"].tolist())
  assert {-1, 0, 1, 2} <= numbers

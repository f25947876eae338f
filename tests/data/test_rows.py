"""Rows: what they hold, and which records give placeholders."""

import dataclasses

import numpy as np
from PIL import Image
from row_specs import row_spec

from locvlm_jax.data import rows
from locvlm_jax.data.records import Object, Record
from locvlm_jax.text import formats


def test_row_masks_the_answer_alone(world, text):
  make = rows.RowMaker(row_spec(text, max_pairs=1, weights=(1.0, 0.0, 0.0)))
  row = make(world.source()[1], np.random.default_rng(0))
  answer = text.decode(row["tokens"][row["loss_mask"]])
  # The cup is at 3..13 of 40 and 3..15 of 30: bins of 32.
  assert answer.endswith("[2,3,10,16].") and "cup" not in answer
  assert row["tokens"][row["loss_mask"]][-1] == text.eos_id
  assert (row["tokens"] == formats.IMAGE_TOKEN).sum() == 4


def test_truncated_image_is_skipped_counted_and_named(world, text):
  path = world.folder / "images" / "000000000001.jpg"
  path.write_bytes(path.read_bytes()[:200])
  make = rows.RowMaker(row_spec(text))
  row = make(world.source()[1], np.random.default_rng(0))
  assert not row["valid"] and not row["loss_mask"].any() and row["lengths"] == 1
  assert make.counts["skipped"] == 1 and list(make.skipped) == [str(path)]


def test_image_of_another_size_is_skipped(world, text):
  Image.new("RGB", (30, 40)).save(world.folder / "images" / "000000000001.jpg")
  make = rows.RowMaker(row_spec(text))
  assert not make(world.source()[1], np.random.default_rng(0))["valid"]
  assert "annotation says (40, 30)" in str(make.skipped)


def test_a_first_turn_that_no_row_can_hold_is_cut_off_and_counted(text):
  record = Record("a", turns=(("Where is the red ball?", "Here. " * 9),))
  whole = rows.RowMaker(row_spec(text, text_length=200))
  long = whole(record, np.random.default_rng(0))
  size = int(long["lengths"]) - 9
  make = rows.RowMaker(row_spec(text, text_length=size))
  row = make(record, np.random.default_rng(0))
  assert row["valid"] and not make.skipped and make.counts["skipped"] == 0
  assert (make.counts["turns cut off"], make.counts["tokens cut off"]) == (1, 9)
  assert make.counts["turns left out"] == 0
  for name in ("tokens", "loss_mask"):
    assert (row[name][:size] == long[name][:size]).all()
  assert make.min_length(record, np.random.default_rng(0)) == size + 4


def test_a_question_that_fills_the_row_leaves_nothing_to_train_on(text):
  make = rows.RowMaker(row_spec(text, text_length=5))
  record = Record("a", turns=(("Where is the red ball?", "Here."),))
  row = make(record, np.random.default_rng(0))
  assert row["valid"] and row["lengths"] == 5 and not row["loss_mask"].any()


def test_too_long_a_question_of_ours_is_skipped(world, text):
  make = rows.RowMaker(row_spec(text, text_length=5))
  assert not make(world.source()[1], np.random.default_rng(0))["valid"]
  assert make.counts["skipped"] == 1


def test_an_image_of_unknown_size_is_measured_by_its_header(world, text):
  make = rows.RowMaker(row_spec(text, text_length=200))
  known = world.source()[1]
  unknown = dataclasses.replace(known, width=0, height=0)
  broken = dataclasses.replace(unknown, image="absent.png")
  lengths = [
    make.min_length(r, np.random.default_rng(0))
    for r in (known, unknown, broken)
  ]
  assert lengths[0] == int(make(known, np.random.default_rng(0))["lengths"])
  assert lengths[1:] == [lengths[0], 204]
  assert make(unknown, np.random.default_rng(0))["valid"]


def test_a_list_that_is_too_long_for_a_row_has_no_end_and_is_counted(
  world, text
):
  """What is left of it is trained on, but not that it stops there."""
  boxes = [(4.0 * i, 2.0, 4.0 * i + 3, 9.0) for i in range(8)]
  cups = tuple(Object("cup", box) for box in boxes)

  record = dataclasses.replace(world.source()[0], objects=cups)
  size = 48
  spec = row_spec(
    text, weights=(0.0, 0.0, 0.0), detect=1.0, text_length=size, vocabulary=()
  )
  make = rows.RowMaker(spec)
  row = make(record, np.random.default_rng(0))
  targets = row["tokens"][row["loss_mask"]]
  assert row["lengths"] == spec.length and len(targets) > 10
  assert text.eos_id not in targets
  assert make.counts["turns cut off"] == 1

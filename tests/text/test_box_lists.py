"""Answers that list boxes are written in one order and read in every form."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locvlm_jax.text import box_lists, coords

FORMS = list(itertools.product(coords.FORMS, coords.LOCATIONS))
SIDE = st.integers(0, 1000).map(lambda v: v / 1000)
BOX = st.tuples(SIDE, SIDE, SIDE, SIDE).map(
  lambda b: (
    min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]),
  )
)  # fmt: skip


@pytest.mark.parametrize("form, location", FORMS)
@settings(max_examples=25)
@given(boxes=st.lists(BOX, max_size=5), others=st.lists(BOX, max_size=2))
def test_a_list_that_is_written_is_read_in_every_form(
  form, location, boxes, others
):
  how = coords.Coords(form, 96, location)
  names = "traffic light", "no parking sign"
  lists = list(zip(names, (boxes, others), strict=True))
  found = box_lists.read(box_lists.write(lists, how), how)
  for name, expected in lists:
    wanted = {how.parse(how.encode(b)).value for b in expected}
    values = [x.value for x in found.listed if x.label == name]
    assert len(values) == len(wanted) and set(values) == wanted
    assert (name in found.denied) == (not expected)
  assert found.unreadable == 0


@pytest.mark.parametrize("form, location", FORMS)
@settings(max_examples=25)
@given(boxes=st.lists(BOX, min_size=2, max_size=6))
def test_each_location_of_a_list_comes_after_the_one_before(
  form, location, boxes
):
  how = coords.Coords(form, 24, location)
  text = box_lists.write([("cup", boxes)], how)
  written = text.removeprefix("cup ").removesuffix(".").split(" ")
  numbers = [how.numbers(w) for w in written]
  assert numbers == sorted(set(numbers))


def test_boxes_that_the_form_writes_alike_are_listed_once():
  how = coords.Coords("ivb", 10)
  alike = [(0.11, 0.2, 0.3, 0.4), (0.12, 0.2, 0.3, 0.4)]
  assert box_lists.write([("cup", alike)], how) == "cup [1,2,3,4]."


def test_what_is_no_location_in_a_list_is_counted():
  how = coords.Coords("ivb", 10)
  found = box_lists.read("a cup [1,2,3,4] [5,1,6] [9,9,1,1]. ball [1,2,", how)
  assert found.listed == (("a cup", (0.15, 0.25, 0.35, 0.45)),)
  assert found.unreadable == 3

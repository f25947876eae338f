"""Boxes as the paper's baselines write them."""

import pytest

from locvlm_jax.text import baseline_coords, grammar
from locvlm_jax.text.coords import Coords

LLAVA, KOSMOS = (Coords(form) for form in baseline_coords.FORMS)
BOX = (0.30, 0.40, 0.55, 0.80)


def test_llava_has_two_decimals_and_reads_what_it_wrote():
  assert LLAVA.encode(BOX) == "[0.3, 0.4, 0.55, 0.8]"
  assert LLAVA.encode((0.0, 0.004, 0.996, 1.0)) == "[0.0, 0.0, 1.0, 1.0]"
  assert LLAVA.parse("It is at [0.3, 0.4, 0.55, 0.8].").value == BOX
  assert LLAVA.parse("[30,40,55,80]").error == "out of range: 30 > 1"


def test_kosmos_counts_cells_along_the_rows():
  assert KOSMOS.encode(BOX) == "<patch_index_0393><patch_index_0817>"
  corner = KOSMOS.encode((1.0, 1.0, 1.0, 1.0))
  assert corner == "<patch_index_1023><patch_index_1023>"


def test_kosmos_boxes_read_as_in_its_own_example():
  text = "a snowman<object><patch_index_0044><patch_index_0863></object>"
  assert KOSMOS.parse(text).value == (0.390625, 0.046875, 0.984375, 0.828125)
  one_cell = KOSMOS.parse("<patch_index_0033><patch_index_0033>").value
  assert one_cell == (1 / 32, 1 / 32, 2 / 32, 2 / 32)


@pytest.mark.parametrize(
  "text",
  [
    "a snowman",
    "<patch_index_0863><patch_index_0044>",
    "<patch_index_0044><patch_index_2000>",
  ],
)
def test_what_is_no_kosmos_box_has_none(text):
  assert KOSMOS.parse(text) == (None, "no location")


@pytest.mark.parametrize("coords", [LLAVA, KOSMOS])
def test_there_is_no_grammar_of_another_models_boxes(coords):
  with pytest.raises(ValueError, match="decode freely"):
    grammar.build(coords, small_tokenizer.TOKENIZER)

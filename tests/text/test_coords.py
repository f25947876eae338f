import pytest
import small_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from locvlm_jax.text import grammar
from locvlm_jax.text.coords import FORMS, LLAVA15, Coords

UNIT = st.floats(0.0, 1.0)
BOX = st.tuples(UNIT, UNIT, UNIT, UNIT).map(
  lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
)
BINS = st.sampled_from([8, 9, 96, 224, 336])
ANY = st.builds(
  Coords,
  st.sampled_from(FORMS),
  BINS,
  st.sampled_from(["box", "point"]),
  st.integers(1, 8),
)


@pytest.mark.parametrize(
  "form, box, point",
  [
    ("nfp", "[0.3000,0.4000,0.5500,0.8000]", "[0.4250,0.6000]"),
    ("ivb", "[28,38,52,76]", "[40,57]"),
    ("diga", "[35:-14,-16,10,22]", "[35:-2,3]"),
  ],
)
def test_the_drawn_example(form, box, point):
  example = (0.30, 0.40, 0.55, 0.80)
  assert Coords(form, 96, "box").encode(example) == box
  assert Coords(form, 96, "point").encode(example) == point
  assert Coords(form, 96, "box").encode_point(0.425, 0.6) == point


@given(ANY, BOX)
def test_round_trip_is_as_precise_as_the_form(coords, box):
  value = coords.parse(f"It is at {coords.encode(box)}.").value
  want = box
  if coords.location == "point":
    want = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
  step = 1e-4 if coords.form == "nfp" else 1 / coords.num_bins
  assert len(value) == len(want)
  for got, true in zip(value, want, strict=True):
    assert abs(got - true) <= step / 2 + 1e-9


@given(ANY, BOX)
def test_reading_and_writing_again_gives_the_same_text(coords, box):
  text = coords.encode(box)
  value = coords.parse(text).value
  box_again = value * 2 if coords.location == "point" else value
  assert coords.encode(box_again) == text


@given(ANY, st.text())
def test_parse_is_total_on_any_text(coords, text):
  parsed = coords.parse(text)
  assert (parsed.value is None) == bool(parsed.error)


LOCATION_LIKE = st.text(alphabet="[]()0123456789.,:;+- \n\u00b2\u0665x")


@given(ANY, LOCATION_LIKE, LOCATION_LIKE)
def test_parse_is_total_on_text_like_a_location(coords, inside, around):
  for text in (inside, f"[{inside}]", f"{around}({inside}"):
    value, error = coords.parse(text)
    assert (value is None) == bool(error)
    if value is not None:
      assert all(0 <= v <= 1 for v in value)
      assert all(
        low <= high for low, high in zip(value[:2], value[2:], strict=False)
      )


@pytest.mark.parametrize(
  "text, error",
  [
    ("", "no location"),
    ("There is no cup (red) in the image.", "no location"),
    ("[-,.]", "no location"),
    ("at [1,2,3].", "3 numbers, 4 wanted"),
    ("[1,2,3,4,5]", "5 numbers, 4 wanted"),
    ("[12,34,97,60]", "out of range: 97 > 95"),
    ("[-1,34,9,60]", "out of range: -1 < 0"),
    ("[20,3,12,60]", "x2 < x1"),
    ("[2,30,12,6]", "y2 < y1"),
    ("It is at [12,34,45", "bracket not closed"),
    ("[0.5,1,2,3]", "not a bin: 0.5"),
    ("[" + "9" * 9999 + ",1,2,3]", "not a bin: " + "9" * 20),
  ],
)
def test_errors_say_why(text, error):
  assert Coords("ivb", 96, "box").parse(text) == (None, error)


@pytest.mark.parametrize(
  "text, error",
  [
    ("[64:0,0,0,0]", "out of range: 64 > 63"),
    ("[0:-9,0,0,0]", "out of range: -3 < 0"),
    ("[0:0,0,90,0]", "out of range: 96 > 95"),
    ("[0:0,0,-1,0]", "x2 < x1"),
  ],
)
def test_diga_errors(text, error):
  assert Coords("diga", 96, "box").parse(text) == (None, error)


def test_nfp_errors():
  nfp = Coords("nfp", 96, "point")
  assert nfp.parse("[0.5,1.01]").error == "out of range: 1.01 > 1"
  assert nfp.parse("[0.5,1.2.3]").error == "not a number: 1.2.3"
  assert nfp.parse("[.5,1]").value == (0.5, 1.0)


@pytest.mark.parametrize(
  "text",
  ["[1,2,3,4]", "( 1 , 2,3 ,4 )", "[1 2 3 4]", "2 cups (2) at [1,2,3,4] [0]"],
)
def test_first_location_in_free_text(text):
  assert Coords("ivb", 8, "box").parse(text).value == (
    1.5 / 8,
    2.5 / 8,
    3.5 / 8,
    4.5 / 8,
  )


def test_parse_takes_linear_time():
  text = "[" + "1" * 300_000 + "(" * 300_000 + "1 " * 300_000
  assert Coords().parse(text).error == "bracket not closed"


def test_ivb_edges():
  ivb = Coords("ivb", 224, "box")
  assert ivb.encode((0.0, 0.0, 1.0, 1.0)) == "[0,0,223,223]"
  assert ivb.encode((1 / 224, 0.0, 2 / 224, 1.0)) == "[1,0,2,223]"


@pytest.mark.parametrize(
  "box",
  [
    (0.0, 0.0, 1.1, 1.0),
    (-0.1, 0.0, 1.0, 1.0),
    (0.0, float("nan"), 1.0, 1.0),
    (0.6, 0.0, 0.5, 1.0),
    (0.0, 0.6, 1.0, 0.5),
  ],
)
def test_encode_refuses_what_is_not_a_box(box):
  with pytest.raises(ValueError, match=r"divide pixels|order its corners"):
    Coords().encode(box)


@pytest.mark.parametrize(
  "arguments, named",
  [
    (("ibv",), "'ibv'.*'ivb'"),
    (("ivb", 224, "boxes"), "'boxes'.*'box'"),
    (("diga", 4), "num_bins 4"),
    (("ivb", 0), "num_bins 0"),
  ],
)
def test_wrong_settings_are_named(arguments, named):
  with pytest.raises(ValueError, match=named):
    Coords(*arguments)


def test_llava_has_two_decimals_and_reads_what_it_wrote():
  llava, box = Coords(LLAVA15), (0.30, 0.40, 0.55, 0.80)
  assert llava.encode(box) == "[0.3, 0.4, 0.55, 0.8]"
  assert llava.encode((0.0, 0.004, 0.996, 1.0)) == "[0.0, 0.0, 1.0, 1.0]"
  assert llava.parse("It is at [0.3, 0.4, 0.55, 0.8].").value == box
  assert llava.parse("[30,40,55,80]").error == "out of range: 30 > 1"


def test_there_is_no_grammar_of_another_models_boxes():
  with pytest.raises(ValueError, match="decode freely"):
    grammar.build(Coords(LLAVA15), small_tokenizer.TOKENIZER)


@given(number=st.integers(0, 223))
def test_a_fixed_width_gives_every_digit_a_place(number):
  coords = Coords("ivb", 224, "point", fixed_width=True)
  text = coords.encode_point((number + 0.5) / 224, 0.5 / 224)
  assert text == f"[{number:03},000]"
  free = Coords("ivb", 224, "point")
  assert coords.parse(text) == free.parse(text) == free.parse(f"[{number},0]")


def test_only_bins_have_a_fixed_width():
  with pytest.raises(ValueError, match="only ivb has it"):
    Coords("nfp", fixed_width=True)

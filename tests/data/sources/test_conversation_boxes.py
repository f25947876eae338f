"""Boxes in the text of conversations, told as the model sees them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from locvlm_jax.data import geometry
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data.sources import conversation_boxes, conversations
from locvlm_jax.text import bpe, formats
from locvlm_jax.text.coords import Coords

BINS = Coords("ivb", 100, "box")


def told(text, kind="center_crop", size=(200, 100), coords=BINS):
  transform = geometry.make(kind, *size, 100)
  turns = conversation_boxes.rewrite(
    [("What?", text)], "pad", transform, coords
  )
  return turns[0][1] if turns else None


@pytest.mark.parametrize(
  "kind, want",
  [  # the image fills 0.25 to 0.75 of the padded square's height
    ("pad", "[25,30,50,55]"),
    ("square", "[25,10,50,60]"),
    ("center_crop", "[0,10,50,60]"),
  ],
)
def test_one_box_in_every_geometry(kind, want):
  assert told("It is at [0.25, 0.3, 0.5, 0.55].", kind) == f"It is at {want}."


def test_upright_images_and_several_boxes():
  text = "[0.25,0.0,0.75,1.0] and [0.3, 0.1234, 0.5, 0.5]"
  assert told(text, "square", (100, 200)) == "[0,0,99,99] and [10,12,50,50]"
  point = Coords("nfp", 100, "point")
  assert told(text, "square", (100, 200), point) == (
    "[0.5000,0.5000] and [0.3000,0.3117]"
  )


@pytest.mark.parametrize(
  "text",
  [
    "a cup",
    "[0, 0, 1, 1]",
    "[12, 40, 50, 60]",
    "[0.1, 0.2, 0.3]",
    "[0.5, 0.2, 0.1, 0.3]",
    "(0.1, 0.2, 0.3, 0.4)",
    "[0.1, 0.2, 0.3, 1.4]",
    "[0.1, 0.2, 0.3, 0.4, 0.5]",
    "[0.12345, 0.2, 0.3, 0.4]",
    "\u676f [a, b]",
    "[-0.1, 0.2, 0.3, 0.4]",
    "[[0.1, 0.2], [0.3, 0.4]]",
  ],
)
def test_other_text_stays(text):
  assert told(text) == text and conversation_boxes.find_boxes(text) == []


def test_a_turn_whose_box_is_cropped_away_is_left_out():
  transform = geometry.make("center_crop", 200, 100, 100)
  turns = [
    ("What is at [0.0, 0.3, 0.2, 0.7]?", "a cup"),
    ("Where is the dog?", "[0.5, 0.3, 0.7, 0.7]"),
    ("And both?", "[0.5, 0.3, 0.7, 0.7] and [0.9, 0.3, 1.0, 0.7]"),
    ("How many?", "2"),
  ]
  assert conversation_boxes.rewrite(turns, "pad", transform, BINS) == [
    ("Where is the dog?", "[50,10,90,90]"),
    ("How many?", "2"),
  ]


@given(
  st.integers(20, 700),
  st.integers(20, 700),
  st.tuples(*[st.floats(0, 0.4)] * 2, *[st.floats(0.6, 1)] * 2),
  st.sampled_from(geometry.KINDS),
)
def test_the_text_is_that_of_the_box_itself(width, height, part, kind):
  """A box of the image, written as mix665k does, within its two decimals."""
  side, (u1, v1, u2, v2) = max(width, height), part
  box = u1 * width, v1 * height, u2 * width, v2 * height
  margin = ((side - width) // 2, (side - height) // 2) * 2
  text = ", ".join(
    f"{(v + m) / side:.4f}" for v, m in zip(box, margin, strict=True)
  )
  transform = geometry.make(kind, width, height, 224, 0.0)
  want = transform.apply_box(box)
  (turn,) = conversation_boxes.rewrite(
    [("", f"[{text}]")], "pad", transform, Coords("nfp")
  )
  got = Coords("nfp").parse(turn[1]).value
  # Half a unit of the fourth decimal of the longer side, then of the square.
  scale = max(transform.scale) * side / 224
  np.testing.assert_allclose(got, want, atol=0.5e-4 * (scale + 1) + 1e-9)


@pytest.fixture
def source(tmp_path):
  Image.new("RGB", (200, 100)).save(tmp_path / "1.png")
  ask = "Please provide a short description for this region: "
  rows = [
    (
      "seen",
      [
        ask + "[0.25, 0.3, 0.5, 0.55].",
        "a cup",
        ask + "[0.0, 0.3, 0.1, 0.5].",
        "a dog",
      ],
    ),
    ("cropped", [ask + "[0.0, 0.3, 0.1, 0.5].", "a dog"]),
    ("plain", ["What?", "a cup"]),
  ]
  content = [
    {
      "id": name,
      "image": "1.png",
      "conversations": [
        {"from": ("human", "gpt")[i % 2], "value": text}
        for i, text in enumerate(said)
      ],
    }
    for name, said in rows
  ]
  (tmp_path / "c.json").write_text(json.dumps(content))
  return conversations.Conversations(str(tmp_path / "c.json"), str(tmp_path))


def _maker(boxes):
  text = bpe.train_bpe(["USER: region: [0.25,1] ASSISTANT: cup dog"], 400)
  spec = rows_lib.RowSpec(
    text,
    formats.FORMATS["bare"],
    BINS,
    "center_crop",
    100,
    num_visual=4,
    text_length=300,
    max_pairs=4,
    weights=(1.0, 1.0, 1.0),
    boxes=boxes,
  )
  return rows_lib.RowMaker(spec)


def _said(make, record):
  row = make(record, np.random.default_rng(0))
  tokens = row["tokens"][: int(row["lengths"])]
  need = make.min_length(record, np.random.default_rng(0))
  assert int(row["lengths"]) <= need
  return make.spec.tokenizer.decode(tokens[tokens >= 0]), need


def test_rows_hold_the_boxes_that_the_model_sees(source):
  make = _maker("pad")
  seen, need = _said(make, source[0])
  assert "[0,10,50,60]" in seen and "0." not in seen and "dog" not in seen
  tokens = _maker("pad")(source[0], np.random.default_rng(0))["lengths"]
  assert need == tokens  # the image's size is read from its header
  plain, need = _said(make, source[2])
  assert "a cup" in plain and need < make.spec.length
  assert _said(make, source[1])[0] == ""
  assert make.counts["turns cropped away"] == 2
  assert make.counts["nothing to ask"] == 1


def test_without_the_field_they_stay_as_they_are(source):
  make = _maker("")
  said, need = _said(make, source[0])
  assert "[0.25, 0.3, 0.5, 0.55]" in said and "a dog" in said
  assert need < make.spec.length and not make.counts["turns cropped away"]

"""Every wording: many, distinct, and none of the held-out ones trained on."""

import re

import pytest

from locvlm_jax.text import prompts

QUESTIONS = {
  "loc_pred box": (prompts.LOC_PRED["box"], 20, ["obj"]),
  "loc_pred point": (prompts.LOC_PRED["point"], 20, ["obj"]),
  "loc_pred answers": (prompts.LOC_PRED_ANSWERS, 1, ["loc"]),
  "neg_pred answers": (prompts.NEG_PRED_ANSWERS, 8, ["obj"]),
  "rev_loc box": (prompts.REV_LOC["box"], 15, ["loc"]),
  "rev_loc point": (prompts.REV_LOC["point"], 15, ["loc"]),
  "presence": (prompts.PRESENCE, 1, ["a_obj"]),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_wordings_are_many_distinct_and_have_their_slot(name):
  templates, least, slots = QUESTIONS[name]
  assert len(set(templates)) == len(templates) >= least
  for template in templates:
    assert re.findall(r"\{(\w+)\}", template) == slots, template


def test_no_training_wording_is_held_out():
  for name, (templates, _, _) in QUESTIONS.items():
    if name != "presence":
      for template in templates:
        text = prompts.fill(template, obj="red cup", loc="[1,2,3,4]")
        assert not prompts.is_held_out(text), text


@pytest.mark.parametrize(
  "text, held_out",
  [
    ("Which side of the red cup is the dog?", True),
    ("so, which side of the cup is the dog on, left or right?", True),
    ("Is there an owl in the image?", True),
    ("Is the dog left or right of the red cup?", False),
    ("Is there an owl?", False),
    ("Which side is it?", False),
  ],
)
def test_is_held_out(text, held_out):
  assert prompts.is_held_out(text) == held_out


def test_every_spatial_question_is_held_out():
  for spatial in prompts.SPATIAL_DIRECT:
    text = prompts.fill(spatial.question, a="the dog", b="red cup")
    assert prompts.is_held_out(text) and "the the" not in text
    assert "dog" in text and "red cup" in text and "{" not in text


def test_spatial_questions_cover_both_axes_and_orders():
  for axis, first, second in (("x", "left", "right"), ("y", "above", "below")):
    wordings = [s for s in prompts.SPATIAL_DIRECT if s.axis == axis]
    assert {s.keywords for s in wordings} == {(first, second)}
    named = [s.question for s in wordings if first in s.question]
    later = [q for q in named if q.index(first) > q.index(second)]
    assert len(named) >= 6 and len(later) == len(named) / 2


def test_spatial_icl_reads_like_the_question():
  spatial = prompts.SPATIAL_DIRECT[0]
  turns = prompts.spatial_icl(spatial, [("dog", "cup", "left")])
  assert turns == [
    (
      "Which side of the cup is the dog?",
      "The dog is on the left side of the cup.",
    )
  ]


@pytest.mark.parametrize("template", prompts.NEG_PRED_ANSWERS)
def test_denials_deny_by_popes_rule(template):
  answer = prompts.fill(template, obj="cup")
  words = answer.split(".")[0].replace(",", "").split(" ")
  assert {"No", "not", "no"} & set(words)


def test_fill_never_fills_what_it_filled_in():
  got = prompts.fill("{obj} at {loc}", obj="a {loc} {b} %s \\1", loc="[1,2]")
  assert got == "{loc} {b} %s \\1 at [1,2]"

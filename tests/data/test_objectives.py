"""The three objectives: true, unambiguous, and drawn by their weights."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.records import Object, Record
from locvlm_jax.text import box_lists, prompts
from locvlm_jax.text.coords import Coords

VOCABULARY = ("dog", "cat", "cup", "owl", "bus", "red kite")
COORDS = Coords("ivb", 100, "box")
SQUARE = geometry.square(100, 100, 100)
EVEN = (1.0, 1.0, 1.0)

# Two cats, a crowd of owls, one owl, a dog; the cup is at the left border.
OBJECTS = (
  Object("cat", (10.0, 10.0, 20.0, 20.0)),
  Object("cat", (30.0, 10.0, 40.0, 20.0)),
  Object("owl", (0.0, 50.0, 99.0, 99.0), crowd=True),
  Object("owl", (50.0, 50.0, 60.0, 60.0)),
  Object("bus", (50.0, 50.0, 60.0, 60.0), crowd=True),
  Object("dog", (40.0, 30.0, 60.0, 70.0)),
  Object("cup", (0.0, 40.0, 9.0, 60.0)),
)
RECORD = Record("1", None, 100, 100, OBJECTS)


def ask(record=RECORD, seed=0, pairs=8, weights=EVEN, transform=SQUARE):
  rng = np.random.default_rng(seed)
  spec = objectives.PairSpec(COORDS, VOCABULARY, pairs, weights)
  found = objectives.pairs(record, transform, spec, rng)
  return [pair.turn for pair in found]


def kind(turn):
  """0 loc_pred, 1 neg_pred, 2 rev_loc."""
  question, answer = turn
  return 2 if "[" in question else 0 if "[" in answer else 1


def about(turn):
  """The category that a turn is about."""
  text = turn[kind(turn) == 2]
  return next(c for c in VOCABULARY if re.search(rf"\b{c}\b", text))


def test_the_filters_of_the_paper():
  scene = objectives.scene(OBJECTS, SQUARE)
  assert [c for c, _ in scene.unique] == ["dog", "cup"]
  assert scene.present == {"cat", "owl", "bus", "dog", "cup"}


def test_what_a_crop_removed_is_neither_located_nor_denied():
  wide = geometry.center_crop(200, 100, 100)  # shows x from 50 to 150
  objects = (
    Object("dog", (0.0, 0.0, 40.0, 90.0)),
    Object("cup", (60.0, 10.0, 90.0, 90.0)),
    Object("cat", (0.0, 0.0, 20.0, 20.0)),  # of two cats, one is cropped
    Object("cat", (70.0, 0.0, 90.0, 20.0)),
  )
  record = Record("1", None, 200, 100, objects)
  subjects = {
    about(t) for s in range(50) for t in ask(record, s, 8, EVEN, wide)
  }
  assert subjects == {"cup", "owl", "bus", "red kite"}


def test_all_three_objectives_and_nothing_that_is_false():
  located = {"dog": "[40,30,60,70]", "cup": "[0,40,9,60]"}
  kinds = Counter()
  for seed in range(200):
    for turn in ask(seed=seed):
      kinds[kind(turn)] += 1
      if kind(turn) == 1:
        assert about(turn) == "red kite"
        assert turn[1] in [
          prompts.fill(t, obj="red kite") for t in prompts.NEG_PRED_ANSWERS
        ]
      else:
        assert located[about(turn)] in " ".join(turn)
  assert set(kinds) == {0, 1, 2}


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_an_answer_cannot_be_copied_from_the_conversation(seed, pairs):
  turns = ask(seed=seed, pairs=pairs)
  assert 1 <= len(turns) <= pairs
  assert len({q for q, _ in turns}) == len(turns)
  assert max(Counter(map(about, turns)).values()) == 1
  assert turns == ask(seed=seed, pairs=pairs)


def test_the_mixture_does_not_depend_on_the_number_of_objects():
  def share(num_objects):
    objects = tuple(
      Object(f"thing{i}", (i * 9.0, 0.0, i * 9.0 + 8, 50.0))
      for i in range(num_objects)
    )
    vocabulary = tuple(f"absent{i}" for i in range(90))
    counts = Counter()
    record = Record("1", None, 100, 100, objects)
    spec = objectives.PairSpec(COORDS, vocabulary, 99, (2.0, 1.0, 1.0))
    for seed in range(600):
      rng = np.random.default_rng(seed)
      found = objectives.pairs(record, SQUARE, spec, rng)
      counts.update(kind(pair.turn) for pair in found)
    total = sum(counts.values())
    return [counts[k] / total for k in range(3)]

  for num_objects in (1, 4, 9):
    np.testing.assert_allclose(share(num_objects), [0.5, 0.25, 0.25], atol=0.05)


def test_single_pairs_follow_the_weights():
  drawn = Counter(
    kind(t) for s in range(900) for t in ask(seed=s, pairs=1, weights=EVEN)
  )
  assert sum(drawn.values()) == 900
  assert all(abs(n / 900 - 1 / 3) < 0.06 for n in drawn.values())


@pytest.mark.parametrize("only", [0, 1, 2])
def test_a_weight_of_zero_is_never(only):
  weights = tuple(float(i == only) for i in range(3))
  turns = [t for s in range(30) for t in ask(seed=s, weights=weights)]
  assert turns and {kind(t) for t in turns} == {only}


def test_an_image_without_objects_gets_one_denial():
  record = Record("1", None, 100, 100, ())
  assert [kind(t) for t in ask(record)] == [1]


def test_nothing_to_ask_is_no_turn():
  objects = tuple(Object(c, (0.0, 0.0, 9.0, 9.0)) for c in VOCABULARY * 2)
  assert ask(Record("1", None, 100, 100, objects)) == []


def test_points_have_their_own_words():
  rng = np.random.default_rng(0)
  point = Coords("ivb", 100, "point")
  box = (0.4, 0.3, 0.6, 0.7)
  asked = {objectives.loc_pred("dog", box, point, rng) for _ in range(300)}
  questions = {q for q, _ in asked}
  assert any("centre" in q for q in questions)
  assert not any("box" in q for q in questions)
  assert {a for _, a in asked} == {"It is at [50,50].", "At [50,50]."}


def test_loc_pred_and_neg_pred_ask_alike():
  rng = np.random.default_rng(0)
  box = (0.4, 0.3, 0.6, 0.7)
  loc = {objectives.loc_pred("dog", box, COORDS, rng)[0] for _ in range(600)}
  neg = {objectives.neg_pred("dog", COORDS, rng)[0] for _ in range(600)}
  assert loc == neg and len(loc) == len(prompts.LOC_PRED["box"])


def test_rev_loc_takes_captions():
  rng = np.random.default_rng(0)
  box = (0.4, 0.3, 0.6, 0.7)
  caption = "the owl left of the cup"
  answers = {
    objectives.rev_loc(caption, box, COORDS, rng)[1] for _ in range(50)
  }
  assert answers == {caption, "owl left of the cup"}


def test_no_turn_is_held_out():
  for seed in range(100):
    for turn in ask(seed=seed):
      assert not prompts.is_held_out(" ".join(turn))


@pytest.mark.parametrize(
  "pairs, weights, named",
  [
    (0, EVEN, "max_pairs is 0"),
    (1, (0.0, 0.0, 0.0), "none negative"),
    (1, (1.0, -1.0, 1.0), "none negative"),
  ],
)
def test_wrong_settings_are_named(pairs, weights, named):
  with pytest.raises(ValueError, match=named):
    ask(pairs=pairs, weights=weights)


# ------------------------------------------------------------------- detect


def lists_of(record=RECORD, transform=SQUARE, seeds=200):
  """The pairs of detect about a record, each with what its answer lists."""
  weights = (0.0, 0.0, 0.0)
  spec = objectives.PairSpec(COORDS, VOCABULARY, 8, weights, detect=1.0)
  said = []
  for seed in range(seeds):
    rng = np.random.default_rng(seed)
    for pair in objectives.pairs(record, transform, spec, rng):
      said.append((pair, box_lists.read(pair.answer, COORDS)))
  return said


def test_detect_lists_every_object_of_what_it_asks_for_or_denies_it():
  said = lists_of()
  for pair, found in said:
    assert pair.objective == objectives.DETECT
    labels = Counter(x.label for x in found.listed)
    # Owl and bus have a crowd: how many there are is not known.
    assert labels.items() <= {"cat": 2, "dog": 1, "cup": 1}.items()
    assert set(found.denied) <= {"red kite"}
    assert labels or found.denied
    asked = pair.question.lower()
    assert all(name in asked for name in (*labels, *found.denied))
  assert {"cat", "dog", "cup"} == {x.label for _, f in said for x in f.listed}
  assert any(len({x.label for x in f.listed}) > 1 for _, f in said)


def test_detect_asks_for_no_category_that_the_crop_cuts_through():
  objects = (
    Object("cat", (60.0, 10.0, 90.0, 20.0)),
    Object("cat", (30.0, 10.0, 60.0, 20.0)),  # a third of it is seen
    Object("dog", (60.0, 30.0, 90.0, 70.0)),
    Object("dog", (0.0, 30.0, 40.0, 70.0)),  # outside of the crop
    Object("cup", (0.0, 30.0, 40.0, 70.0)),
  )
  wide = geometry.center_crop(200, 100, 100)
  found = objectives.detectable(Record("1", None, 200, 100, objects), wide)
  assert {name: len(boxes) for name, boxes in found.items()} == {"dog": 1}


def test_detect_tells_no_location_that_another_pair_asks_for():
  for seed in range(60):
    rng = np.random.default_rng(seed)
    spec = objectives.PairSpec(COORDS, VOCABULARY, 8, EVEN, detect=1.0)
    named = Counter()
    for pair in objectives.pairs(RECORD, SQUARE, spec, rng):
      listed = box_lists.read(pair.answer, COORDS).listed
      if pair.objective == objectives.DETECT:
        named.update({x.label for x in listed})
      elif pair.objective != "neg_pred":
        named[about(pair.turn)] += 1
    assert not named or max(named.values()) == 1


def test_nothing_is_listed_where_not_everything_is_annotated():
  record = Record("1", None, 100, 100, OBJECTS, exhaustive=False)
  assert lists_of(record, seeds=3) == []

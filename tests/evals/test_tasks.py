"""Evaluations: what they ask, and known scores on answers made by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locvlm_jax.data import boxes as boxes_lib
from locvlm_jax.data.records import Object, Record
from locvlm_jax.evals import predictions, session
from locvlm_jax.evals.scorers import wording
from locvlm_jax.evals.scorers.metrics import known, mean
from locvlm_jax.evals.selection import take, unique_boxes
from locvlm_jax.evals.tasks import EVALS, counting, spatial
from locvlm_jax.evals.tasks.benchmark import Benchmark
from locvlm_jax.evals.tasks.loc_pred import LocPred
from locvlm_jax.evals.tasks.rev_loc import RevLoc
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords, prompts

BOXES = coords.Coords("ivb", 100, "box")
POINTS = coords.Coords("ivb", 100, "point")
# Those that make their questions; the others are in test_questions.py.
OURS = [n for n, t in EVALS.items() if not isinstance(t, Benchmark)]
VOCABULARY = ("ball", "bus", "cat", "cup", "dog", "hot dog", "kite", "owl")


def thing(category, box, crowd=False):
  return Object(category, tuple(map(float, box)), crowd)


def record(id="1", turns=(), crowds=(), **objects):
  """A 100 x 100 image; `cup=(x1, y1, x2, y2)`, or a list of boxes."""
  found = []
  for category, boxes in objects.items():
    for box in boxes if isinstance(boxes, list) else [boxes]:
      name = category.replace("_", " ")
      found.append(thing(name, box, name in crowds))
  return Record(id, f"{id}.jpg", 100, 100, tuple(found), tuple(turns))


# The scene drawn in evals/spatial.py.
DRAWN = record(
  cup=(5, 10, 30, 40), dog=(5, 60, 30, 90), ball=(70, 60, 90, 80),
  cat=(40, 10, 60, 30),
)  # fmt: skip


def ask(task, records, coding=BOXES, limit=None, seed=0, kind="square"):
  return EVALS[task].examples(
    records, coding, kind, 100, VOCABULARY, seed, limit
  )


def rate(task, examples, answers):
  return EVALS[task].score(examples, answers)


def asked_about(task, id):
  """A record that the task has questions about."""
  if task.startswith(("rd_", "rec_")):
    texts = ("the cup", "cup on the left", "the cup")
    region = Object("the cup", (5.0, 10.0, 30.0, 40.0), texts=texts)
    return Record(id, f"{id}.jpg", 100, 100, (region,))
  turns = [(f"what {i}?", str(i)) for i in range(5)]
  return record(id, turns, **{o.category: o.box for o in DRAWN.objects})


# --- Scoring rules ---


def test_iou_of_known_boxes():
  wide, unit = (0.0, 0.0, 2.0, 1.0), (0.0, 0.0, 1.0, 1.0)
  assert boxes_lib.iou(wide, (1.0, 0.0, 3.0, 1.0)) == pytest.approx(1 / 3)
  assert boxes_lib.iou(unit, unit) == 1
  assert boxes_lib.iou(unit, (1.0, 0.0, 2.0, 1.0)) == 0
  assert boxes_lib.iou((0.5, 0.5, 0.5, 0.5), unit) == 0  # a box without area


@pytest.mark.parametrize(
  ("answer", "no"),
  [
    ("no", True),
    ("No, there is no cup.", True),
    ("There is not, I think", True),
    ("Yes. No cup is cleaner.", False),  # only up to the first full stop
    ("", False),
    ("Nothing here", False),
    ("NO", False),  # POPE's list of words has "No" and "no"
    ("there's none", False),
  ],
)
def test_says_no_is_popes_rule(answer, no):
  assert wording.says_no(answer) is no


def test_contains_wants_whole_words():
  assert wording.contains("It is on the LEFT, I think.", "left")
  assert not wording.contains("It is the leftmost.", "left")
  assert wording.contains("a traffic-light!", "traffic light")


def test_mean_of_nothing_is_left_out():
  assert known({"a": mean([]), "b": mean([True])}) == {"b": 1}


# --- Scenes ---


def test_only_visible_objects_are_asked_for_and_cut_away_ones_never_denied():
  wide = Record(
    "1",
    "1.jpg",
    200,
    100,
    (
      thing("cup", (80, 10, 120, 50)),
      thing("dog", (0, 0, 20, 20)),  # outside the centre crop
      thing("ball", (60, 60, 80, 80)),
      thing("ball", (0, 60, 20, 80)),  # outside: still a second ball
      thing("owl", (100, 60, 120, 80)),
      thing("owl", (130, 60, 150, 80), True),
      thing("bus", (60, 0, 140, 9), True),
    ),
  )
  assert unique_boxes(wide, "center_crop", 100) == {
    "cup": pytest.approx((0.3, 0.1, 0.7, 0.5))
  }
  asked = {"yes": set(), "no": set()}
  for seed in range(20):
    for e in ask("hallucination", [wide], seed=seed, kind="center_crop"):
      asked[e.truth["label"]].add(e.truth["category"])
  assert asked["yes"] == {"cup", "ball", "owl"}
  assert asked["no"] == {"cat", "hot dog", "kite"}


def test_take_keeps_groups_whole():
  groups = [[Question(f"{g}{i}", None, "?") for i in "ab"] for g in "xyz"]
  assert [e.id for e in take(groups, 5)] == ["xa", "xb", "ya", "yb"]
  assert len(take(groups, None)) == 6
  with pytest.raises(ValueError, match="limit 0"):
    take(groups, 0)


@pytest.mark.parametrize("task", OURS)
def test_examples_follow_the_seed_and_not_the_other_images(task):
  records = [asked_about(task, str(i)) for i in range(6)]
  first = ask(task, records)
  assert first
  assert first == ask(task, records)
  assert first != ask(task, records, seed=1)
  alone = ask(task, records[3:4])
  assert alone == [e for e in first if e.id.split("/")[0] == "3"]
  assert 0 < len(ask(task, records, limit=8)) <= 8
  assert len({e.id for e in first}) == len(first)


# --- Location prediction ---


def test_loc_pred_asks_about_unique_seen_categories():
  scene_ = record(
    cup=(10, 20, 30, 60),
    ball=[(0, 0, 9, 9), (50, 50, 90, 90)],
    spoon=(40, 0, 60, 20),
    owl=(60, 0, 90, 20),
    crowds=("owl",),
  )
  (example,) = ask("locpred", [scene_])
  assert example.question == "Where is the cup?"
  assert example.truth["box"] == pytest.approx([0.1, 0.2, 0.3, 0.6])
  assert json.loads(json.dumps(example.truth)) == example.truth


def test_loc_pred_scores_known_boxes():
  example = Question(
    "1",
    None,
    "?",
    truth={
      "category": "cup",
      "box": [0.0, 0.0, 0.4, 0.4],
      "coords": {"form": "nfp", "num_bins": 100, "location": "box"},
    },
  )
  answers = [
    "It is at [0.0000,0.0000,0.4000,0.4000].",  # IoU 1
    "[0.0,0.0,0.4,0.24]",  # IoU 0.6
    "[0.2,0.0,0.6,0.4]",  # IoU 1/3
    "It is on the table.",
  ]
  right = [LocPred().judge(example, a)["correct"] for a in answers]
  assert right == [True, True, False, False]
  metrics = LocPred().score([example] * 4, answers)
  assert metrics == {
    "acc_iou50": 0.5,
    "acc_iou75": 0.25,
    "mean_iou": pytest.approx((1 + 0.6 + 1 / 3) / 4),
    "center_error": pytest.approx((0 + 0.08 + 0.2) / 3),
    "parse_rate": 0.75,
    "parse_failures": 1,
    "num": 4,
  }


def test_loc_pred_scores_points_by_the_box_around_them():
  (example,) = ask("locpred", [record(cup=(10, 20, 31, 61))], POINTS)
  metrics = rate("locpred", [example] * 3, ["[20,40]", "[90,40]", "cup"])
  assert metrics["acc_in_box"] == pytest.approx(1 / 3)
  assert metrics["center_error"] == pytest.approx(0.35)
  assert metrics["parse_failures"] == 1
  assert "acc_iou50" not in metrics


def test_the_true_answer_is_right():
  (example,) = ask("locpred", [record(cup=(10.4, 20, 30.3, 60.9))])
  answer = BOXES.encode(tuple(example.truth["box"]))
  assert rate("locpred", [example], [answer])["acc_iou75"] == 1


# --- Reverse location ---


def test_rev_loc_gives_the_box_and_wants_the_name():
  (example,) = ask("revloc", [record(dog=(10, 20, 30, 60))])
  assert "[10,20,30,60]" in example.question
  answers = ["a dog", "The Dog.", "a hot dog", "a hot dog and a dog", "dogs"]
  right = [RevLoc().judge(example, a)["correct"] for a in answers]
  assert right == [True, True, False, True, False]
  assert rate("revloc", [example] * 5, answers) == {"accuracy": 0.6, "num": 5}


# --- Hallucination ---


def test_hallucination_is_balanced_and_calls_no_crowd_absent():
  scene_ = record(
    cup=(10, 20, 30, 60),
    ball=[(0, 0, 9, 9), (50, 50, 90, 90)],
    dog=(60, 0, 90, 20),
    owl=(0, 60, 90, 90),
    crowds=("owl",),
  )
  examples = ask("hallucination", [scene_])
  labels = [e.truth["label"] for e in examples]
  asked = {e.truth["category"]: e.truth["label"] for e in examples}
  assert labels == ["yes", "no"] * 2
  assert "owl" not in asked
  for category, label in asked.items():
    assert (label == "yes") == (category in ("cup", "ball", "dog"))
  one = ask("hallucination", [record(owl=(0, 0, 50, 50))])
  assert [e.truth["label"] for e in one] == ["yes", "no"]
  assert one[0].question == "Is there an owl in the image?"


def test_hallucination_scores_known_answers():
  def example(label):
    return Question("1", None, "?", truth={"label": label})

  examples = [example(x) for x in ("yes", "yes", "yes", "no", "no")]
  answers = ["Yes.", "yes", "No.", "It is here", "There is no cup."]
  assert rate("hallucination", examples, answers) == {
    "accuracy": 0.6,
    "precision": pytest.approx(2 / 3),
    "recall": pytest.approx(2 / 3),
    "f1": pytest.approx(2 / 3),
    "yes_rate": 0.6,
    "accuracy_absent": 0.5,
    "num": 5,
    "num_present": 3,
    "num_absent": 2,
    "unclear": 1,
  }
  never = rate("hallucination", examples, ["no"] * 5)
  assert (never["precision"], never["recall"], never["f1"]) == (0, 0, 0)


# --- Spatial ---


def test_halves_leave_out_what_straddles_the_middle():
  boxes = unique_boxes(DRAWN, "square", 100)
  assert spatial.halves(boxes, "left_right") == {
    "ball": "right",
    "cup": "left",
    "dog": "left",
  }
  assert spatial.halves(boxes, "above_below") == {
    "ball": "below",
    "cat": "above",
    "cup": "above",
    "dog": "below",
  }
  edge = {"a": (0.0, 0.0, 0.5, 1.0), "b": (0.5, 0.0, 1.0, 1.0)}
  assert spatial.halves(edge, "left_right") == {"a": "left", "b": "right"}


def test_spatial_asks_opposite_pairs_both_ways_round():
  examples = ask("spatial", [DRAWN])
  asked = {
    (e.truth["a"], e.truth["b"]): e.truth["label"]
    for e in examples
    if e.truth["axis"] == "left_right" and e.truth["setting"] == "direct"
  }
  assert asked == {
    ("ball", "cup"): "right",
    ("cup", "ball"): "left",
    ("ball", "dog"): "right",
    ("dog", "ball"): "left",
  }
  assert all(e.history == () for e in examples if "direct" in e.id)
  assert all(prompts.is_held_out(e.question) for e in examples)


def test_in_context_examples_are_about_the_third_object():
  for e in ask("spatial", [DRAWN]):
    if e.truth["setting"] != "icl" or e.truth["axis"] != "left_right":
      continue
    third = {"cup", "dog", "ball"} - {e.truth["a"], e.truth["b"]}
    answers = [answer for _, answer in e.history]
    assert len(e.history) == 2
    assert all(third & set(wording.normalize(q).split()) for q, _ in e.history)
    assert {w for w in ("left", "right") for a in answers if w in a} == {
      "left",
      "right",
    }
    for answer in answers:  # the ball is the only one on the right
      right = answer.startswith("The ball")
      assert ("right" in answer) == right


def test_two_objects_are_no_triplet_but_a_pair():
  two = record(cup=(5, 10, 30, 40), ball=(70, 10, 90, 40))
  assert ask("spatial", [two]) == []
  pairs = ask("spatial_pair", [two])
  assert [e.truth["label"] for e in pairs] == ["right", "left"]
  twice = record(cup=[(5, 10, 30, 40), (5, 50, 30, 80)], ball=(70, 1, 90, 40))
  assert ask("spatial_pair", [twice]) == []


def test_spatial_scores_known_answers():
  examples = ask("spatial", [DRAWN])
  truth = [e.truth["label"] for e in examples]
  perfect = rate("spatial", examples, [f"To the {w}." for w in truth])
  kinds = [k for k in perfect if not k.endswith(("num", "keyword", "keywords"))]
  assert len(kinds) == 14
  assert all(perfect[k] == 1 for k in kinds)
  always = rate("spatial", examples, ["left, above"] * len(examples))
  assert always["direct.left_right.left"] == 1
  assert always["direct.left_right.right"] == 0
  assert always["direct.all"] == always["icl.above_below.all"] == 0.5
  hedged = ["left or right, above or below"] * len(truth)
  both = rate("spatial", examples, hedged)
  assert both["direct.all"] == 0
  assert both["direct.both_keywords"] == both["direct.num"]


# --- Pointing and counting ---


def test_pointing_wants_a_point_in_the_box_or_a_box_around_it():
  (example,) = ask("pointing", [record(cup=(10, 20, 31, 61))])
  assert example.question == "Point at the middle of the cup."
  answers = ["[20,40]", "[90,40]", "It is at [0,0,40,80].", "the cup"]
  assert rate("pointing", [example] * 4, answers) == {
    "acc_in_box": 0.5,
    "parse_rate": 0.75,
    "num": 4,
  }


def test_counting_asks_for_all_of_a_category_but_not_for_crowds():
  scene_ = record(
    cup=(10, 20, 30, 60),
    bus=[(0, 0, 9, 9), (50, 50, 90, 90)],
    owl=(0, 60, 90, 90),
    crowds=("owl",),
  )
  examples = ask("counting", [scene_])
  asked = {e.truth["category"]: e.truth["count"] for e in examples}
  assert asked == {"bus": 2, "cup": 1}
  assert examples[0].question == (
    "How many buses are in the image?\n"
    + "Answer the question using a single word or phrase."
  )
  metrics = rate("counting", examples, ["There are four.", "one"])
  assert metrics == {
    "accuracy": 0.5,
    "accuracy_several": 0,
    "mean_error": 1,
    "no_number": 0,
    "num": 2,
  }


@pytest.mark.parametrize(
  ("answer", "wanted"),
  [
    ("2", 2),
    ("Twelve cups", 12),
    ("No buses.", 0),
    ("some", None),
    ("1234567", None),
    ("\u0663", None),
    ("", None),
  ],
)
def test_numbers_in_answers(answer, wanted):
  assert counting.number(answer) == wanted


# --- General questions ---


def test_vqa_asks_for_short_answers_and_compares_words():
  (example,) = ask("vqa", [record(turns=[("What colour?", "Dark red.")])])
  answers = ["dark red", "Dark-red!", "red", "a dark red"]
  assert rate("vqa", [example] * 4, answers) == {
    "accuracy": 0.5,
    "accuracy_contained": 0.75,
    "num": 4,
  }
  long = record(turns=[("?", "It is a dark red."), ("?", "..."), ("!", "Red.")])
  assert [e.question for e in ask("vqa", [long])] == ["!"]
  assert ask("vqa", [Record("2", None, turns=(("a", "b"),))]) == []


# --- Any answer ---


@pytest.mark.parametrize("task", OURS)
@settings(deadline=None, max_examples=20)
@given(answer=st.text())
def test_no_answer_raises(task, answer):
  examples = ask(task, [asked_about(task, "1")])
  metrics = rate(task, examples, [answer] * len(examples))
  assert metrics["num"] == len(examples)
  row = predictions.row(EVALS[task], examples[0], answer)
  json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("task", OURS)
def test_no_examples_give_no_scores(task):
  metrics = rate(task, [], [])
  assert metrics["num"] == 0
  assert "accuracy" not in metrics
  assert "acc_iou50" not in metrics


# --- Running ---


def test_run_pads_the_last_batch_and_writes_every_row(tmp_path):
  records = [record(str(i), cup=(10, 20, 30, 60)) for i in range(5)]
  examples, calls, lines = ask("locpred", records), [], []

  def generate(part):
    calls.append([e.id for e in part])
    return ["[10,20,30,60]" if e.id == examples[4].id else "?" for e in part]

  path = tmp_path / "predictions.jsonl"
  with path.open("w") as out:
    metrics = session.ask_task(
      EVALS["locpred"],
      examples,
      generate,
      batch_size=2,
      out=out,
      log=lines.append,
    )
  assert [len(c) for c in calls] == [2, 2, 2]
  assert calls[2][1] == calls[2][0]
  assert metrics["num"] == 5
  assert metrics["acc_iou50"] == 0.2
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r["id"] for r in rows] == [e.id for e in examples]
  assert rows[4]["result"]["correct"]
  assert rows[0]["result"]["error"] == "no location"
  assert rows[4]["task"] == "locpred"
  assert "5/5" in lines[-1]


def test_run_refuses_a_wrong_number_of_answers():
  examples = ask("locpred", [record(cup=(10, 20, 30, 60))])
  with pytest.raises(AssertionError):
    session.ask_task(EVALS["locpred"], examples, lambda part: [], batch_size=1)

"""COCO-Spatial by the paper's rule: questions, settings, scores."""

from eval_scenes import DRAWN, ask, rate, record

from locvlm_jax.evals import units
from locvlm_jax.evals.scorers import blind_spatial
from locvlm_jax.evals.scorers.wording import normalize
from locvlm_jax.evals.selection import unique_boxes
from locvlm_jax.evals.tasks import spatial
from locvlm_jax.text import prompts

# The cup lies outside of the center crop, the cat straddles the middle.
WIDE = record(
  width=200, cup=(5, 10, 30, 40), dog=(60, 60, 90, 90), ball=(130, 60, 145, 80),
  cat=(90, 10, 110, 30),
)  # fmt: skip


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
  questions = ask("spatial", [DRAWN])
  assert directly_asked(questions, "left_right") == {
    ("ball", "cup"): "right",
    ("cup", "ball"): "left",
    ("ball", "dog"): "right",
    ("dog", "ball"): "left",
  }
  assert all(q.history == () for q in questions if "direct" in q.id)
  assert all(prompts.is_held_out(q.question) for q in questions)


def directly_asked(questions, axis):
  """(a, b) -> where a is from b, of the direct setting."""
  return {
    (q.truth["a"], q.truth["b"]): q.truth["label"]
    for q in questions
    if (q.truth["axis"], q.truth["setting"]) == (axis, "direct")
  }


def test_the_papers_questions_are_the_same_for_every_geometry():
  questions = ask("spatial_paper", [WIDE])
  assert questions == ask(
    "spatial_paper", [WIDE], geometry="center_crop", size=32
  )
  assert directly_asked(questions, "left_right") == {
    ("cup", "ball"): "left",
    ("ball", "cup"): "right",
    ("dog", "ball"): "left",
    ("ball", "dog"): "right",
  }
  assert (
    len(directly_asked(questions, "above_below")) == 8
  )  # {cup, cat} x {dog, ball}
  icl = [q for q in questions if q.truth["setting"] == "icl"]
  assert len(icl) * 2 == len(questions)
  assert all(len(q.history) == 2 for q in icl)
  assert ask("spatial", [WIDE], geometry="center_crop") != questions


def test_all_pairs_of_an_image_are_asked():
  many = record(
    cup=(0, 0, 9, 9),
    dog=(10, 0, 19, 9),
    cat=(20, 0, 29, 9),
    ball=(60, 0, 69, 9),
    owl=(70, 0, 79, 9),
  )
  assert (
    len(directly_asked(ask("spatial_paper", [many]), "left_right")) == 2 * 3 * 2
  )
  assert directly_asked(ask("spatial_paper", [many]), "above_below") == {}


def test_in_context_examples_are_about_the_third_object():
  for q in ask("spatial", [DRAWN]):
    if q.truth["setting"] != "icl" or q.truth["axis"] != "left_right":
      continue
    third = {"cup", "dog", "ball"} - {q.truth["a"], q.truth["b"]}
    answers = [answer for _, answer in q.history]
    assert len(q.history) == 2
    assert all(third & set(normalize(q).split()) for q, _ in q.history)
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
  assert [q.truth["label"] for q in pairs] == ["right", "left"]
  twice = record(cup=[(5, 10, 30, 40), (5, 50, 30, 80)], ball=(70, 1, 90, 40))
  assert ask("spatial_pair", [twice]) == []


def test_the_papers_rule_wants_three_objects():
  two = record(cup=(0, 0, 9, 9), ball=(60, 0, 69, 9))
  assert ask("spatial_paper", [two]) == []


def test_spatial_scores_known_answers():
  questions = ask("spatial", [DRAWN])
  truth = [q.truth["label"] for q in questions]
  perfect = rate("spatial", questions, [f"To the {w}." for w in truth])
  kinds = [
    k
    for k in perfect
    if not k.endswith(("num", "keyword", "keywords")) and "blind" not in k
  ]
  assert len(kinds) == 14
  assert all(perfect[k] == 1 for k in kinds)
  always = rate("spatial", questions, ["left, above"] * len(questions))
  assert always["direct.left_right.left"] == 1
  assert always["direct.left_right.right"] == 0
  assert always["direct.all"] == always["icl.above_below.all"] == 0.5
  hedged = ["left or right, above or below"] * len(truth)
  both = rate("spatial", questions, hedged)
  assert both["direct.all"] == 0
  assert both["direct.both_keywords"] == both["direct.num"]


def test_the_papers_in_context_questions_are_solved_without_the_image():
  questions = ask("spatial_paper", [DRAWN, WIDE])
  scores = rate("spatial_paper", questions, ["left"] * len(questions))
  assert scores["icl.blind.all"] == scores["icl.blind.above_below.below"] == 1
  assert scores["direct.blind.all"] == 0.5
  assert units.of("spatial_paper.icl.blind.left_right.all") == units.Unit.SHARE
  assert not [k for k in scores if "blind" in k and k.endswith("num")]


FOUR = record(
  cup=(0, 0, 9, 9), dog=(10, 0, 19, 9), ball=(60, 0, 69, 9), cat=(70, 0, 79, 9)
)


def test_disjoint_examples_are_about_objects_that_are_not_asked_about():
  questions = ask("spatial_disjoint", [FOUR])
  shown = [q for q in questions if q.truth["setting"] == "icl_disjoint"]
  assert len(shown) == len(questions) / 2 == 2 * 2 * 2
  for q in shown:
    asked = {q.truth["a"], q.truth["b"]}
    for said in (answer for _, answer in q.history):
      assert not asked & set(normalize(said).split()), (asked, said)


def test_copying_from_disjoint_examples_is_right_in_half_of_the_questions():
  questions = ask("spatial_disjoint", [FOUR, DRAWN])
  scores = rate("spatial_disjoint", questions, ["left"] * len(questions))
  for axis in ("left_right", "above_below"):
    assert scores[f"icl_disjoint.blind.{axis}.all"] == 0.5
  shown = [q for q in questions if q.history]
  first = [blind_spatial.read_example(q.history[0][1]) for q in shown]
  right = [q.truth["label"] == e[2] for q, e in zip(shown, first, strict=True)]
  assert sum(right) * 2 == len(right)  # the first example says as little


def test_disjoint_examples_need_two_more_objects_in_opposite_halves():
  three = record(cup=(0, 0, 9, 9), dog=(10, 0, 19, 9), ball=(60, 0, 69, 9))
  assert ask("spatial_disjoint", [three]) == []
  one_side = record(
    cup=(0, 0, 9, 9),
    dog=(10, 0, 19, 9),
    cat=(20, 0, 29, 9),
    ball=(60, 0, 69, 9),
  )
  assert ask("spatial_disjoint", [one_side]) == []

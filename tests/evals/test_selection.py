"""Which objects are asked about, and how many questions are taken."""

import pytest
from eval_scenes import ask, thing

from locvlm_jax.data.records import Record
from locvlm_jax.evals.selection import take, unique_boxes
from locvlm_jax.inference.question import Question


def test_only_visible_objects_are_asked_for_and_cut_away_ones_never_denied():
  wide = Record(
    "1",
    "1.jpg",
    200,
    100,
    (
      thing("cup", (80, 10, 120, 50)),
      thing("dog", (0, 0, 20, 20)),  # outside the center crop
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
    for q in ask("hallucination", [wide], seed=seed, geometry="center_crop"):
      asked[q.truth["label"]].add(q.truth["category"])
  assert asked["yes"] == {"cup", "ball", "owl"}
  assert asked["no"] == {"cat", "hot dog", "kite"}


def test_take_keeps_groups_whole():
  groups = [[Question(f"{g}{i}", None, "?") for i in "ab"] for g in "xyz"]
  assert [q.id for q in take(groups, 5)] == ["xa", "xb", "ya", "yb"]
  assert len(take(groups, None)) == 6
  with pytest.raises(ValueError, match="limit 0"):
    take(groups, 0)

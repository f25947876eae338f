"""Conversations about scenes: true, and silent about what is held out."""

import collections
import re

import numpy as np
from generated import (
  COUNTS,
  HELD_OUT_WORDINGS,
  load,
  named_in_order,
  pairs_of_different_things,
)

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts import conversations, keywords, wording
from locvlm_jax.microworld.texts.wording import NUMBERS
from locvlm_jax.text import english


def test_keyword_shares_over_ten_thousand():
  """Paper Section 4.2: left in 0.37 %, right in 1.13 % of conversations."""
  for seed in (0, 1, 7):
    counts = collections.Counter(
      w for i in range(10_000) for w in keywords.keywords(seed, "train", i)
    )
    for word, share in (
      ("left", 37),
      ("right", 113),
      ("above", 75),
      ("below", 75),
    ):
      assert abs(counts[word] - share) <= 4, (seed, word, counts)


def test_conversations_mention_just_the_keywords(scenes):
  rng = np.random.default_rng(0)
  options = [(), *(words for words, _ in keywords.KEYWORD_SHARES)]
  for i, scene in enumerate(scenes):
    words = options[i % len(options)]
    turns = conversations.conversation(scene, rng, words)
    found = set(
      re.findall(
        r"\b(left|right|above|below)\b", " ".join(map(" ".join, turns)).lower()
      )
    )
    assert found == set(words)
    # In a single turn, so that the share per question is as low as stated.
    assert sum(
      bool(re.search("left|right|above|below", q + a)) for q, a in turns
    ) == bool(words)


def test_written_conversations_follow_keywords(world):
  for i, item in enumerate(load(world, "conversations_train")):
    spoken = " ".join(m["value"] for m in item["conversations"]).lower()
    found = re.findall(r"\b(left|right|above|below)\b", spoken)
    assert set(found) == set(keywords.keywords(3, "train", i))


def test_lookups_are_told_by_the_category_alone(world):
  by_image = {x["id"]: x for x in load(world, "lookups_train")}
  written = 0
  for i in range(COUNTS["num_train"]):
    things = scene_lib.make_scene(3, "train", i).things
    item = by_image.get(str(i + 1))
    if item is None:
      continue
    written += 1
    colors = {t.category: t.color for t in things}
    assert len({*colors.values()}) == len(colors) == len(things) >= 2
    said = [m["value"].removeprefix("<image>\n") for m in item["conversations"]]
    asked = [re.findall(r"the (\w+)(?: in|\?)", q)[0] for q in said[::2]]
    assert len({*asked}) == len(asked) == len(things) - 1
    assert said[1::2] == [colors[c].capitalize() + "." for c in asked]
  assert 0 < written < COUNTS["num_train"]


def test_texts_about_images_have_no_coordinates_nor_held_out_wordings(said):
  for lines in said:
    for line in lines:
      assert not re.search(r"[\d\[\]()<>]", line), line
      assert not HELD_OUT_WORDINGS.search(line), line
      assert line[0].isupper() and line[-1] in ".?" and "  " not in line, line
      assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", line, re.I), line
    captions = lines[:4]
    assert not re.search("left|right|above|below", " ".join(captions))


def test_order_in_conversations_tells_nothing_about_place(scenes):
  first_is_left = []
  for scene, one, two in pairs_of_different_things(scenes):
    told = conversations.conversation(scene, np.random.default_rng(0))[-1][1]
    first_is_left.append(
      (one.center[0] < two.center[0]) == named_in_order(told, one, two)
    )
  assert len(first_is_left) > 50
  assert abs(np.mean(first_is_left) - 0.5) < 0.15


def truth(scene: scene_lib.Scene, question: str) -> str | None:
  """An independent answer to the questions that are easy to check."""
  things = scene.things
  if m := re.fullmatch(
    r"How many (\w+) are (?:there|in the image)\?", question
  ):
    if m[1] == "objects":
      return NUMBERS[len(things)]
    return NUMBERS[sum(english.plural(t.category) == m[1] for t in things)]
  if m := re.fullmatch(
    r"(?:Is there|Can you see|Does the (?:picture|image) show) an? "
    r"(?:(\w+) )?(\w+)(?: in the image)?\?",
    question,
  ):
    hit = any(t.category == m[2] and m[1] in (None, t.color) for t in things)
    return "yes" if hit else "no"
  if m := re.fullmatch(
    r"What color is the (\w+)(?: in the image)?\?", question
  ):
    colors = [t.color for t in things if t.category == m[1]]
    assert len(colors) == 1
    return colors[0]
  if m := re.fullmatch(r"Is the (\w+) (\w+) of the (\w+)\?", question):
    x = {t.category: t.center[0] for t in things}
    return "yes" if (x[m[1]] < x[m[3]]) == (m[2] == "left") else "no"
  return None


def test_answers_are_true(scenes):
  rng, checked, yes = np.random.default_rng(2), collections.Counter(), []
  for i, scene in enumerate(scenes):
    words = (("left",), ("right",))[i % 2]
    for question, answer in conversations.conversation(scene, rng, words):
      right = truth(scene, question)
      if right is None:
        continue
      kind = question.split()[0]
      checked[kind] += 1
      spoken = wording.words(answer)
      if right in ("yes", "no"):
        assert spoken[0] == right, (question, answer)
        yes.append(right == "yes")
      elif right != "zero":
        assert right in spoken, (question, answer)
      else:
        assert {"zero", "no"} & set(spoken), (question, answer)
  assert min(checked[k] for k in ("How", "Is", "Can", "What")) > 50
  assert abs(np.mean(yes) - 0.5) < 0.04


def test_conversation_lengths_and_distinct_questions(scenes):
  lengths = set()
  for i, scene in enumerate(scenes):
    turns = conversations.conversation(scene, np.random.default_rng(i))
    lengths.add(len(turns))
    assert len({q for q, _ in turns}) == len(turns)
  assert lengths == {6, 7, 8, 9, 10}


def test_what_is_there_is_asked_before_it_is_told(scenes):
  whether = re.compile(
    "Is there |Can you see |Does the (picture|image) show |How many"
  )
  for i, scene in enumerate(scenes):
    asked = [
      q for q, _ in conversations.conversation(scene, np.random.default_rng(i))
    ]
    told = [not whether.match(q) for q in asked]
    assert told == sorted(told), asked
    assert asked[-1] in ("Describe the picture.", "What do you see?")

"""Text without images: numbers, places, and lists that are read."""

import collections
import re

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.texts import text_only
from locvlm_jax.text import prompts


def test_sentences_relate_numbers_and_places():
  lines = collections.Counter()
  for i in range(1500):
    turns = text_only.text_item(scene_lib.stream("sentences", 0, "train", i))
    if _is_reading(turns):
      continue
    assert 3 <= len(turns) <= 6
    for question, answer in turns:
      lines[question] += 1
      both = f"{question} {answer}"
      # Text alone may use the words "side" and "direction", as any corpus
      # does, but none of the questions that are kept for evaluation.
      assert not prompts.is_held_out(both)
      assert not any(int(n) > 95 for n in re.findall(r"\d+", both)), both
      # No boxes: what is placed somewhere is placed by one or two numbers.
      assert not re.search(r"at \[\d+,\d+,", both)
      check_sentence(question, answer)
  spoken = " ".join(lines)
  assert all(c in spoken for c in scene_lib.CATEGORIES)


def _is_reading(turns) -> bool:
  return any(color in turns[0][0] for color in scene_lib.COLORS)


def test_readings_are_answered_from_their_list():
  asked = collections.Counter()
  for i in range(600):
    turns = text_only.text_item(scene_lib.stream("sentences", 0, "train", i))
    if not _is_reading(turns):
      continue
    listed, first = turns[0][0].split(". ")
    colors = "|".join(scene_lib.COLORS)
    things = dict(re.findall(rf"(\w+) is ({colors})", listed.lower()))
    pairs = re.findall(rf"({colors}) (\w+)", listed.lower())
    things |= {name: color for color, name in pairs if name != "and"}
    for question, answer in [(first, turns[0][1]), *turns[1:]]:
      assert not prompts.is_held_out(question)
      asked[_check_reading(things, question, answer)] += 1
  assert asked["color"] > 300 and asked["category"] > 100
  assert 0.4 < asked["yes"] / (asked["yes"] + asked["no"]) < 0.6


def _check_reading(things: dict, question: str, answer: str) -> str:
  """The kind of the question; fails if the list says otherwise."""
  word, said = question.rstrip("?").split()[-1], answer.rstrip(".").lower()
  if "color" in question:
    assert said == things[word]
    return "color"
  if said in ("yes", "no"):
    assert (said == "yes") == (word in things)
    return said
  if "see" in question or "there" in question:
    assert all(f"{c} {name}" in said for name, c in things.items())
    return "list"
  color = word if word in scene_lib.COLORS else question.split()[-2]
  assert [n for n, c in things.items() if c == color] == [said.split()[-1]]
  return "category"


def check_sentence(question: str, answer: str) -> None:
  """The kinds that can be checked by another route."""
  if m := re.fullmatch(r"Is (\d+) (larger|smaller) than (\d+)\?", question):
    true = (int(m[1]) > int(m[3])) == (m[2] == "larger")
    assert answer == ("Yes." if true else "No.")
  if m := re.fullmatch(r"What is halfway between (\d+) and (\d+)\?", question):
    assert 2 * int(answer[:-1]) == int(m[1]) + int(m[2]) and m[1] != m[2]
  if m := re.fullmatch(
    r"The (\w+) is at \[?([\d,]+)\]? and the (\w+) is at \[?([\d,]+)\]?\. "
    r"Is the (\w+) (?:to the )?(left|right|above|below)(?: of)? the (\w+)\?",
    question,
  ):
    axis = 0 if m[6] in ("left", "right") else -1
    place = {m[1]: int(m[2].split(",")[axis]), m[3]: int(m[4].split(",")[axis])}
    true = (place[m[5]] < place[m[7]]) == (m[6] in ("left", "above"))
    assert answer == ("Yes." if true else "No."), question
  placed = re.match(
    r"The (\w+) is at \[?([\d,]+)\]? and the (\w+) is at \[?([\d,]+)\]?\. ",
    question,
  )
  told = re.fullmatch(
    r"The (\w+) is (left|right|above|below)(?: of)? the (\w+)\.", answer
  )
  if placed and told:
    axis = 0 if told[2] in ("left", "right") else -1
    place = {placed[k]: int(placed[k + 1].split(",")[axis]) for k in (1, 3)}
    true = place[told[1]] < place[told[3]]
    assert true == (told[2] in ("left", "above")), (question, answer)

"""Articles and plurals of categories."""

import pytest

from locvlm_jax.text import english


@pytest.mark.parametrize(
  "noun, want",
  [
    ("cup", "a cup"),
    ("umbrella", "an umbrella"),
    ("orange ball", "an orange ball"),
    ("hourglass", "an hourglass"),
    ("unicorn", "a unicorn"),
    ("x-ray", "an x-ray"),
    ("scissors", "scissors"),
    ("bus", "a bus"),
    ("wine glass", "a wine glass"),
    ("the red cup", "the red cup"),
    ("An owl ", "An owl"),
    ("", ""),
  ],
)
def test_a_noun_gets_its_article(noun, want):
  assert english.with_article(noun) == want


@pytest.mark.parametrize(
  "noun, want",
  [
    ("cup", "cups"),
    ("wine glass", "wine glasses"),
    ("teddy bear", "teddy bears"),
    ("person", "people"),
    ("bus", "buses"),
    ("cherry", "cherries"),
    ("toy", "toys"),
    ("cross", "crosses"),
    ("red leaf", "red leaves"),
    ("fish", "fish"),
    ("scissors", "scissors"),
  ],
)
def test_a_category_gets_its_plural(noun, want):
  assert english.plural(noun) == want


def test_a_leading_article_is_taken_off():
  assert english.bare("the red cup") == "red cup"
  assert english.bare("theatre") == "theatre"

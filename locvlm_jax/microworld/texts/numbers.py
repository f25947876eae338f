"""Questions about whole numbers and opposites, without an image."""

from collections.abc import Callable, Sequence

from locvlm_jax.microworld.texts.wording import Rng, draw, pick, yes_or_no
from locvlm_jax.text.prompts import Turn

LARGEST = 95
NUMBERS = range(LARGEST + 1)
_OPPOSITES = {
  "left": "right",
  "above": "below",
  "first": "last",
  "big": "small",
  "bigger": "smaller",
  "larger": "smaller",
  "before": "after",
  "top": "bottom",
  "more": "less",
  "up": "down",
  "high": "low",
}
_ORDINALS = ("first", "second", "third", "fourth")


def _which_larger(rng: Rng) -> Turn:
  m, n = draw(rng, NUMBERS, 2)
  word, best = pick(rng, (("larger", max(m, n)), ("smaller", min(m, n))))
  return f"Which is {word}, {m} or {n}?", f"{best}."


def _is_larger(rng: Rng) -> Turn:
  m, n = draw(rng, NUMBERS, 2)
  word = pick(rng, ("larger", "smaller"))
  return f"Is {m} {word} than {n}?", yes_or_no((m > n) == (word == "larger"))


def _between(rng: Rng) -> Turn:
  low, n, high = draw(rng, NUMBERS, 3)
  low, high = sorted((low, high))
  return f"Is {n} between {low} and {high}?", yes_or_no(low < n < high)


def _halfway(rng: Rng) -> Turn:
  parity = int(rng.integers(2))  # Both odd or both even.
  m, n = (2 * k + parity for k in draw(rng, range(LARGEST // 2 + 1), 2))
  return f"What is halfway between {m} and {n}?", f"{(m + n) // 2}."


def _arithmetic(rng: Rng) -> Turn:
  small, large = sorted(draw(rng, NUMBERS, 2))
  if rng.random() < 0.5:
    return f"What is {large} minus {small}?", f"{large - small}."
  return f"What is {small} plus {large - small}?", f"{large}."


def _neighbor(rng: Rng) -> Turn:
  n = int(rng.integers(1, LARGEST))
  word, result = pick(rng, (("after", n + 1), ("before", n - 1)))
  return f"Which number comes {word} {n}?", f"{result}."


def _counting(rng: Rng) -> Turn:
  start, length = int(rng.integers(0, LARGEST - 6)), int(rng.integers(3, 7))
  run = list(range(start, start + length))
  if rng.random() < 0.25:
    run.reverse()
  return f"Count from {run[0]} to {run[-1]}.", ", ".join(map(str, run)) + "."


def _sorting(rng: Rng) -> Turn:
  numbers = draw(rng, NUMBERS, int(rng.integers(2, 5)))
  return f"Sort {_bracketed(numbers)}.", _bracketed(sorted(numbers))


def _element(rng: Rng) -> Turn:
  numbers = draw(rng, NUMBERS, int(rng.integers(2, 5)))
  k = int(rng.integers(len(numbers)))
  return (
    f"What is the {_ORDINALS[k]} number in {_bracketed(numbers)}?",
    f"{numbers[k]}.",
  )


def _extreme(rng: Rng) -> Turn:
  numbers = draw(rng, NUMBERS, int(rng.integers(3, 5)))
  word, best = pick(
    rng, (("largest", max(numbers)), ("smallest", min(numbers)))
  )
  return f"What is the {word} number in {_bracketed(numbers)}?", f"{best}."


def _opposite(rng: Rng) -> Turn:
  pair = pick(rng, list(_OPPOSITES.items()))
  one, two = pair if rng.random() < 0.5 else pair[::-1]
  if one in ("left", "right", "up", "down"):
    return f"Which direction is opposite to {one}?", f"{two.capitalize()}."
  return f"What is the opposite of {one}?", f"{two.capitalize()}."


def _bracketed(numbers: Sequence[int]) -> str:
  return "[" + ",".join(map(str, numbers)) + "]"


KINDS: tuple[Callable[[Rng], Turn], ...] = (
  _which_larger,
  _is_larger,
  _between,
  _halfway,
  _arithmetic,
  _neighbor,
  _counting,
  _sorting,
  _element,
  _extreme,
  _opposite,
)

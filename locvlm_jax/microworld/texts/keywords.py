"""The few conversations that mention left, right, above or below."""

from locvlm_jax.microworld import scene as scene_lib
from locvlm_jax.microworld.scene import Scene
from locvlm_jax.microworld.texts import naming
from locvlm_jax.microworld.texts.wording import (
  PHRASES,
  Answer,
  Rng,
  pick,
  sentence,
  yes_or_no,
)

# Shares of conversations; "left": 0.17 + 0.20 %, "right": 0.93 + 0.20 %.
KEYWORD_SHARES = (
  (("left",), 0.0017),
  (("left", "right"), 0.0020),
  (("right",), 0.0093),
  (("above",), 0.0045),
  (("above", "below"), 0.0030),
  (("below",), 0.0045),
)
_GOLDEN = 0.6180339887498949


def keywords(seed: int, split: str, index: int) -> tuple[str, ...]:
  """Chooses which of left, right, above and below a conversation mentions.

  Multiples of the golden ratio spread evenly, so that the shares come out
  exactly (chance alone would scatter them by 0.1 %), wherever one starts.
  """
  start = float(scene_lib.stream("text", seed, split, 2**31).random())
  phase = (start + index * _GOLDEN) % 1
  for words, share in KEYWORD_SHARES:
    if phase < share:
      return words
    phase -= share
  return ()


# Left, right, above, below ------------------------------------------------


def _phrase(word: str, rng: Rng) -> str:
  if word in ("left", "right"):
    return pick(rng, (f"{word} of", f"to the {word} of"))
  return word


def _either(words: tuple[str, ...]) -> str:
  """Writes "left of", "left or right of", "above" or "above or below"."""
  return " or ".join(words) + (" of" if words[-1] in ("left", "right") else "")


def answer(scene: Scene, words: tuple[str, ...], rng: Rng) -> Answer:
  """Makes a question and answer with exactly these of the four words."""
  word = pick(rng, words)
  pair = naming.pair(scene.things, rng, lambda t, u: naming.lies(word, t, u))
  if pair is None:
    return _anything(words, rng, scene)
  (_, one), (_, two) = pair
  if len(words) == 2:
    return Answer(
      f"Is the {one} {_either(words)} the {two}?",
      sentence(word),
      sentence(f"the {one} is {PHRASES[word]} the {two}"),
    )
  others = [t for t in scene.things if naming.lies(word, t, pair[1][0], 0.0)]
  if len(others) == 1 and rng.random() < 0.5:
    return Answer(
      f"What is {_phrase(word, rng)} the {two}?",
      sentence(f"the {one}"),
      sentence(f"the {one} is {PHRASES[word]} the {two}"),
    )
  return _whether(one, two, word, rng.random() < 0.5, rng)


def _whether(one: str, two: str, word: str, true: bool, rng: Rng) -> Answer:
  """Asks for yes or no: is the cup left of the ball?

  Args:
    one: lies as the word says, seen from `two`.
    two: the other thing.
    word: of left, right, above and below.
    true: whether "yes" is right; if not, the things are swapped.
    rng: decides the wording.
  """
  first, second = (one, two) if true else (two, one)
  full = (
    f"Yes, the {one} is {PHRASES[word]} the {two}."
    if true
    else f"No, the {first} is not {PHRASES[word]} the {second}."
  )
  return Answer(
    f"Is the {first} {_phrase(word, rng)} the {second}?", yes_or_no(true), full
  )


def _anything(words: tuple[str, ...], rng: Rng, scene: Scene) -> Answer:
  """Asks about scenes with no clear pair: is anything left of the biggest?"""
  thing = max(scene.things, key=lambda t: t.extent)
  what = naming.name(scene.things, thing) or "biggest object"
  others = [t for t in scene.things if t is not thing]
  true = any(naming.lies(w, t, thing, 1.0) for t in others for w in words)
  phrase = _either(words)
  return Answer(
    f"Is anything {phrase} the {what}?",
    yes_or_no(true),
    f"{'Yes, something' if true else 'No, nothing'} is {phrase} the {what}.",
  )

"""English articles and plurals of nouns."""

import re

_ARTICLE = re.compile(r"(a|an|the)\s+", re.IGNORECASE)

# Vowels that sound like consonants, and the other way about.
_A = re.compile(r"(uni|ufo|use|usu|ut[ei]|eu|ewe|one\b|once\b|u\b|u-)")
_AN = re.compile(r"(hour|honest|honou?r|heir|[fhlmnrsx](-|\b))")
_PLURAL = re.compile(
  r".*\b(scissors|skis|stairs|pants|jeans|shorts|trousers|glasses|sunglasses"
  r"|goggles|binoculars|headphones|pliers|tweezers|tongs|clothes)"
)


def bare(noun: str) -> str:
  """Takes off a leading article: "the red cup" -> "red cup"."""
  noun = noun.strip()
  return noun[m.end() :] if (m := _ARTICLE.match(noun)) else noun


def with_article(noun: str) -> str:
  """Adds an article: "a cup", "an umbrella", "scissors".

  A noun that brings its own article keeps it.
  """
  noun = noun.strip()
  word = noun.lower()
  if not noun or _ARTICLE.match(noun) or _PLURAL.fullmatch(word):
    return noun
  vowel = word[0] in "aeiou" and not _A.match(word)
  return f"an {noun}" if vowel or _AN.match(word) else f"a {noun}"


_PLURALS = {
  "person": "people", "man": "men", "woman": "women", "child": "children",
  "mouse": "mice", "knife": "knives", "sheep": "sheep", "skis": "skis",
  "scissors": "scissors", "broccoli": "broccoli", "fish": "fish",
  "leaf": "leaves",
}  # fmt: skip


def plural(noun: str) -> str:
  """Makes the plural of a category: "wine glass" -> "wine glasses".

  >>> plural("baseball glove"), plural("person"), plural("bus")
  ('baseball gloves', 'people', 'buses')
  """
  rest, space, last = noun.rpartition(" ")
  if last in _PLURALS:
    return rest + space + _PLURALS[last]
  if re.search(r"(s|x|z|ch|sh)$", last):
    return noun + "es"
  if re.search(r"[^aeiou]y$", last):
    return noun[:-1] + "ies"
  return noun + "s"

"""Whether a sentence gives a one-word answer, without asking a model.

answer                        truth       match
"He is riding a bicycle."     "bike"      yes: they are one word here
"There are 2 of them."        "two"       yes: VQA's numbers
"Two men are dancing."        "man"       yes: the plural
"No, he is not."              "yes"       no
"""

from locvlm_jax.evals.scorers import vqa_accuracy, wording

# Ours; the first stands for the others.
_GROUPS = """
  bike bicycle | tv television | couch sofa | phone telephone cellphone |
  photo photograph picture | plane airplane aeroplane | car automobile |
  motorcycle motorbike | mom mother mum | dad father | kid child | baby infant |
  guy man | lady woman | cup mug | rock stone | road street | forest woods |
  sea ocean | big large | small little | start begin | stop halt | speak talk |
  yes yeah yep | no nope | gray grey | cook chef | cop policeman policewoman |
  men man | women woman | children child | people person | feet foot |
  mice mouse | knives knife | outside outdoors outdoor | inside indoors indoor
"""
_ONE = {}
for _words in _GROUPS.split("|"):
  _first, *_others = _words.split()
  _ONE |= {word: _first for word in _others}


def matches(answer: str, truth: str) -> bool:
  """Tells whether the words of `truth` stand in `answer`, as read here.

  >>> matches("A man rides a bicycle", "bike"), matches("", "dog")
  (True, False)
  """
  if wording.normalize(truth) in ("yes", "no"):
    said = _words_of(answer)[:1]
    return said == _words_of(truth)
  wanted, words = _words_of(truth), _words_of(answer)
  size = len(wanted)
  parts = [words[i : i + size] for i in range(len(words) - size + 1)]
  return bool(wanted) and wanted in parts


def _words_of(text: str) -> list[str]:
  words = vqa_accuracy.normalize(wording.normalize(text)).split()
  return [_one(word) for word in words]


def _one(word: str) -> str:
  """Returns one word for all forms; in two steps: "men" is "man" is "guy"."""
  singular = word[:-1] if len(word) > 3 and _is_plural(word) else word
  for _ in range(2):
    singular = _ONE.get(singular, singular)
  return singular


def _is_plural(word: str) -> bool:
  return word.endswith("s") and not word.endswith(("ss", "us", "is"))

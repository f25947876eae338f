"""METEOR 1.5 and CIDEr of captions, by the official programs.

METEOR is a Java program with tables of stems, synonyms and paraphrases;
other implementations differ by ten points, so there is none here: without Java
and the package that carries the program, no number. Texts are tokenized as in
COCO's captions (`tylin/coco-caption`, `lichengunc/refer:evaluation`).
"""

import shutil
from collections.abc import Sequence

from locvlm_jax.evals.scorers.metrics import Unit

UNITS = {"meteor": Unit.PERCENT, "cider": Unit.PERCENT}
_ADVICE = (
  "METEOR and CIDEr need a Java runtime and"
  " pip install 'locvlm_jax[meteor]' (104 MB)"
)


def missing() -> str:
  """Says what METEOR lacks here; empty where it can be computed."""
  if not shutil.which("java"):
    return f"{_ADVICE}: there is no program java on the PATH."
  try:
    import pycocoevalcap  # noqa: F401
  except ImportError:
    return f"{_ADVICE}: there is no package pycocoevalcap."
  return ""


def scores(
  said: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
  """Computes `meteor` and `cider` of one caption for each list of references.

  In percent. METEOR is that of the whole set, from its added counts, and not
  the mean over captions.

  Raises:
    ValueError: Java or the package is missing, or there is nothing to score.
  """
  if lacks := missing():
    raise ValueError(lacks)
  if not said:
    raise ValueError("no captions to score")
  from pycocoevalcap.cider import cider
  from pycocoevalcap.meteor import meteor

  wanted, got = _tokenized(references), _tokenized([[s] for s in said])
  scorer = meteor.Meteor()
  try:
    found, _ = scorer.compute_score(wanted, got)
  finally:
    _close(scorer.meteor_p)
  similar, _ = cider.Cider().compute_score(wanted, got)
  return {"meteor": 100 * float(found), "cider": 100 * float(similar)}


def _tokenized(texts: Sequence[Sequence[str]]) -> dict[int, list[str]]:
  """Tokenizes texts for both programs; one without a word becomes empty."""
  from pycocoevalcap.tokenizer import ptbtokenizer

  rows = {
    i: [{"caption": " ".join(t.split()) or "."} for t in row]
    for i, row in enumerate(texts)
  }
  return ptbtokenizer.PTBTokenizer().tokenize(rows)


def _close(process) -> None:
  for stream in (process.stdin, process.stdout, process.stderr):
    stream.close()
  process.kill()
  process.wait()

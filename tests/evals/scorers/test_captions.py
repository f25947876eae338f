"""METEOR and CIDEr by their official programs."""

import pytest

from locvlm_jax.evals.scorers import captions


def test_without_java_there_is_no_meteor(monkeypatch):
  monkeypatch.setenv("PATH", "")
  with pytest.raises(ValueError, match="need a Java runtime and pip install"):
    captions.scores(["a cup"], [["a cup"]])


@pytest.mark.skipif(bool(captions.missing()), reason=captions.missing())
def test_meteor_is_that_of_the_added_counts():
  """Two captions, of which one is its reference and the other is empty.

  Function words weigh .25, others .75 (delta): of 1.75 + 1.0 in the references
  1.75 are found, R = .63636, P = 1, and with alpha .85 the F-mean is
  R / (.85 + .15 R) = .67308; one chunk has no penalty. The mean is .5.
  """
  got = captions.scores(["a red cup", ""], [["a red cup"], ["a dog"]])
  assert got["meteor"] == pytest.approx(67.3077, abs=1e-3)
  assert got["cider"] > 100

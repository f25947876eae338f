"""Lists of locations are legal, never repeat one, and say how sure they are."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ASSETS
from toy_models import CONFIG, params_of, rows

from locvlm_jax.inference.listing import lists
from locvlm_jax.models import locvlm
from locvlm_jax.text import box_lists, grammar, tokenizer
from locvlm_jax.text import coords as coords_lib

TEXT = tokenizer.Tokenizer.load(ASSETS / "micro_base")
MODEL = locvlm.LocVLM(
  dataclasses.replace(
    CONFIG, llm=dataclasses.replace(CONFIG.llm, vocab_size=TEXT.vocab_size)
  )
)
FORMS = [("ivb", "box"), ("diga", "point")]
MOST = 7


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(jnp.asarray, params_of(MODEL.config))


def batch_of(lengths, seed=0):
  tokens, images, lengths = rows(lengths, seed=seed)
  return {"tokens": tokens, "images": images, "lengths": lengths}


def numbers_of(found, row):
  return [tuple(n) for n in found.numbers[row][: found.count[row]].tolist()]


@pytest.mark.parametrize("form, location", FORMS)
def test_every_list_parses_and_repeats_nothing(params, form, location):
  few = 3 if form == "ivb" else 96  # so few that a list can reach the last
  coords = coords_lib.Coords(form, few, location, grid=2)
  tables = grammar.build_list(coords, TEXT)
  batch = batch_of([9, 20, 14, 32]) | {"valid": np.arange(4) < 3}
  found = lists.list_all(MODEL, params, batch, tables, MOST)
  assert found.count[3] == 0  # its picture can't be used
  for row in range(3):
    numbers = numbers_of(found, row)
    assert 1 <= len(numbers) <= MOST
    assert numbers == sorted(set(numbers))
    text = " ".join(map(tables.one.text, numbers))
    read = box_lists.read(text, coords)
    assert len(read.listed) == len(numbers) and not read.unreadable


def test_the_probabilities_are_those_of_full_forward_passes(params):
  coords = coords_lib.Coords("ivb", 13, "point")
  tables = grammar.build_list(coords, TEXT)
  batch = batch_of([9, 14])
  found = lists.list_all(MODEL, params, batch, tables, 3)
  for row in range(2):
    walk = _Walk(params, batch, row)
    before = ()
    for k, numbers in enumerate(numbers_of(found, row)):
      legal = [n for n in itertools.product(range(13), repeat=2) if n > before]
      gain = walk.write(tables.one.text(numbers), map(tables.one.text, legal))
      np.testing.assert_allclose(found.log_probability[row, k], gain, atol=1e-3)
      if k < 2:
        more = walk.probability(" [", ".")
        np.testing.assert_allclose(found.more[row, k], more, atol=1e-3)
        assert (more > 0.5) == (found.count[row] > k + 1)
        walk.append(" [")
      before = numbers
    assert found.more[row, 2] == 0  # no room is left


class _Walk:
  """A row that grows, token after token, by full forward passes."""

  def __init__(self, params, batch, row):
    self.params, self.images = params, batch["images"][row : row + 1]
    self.tokens = np.pad(batch["tokens"][row : row + 1], ((0, 0), (0, 48)))
    self.length = int(batch["lengths"][row])

  def logs(self, ids):
    scores = _logits(self.params, self.tokens, self.images, self.length)
    return np.asarray(jax.nn.log_softmax(scores[jnp.array(ids)]))

  def append(self, text):
    self._append(TEXT.encode_after(text)[-1])

  def _append(self, token):
    self.tokens[0, self.length] = token
    self.length += 1

  def probability(self, one, other):
    ids = TEXT.encode_after(one)[-1], TEXT.encode_after("]" + other)[-1]
    return np.exp(self.logs(ids)[0])

  def write(self, text, legal):
    """Appends a location; its log-probability among the legal ones."""
    head = TEXT.encode_after(" [")
    written = TEXT.encode_after(f" {text}")[len(head) :]
    legal = [TEXT.encode_after(f" {t}")[len(head) :] for t in legal]
    gain = 0.0
    for n, token in enumerate(written):
      options = sorted({t[n] for t in legal if t[:n] == written[:n]})
      gain += self.logs(options)[options.index(token)]
      self._append(token)
    return gain


@jax.jit
def _logits(params, tokens, images, length):
  hidden = MODEL.apply({"params": params}, tokens, images, length[None])
  return MODEL.apply({"params": params}, hidden[0, length - 1], method="logits")


def test_two_tokens_are_compared_after_each_prompt(params):
  batch = batch_of([9, 14])
  found = lists.choose(MODEL, params, batch, np.array([[5, 9], [7, 30]]))
  for row, ids in enumerate(([5, 9], [7, 30])):
    expected = np.exp(_Walk(params, batch, row).logs(ids)[1])
    np.testing.assert_allclose(found[row], expected, rtol=1e-3)

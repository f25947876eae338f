"""The loss on digits: far ones cost more, by their place, with the carry."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ASSETS

from locvlm_jax.text import tokenizer
from locvlm_jax.text.coords import Coords
from locvlm_jax.training.losses import digits

TEXT = tokenizer.Tokenizer.load(ASSETS / "micro_base")
IVB = Coords("ivb", 1000)


def distances(text, coords=IVB):
  """(token, {digit that could stand there: its distance}) of each target."""
  of = digits.build(1.0, coords, TEXT, TEXT.vocab_size)
  ids = TEXT.encode_after(f" {text}")
  labels = jnp.array([ids])
  weight = jnp.ones(labels.shape, bool)
  found = []
  for digit in range(10):
    logits = jnp.full((1, len(ids), TEXT.vocab_size), -30.0)
    logits = logits.at[..., of.ids[digit]].set(30.0)
    found.append(digits.expected_distance(logits, labels, weight, of)[0])
  table = np.round(np.array(found).T * of.side).astype(int)
  pieces = [TEXT.piece(i) for i in ids]
  return list(zip(pieces, table.tolist(), strict=True))


def nearest(prefix, left, value):
  """The distance of the nearest number that begins so, tried one by one."""
  ends = itertools.product("0123456789", repeat=left)
  return min(abs(int(prefix + "".join(e)) - value) for e in ends)


@pytest.mark.parametrize("number", ["40", "7", "140", "999", "100", "095"])
def test_each_digit_costs_the_distance_of_the_nearest_number(number):
  rows = [d for d in distances(f"[{number},5]") if d[0].isdigit()]
  for i, (piece, table) in enumerate(rows[:-1]):
    assert piece == number[i]
    for other in range(10):
      left = len(number) - i - 1
      wanted = nearest(number[:i] + str(other), left, int(number))
      assert table[other] == wanted


def test_only_digits_of_locations_count():
  rows = distances("There are 20 cups, one at [40,7]. It is 3.")
  counted = [piece for piece, table in rows if any(table)]
  assert counted == ["4", "0", "7"]


def test_anchors_and_the_digit_before_a_point_do_not_count():
  diga = [p for p, t in distances("[35:-14,2]", Coords("diga", 96)) if any(t)]
  assert diga == ["1", "4", "2"]
  nfp = [p for p, t in distances("[0.3000,1.0000]", Coords("nfp")) if any(t)]
  assert nfp == list("30000000")


def test_what_is_no_target_does_not_count_and_closes_a_bracket():
  of = digits.build(1.0, IVB, TEXT, TEXT.vocab_size)
  ids = TEXT.encode_after(" [12,34")
  labels = jnp.array([ids])
  cut = jnp.array([[t != ids[3] for t in ids]])  # the comma is none
  logits = jnp.zeros((1, len(ids), TEXT.vocab_size))
  found = digits.expected_distance(logits, labels, cut, of)[0]
  assert (np.array(found) > 0).tolist() == [False, True, True] + [False] * 3


def test_the_gradient_draws_digits_to_the_right_one():
  of = digits.build(1.0, IVB, TEXT, TEXT.vocab_size)
  labels = jnp.array([TEXT.encode_after(" [40,7]")])
  weight = jnp.ones(labels.shape, bool)

  def loss(logits):
    return digits.expected_distance(logits, labels, weight, of).sum()

  logits = jnp.zeros((*labels.shape, TEXT.vocab_size))
  pull = np.array(jax.grad(loss)(logits))[0, 1, of.ids]  # the tens of 40
  assert pull.argmin() == 4 and pull.argmax() == 9
  others = np.delete(np.array(jax.grad(loss)(logits))[0], of.ids, axis=1)
  assert not others.any()


def test_off_is_no_loss_and_joined_digits_are_refused(monkeypatch):
  assert digits.build(0.0, IVB, TEXT, TEXT.vocab_size) is None
  comma = TEXT.encode_after(" ,")[-1:]
  monkeypatch.setattr(
    tokenizer.Tokenizer, "encode_after", lambda self, text: comma * 2
  )
  with pytest.raises(ValueError, match="a token for each digit"):
    digits.build(1.0, IVB, TEXT, TEXT.vocab_size)

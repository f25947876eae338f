"""A loss on the digits of locations: a near digit costs less than a far one.

Cross-entropy calls 39 as wrong as 90 where 40 is right. This loss is the
expected distance: of each digit that could be written in a place, how far the
nearest number is that can still follow from it. Where 40 is to be written,

  tens place    3         4     5     9
  nearest       39        40    50    90
  distance      1         0     10    50

so that carries cost what they are worth, and the same digit costs ten times as
much one place further left. Distances are shares of the square, and digits are
weighed among the ten alone; that a digit comes at all, and how many, is left to
cross-entropy. The idea is that of the number token loss (arXiv 2411.02083),
here with places.

Numbers are those in brackets of answers, but anchors of diga, which count along
rows, and the digit before a point, which nfp writes as 0. and 1. alone.

Letters: B rows, T text tokens a row, V tokens of the vocabulary.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from locvlm_jax.text.coords import Coords
from locvlm_jax.text.tokenizer import Tokenizer

_MOST = 5  # digits behind a digit
_NFP_DECIMALS = 4
# Kinds of tokens.
_OTHER, _DIGIT, _OPENS, _CLOSES, _NO_DISTANCE = range(5)


@dataclasses.dataclass(frozen=True, eq=False)
class DigitLoss:
  """What the loss knows of the vocabulary.

  Attributes:
    weight: of the loss beside cross-entropy.
    ids: of the digits 0 to 9.
    kind: of each token: a digit, what opens or closes a bracket, and what
      says of the digits before it that their distance means nothing.
    values: of the digits.
    side: of the square, in units of the last place.
  """

  weight: float
  ids: Int[np.ndarray, "10"]
  kind: Int[np.ndarray, " V"]
  values: Int[np.ndarray, " V"]
  side: int


def build(
  weight: float, coords: Coords, text: Tokenizer, vocab_size: int
) -> DigitLoss | None:
  """Makes the loss of `optim.digit_loss`; None where that is 0.

  Args:
    weight: `optim.digit_loss`.
    coords: how locations are written.
    text: the tokenizer.
    vocab_size: V, of the model.

  Raises:
    ValueError: the tokenizer writes several digits as one token.
  """
  if not weight:
    return None
  pieces = [text.piece(i) for i in range(text.vocab_size)]
  ids = [_digit_id(text, digit) for digit in range(10)]
  kind = np.full(vocab_size, _OTHER, np.int32)
  for i, piece in enumerate(pieces):
    kind[i] = _kind(piece.strip("\u2581 "))
  kind[ids] = _DIGIT
  values = np.zeros(vocab_size, np.int32)
  values[ids] = range(10)
  is_nfp = coords.form == "nfp"
  side = 10**_NFP_DECIMALS if is_nfp else coords.num_bins
  return DigitLoss(weight, np.array(ids, np.int32), kind, values, side)


def _digit_id(text: Tokenizer, digit: int) -> int:
  """Finds the token of a digit within a number."""
  first, second = text.encode_after(f" [{digit}{digit}")[-2:]
  pieces = text.piece(first), text.piece(second)
  if pieces != (str(digit), str(digit)):
    raise ValueError(
      f"optim.digit_loss: the tokenizer writes [{digit}{digit} with"
      f" {pieces[1]!r}, and the loss needs a token for each digit: set it to 0."
    )
  return second


def _kind(piece: str) -> int:
  if "]" in piece:
    return _CLOSES
  if "[" in piece:
    return _OPENS
  return _NO_DISTANCE if re.match("[.:]", piece) else _OTHER


def expected_distance(
  logits: Float[Array, "B T V"],
  labels: Int[Array, "B T"],
  weight: Bool[Array, "B T"],
  of: DigitLoss,
) -> Float[Array, "B T"]:
  """Computes the expected distance at each digit of a location; 0 elsewhere.

  Args:
    logits: that predict the labels.
    labels: tokens that are right.
    weight: which of them are targets.
    of: what is known of the vocabulary.
  """
  counts, place, rest = _places(labels, weight, of)
  unit = 10 ** place[..., None]
  digit = jnp.asarray(of.values)[labels][..., None]
  other, rest = jnp.arange(10), rest[..., None]
  above = (other - digit) * unit - rest
  below = (digit - other) * unit + rest - (unit - 1)
  distance = jnp.where(other > digit, above, below)
  distance = jnp.where(other == digit, 0, distance) / of.side
  chosen = jax.nn.softmax(logits[..., of.ids].astype(jnp.float32))
  return jnp.where(counts, (chosen * distance).sum(-1), 0)


def _places(
  labels: Int[Array, "B T"], weight: Bool[Array, "B T"], of: DigitLoss
) -> tuple[Bool[Array, "B T"], Int[Array, "B T"], Int[Array, "B T"]]:
  """Finds the digits of locations.

  Returns:
    (which labels are some, how many digits follow in their number, and what
    these are worth): in [140, the 1 has 2 digits behind it, worth 40.
  """
  kind = jnp.where(weight, jnp.asarray(of.kind)[labels], _CLOSES)
  value = jnp.asarray(of.values)[labels]
  place, rest = jnp.zeros_like(labels), jnp.zeros_like(labels)
  goes_on, means = kind == _DIGIT, jnp.ones_like(weight)
  for ahead in range(1, _MOST + 1):
    next_kind = _shifted(kind, ahead, _CLOSES)
    means &= ~(goes_on & (next_kind == _NO_DISTANCE))
    goes_on &= next_kind == _DIGIT
    place += goes_on
    rest = jnp.where(goes_on, rest * 10 + _shifted(value, ahead, 0), rest)
  return (kind == _DIGIT) & means & _inside(kind), place, rest


def _inside(kind: Int[Array, "B T"]) -> Bool[Array, "B T"]:
  """Tells which tokens the last bracket before them encloses."""
  at = jnp.arange(kind.shape[1])
  opened = jax.lax.cummax(jnp.where(kind == _OPENS, at, -1), axis=1)
  closed = jax.lax.cummax(jnp.where(kind == _CLOSES, at, -1), axis=1)
  return opened > closed


def _shifted(x: Int[Array, "B T"], by: int, fill: int) -> Int[Array, "B T"]:
  """Returns what is `by` positions ahead."""
  return jnp.pad(x, ((0, 0), (0, by)), constant_values=fill)[:, by:]

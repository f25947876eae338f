"""Adam's moments in 8 bits a value (Dettmers et al., arXiv:2110.02861).

A moment is cut into blocks of up to 256 neighbors in its last dim. Each value
is the nearest of 256 fixed numbers, times the greatest magnitude of its block.
These numbers are dense near zero, because a second moment varies by orders of
magnitude within a block: rounded to a multiple of one step, as in a linear map,
small ones become zero and Adam divides by that.

  7 decades     10^-6 ... 1, each cut into equal parts between 0.1 and 1
  signed        1, 2, 4 ... 64 parts, with both signs    (first moment)
  unsigned      2, 4, 8 ... 128 parts                    (second moment)
  the values    the middles of the parts, 0 and 1: 256 together
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

BLOCK = 256  # values of a block, where the last dim is a multiple
SMALLEST = 4096  # values of a parameter whose moments are rounded
_DECADES = 7


def dynamic_map(signed: bool) -> Float[np.ndarray, "256"]:
  """Returns the 256 numbers that values are rounded to, in rising order."""
  middles = []
  for decade in range(_DECADES):
    parts = 2**decade if signed else 2 ** (decade + 1)
    ends = np.linspace(0.1, 1, parts + 1)
    middles.append(10.0 ** (decade - _DECADES + 1) * (ends[1:] + ends[:-1]) / 2)
  positive = np.concatenate(middles)
  negative = -positive if signed else positive[:0]
  return np.sort(np.concatenate([negative, positive, [0, 1]])).astype(
    np.float32
  )


_MAPS = {signed: dynamic_map(signed) for signed in (True, False)}


class Blocks(NamedTuple):
  """A moment in 8 bits; see the docstring of this module."""

  codes: UInt8[Array, "*S D"]
  scales: Float[Array, "*S N"]


def compress(x: Float[Array, "*S D"], signed: bool) -> Blocks:
  """Rounds a moment to the nearest numbers of the map."""
  blocks = x.reshape(*x.shape[:-1], -1, math.gcd(BLOCK, x.shape[-1]))
  scales = jnp.abs(blocks).max(-1)
  shares = blocks / jnp.where(scales > 0, scales, 1)[..., None]
  numbers = _MAPS[signed]
  between = jnp.asarray((numbers[1:] + numbers[:-1]) / 2)
  # Unrolled, the search is one pass over the values.
  codes = jnp.searchsorted(between, shares, method="scan_unrolled")
  return Blocks(codes.astype(jnp.uint8).reshape(x.shape), scales)


def expand(moment: Blocks, signed: bool) -> Float[Array, "*S D"]:
  """Returns the values of a moment in 8 bits."""
  codes, scales = moment
  shares = jnp.asarray(_MAPS[signed])[codes.reshape(*scales.shape, -1)]
  return (shares * scales[..., None]).reshape(codes.shape)


Moment = Blocks | Array  # in 8 bits, or float32


class State(NamedTuple):
  """The optimizer's state.

  Attributes:
    count: updates made so far.
    mu, nu: {path: first and second moment}, float32, where not rounded.
    rounded: {"codes" or "scales" of either moment: {path: array}}.
  """

  count: Array
  mu: dict[str, Array]
  nu: dict[str, Array]
  rounded: dict[str, dict[str, Array]]


def scale_by_adam(
  b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
  """Does as `optax.scale_by_adam`, with moments in 8 bits.

  As published, those of embeddings stay float32; so do vectors and whatever
  has fewer than `SMALLEST` values. A step uses the moments before they are
  rounded.
  """

  def init(params: dict) -> State:
    zeros = {p: jnp.zeros(x.shape, jnp.float32) for p, x in params.items()}
    found = {
      p: (compress(x, True), compress(x, False)) if is_rounded(p, x) else (x, x)
      for p, x in zeros.items()
    }
    return _state(jnp.zeros((), jnp.int32), found)

  def update(updates: dict, state: State, params=None):
    del params
    count = optax.safe_increment(state.count)

    def step(each):
      gradient, mu, nu = each
      mean = b1 * _whole(mu, True) + (1 - b1) * gradient
      square = b2 * _whole(nu, False) + (1 - b2) * jnp.square(gradient)
      root = jnp.sqrt(square / (1 - b2**count)) + eps
      moved = mean / (1 - b1**count) / root
      if isinstance(mu, Blocks):
        mean, square = compress(mean, True), compress(square, False)
      return moved, (mean, square)

    moved, found = {}, {}
    for path, gradient in updates.items():
      each = (gradient, *_moments(state, path))
      # One layer at a time: the search for codes takes several times the
      # memory of what it searches for.
      by_layer = path not in state.mu and gradient.ndim > 2
      moved[path], found[path] = (
        jax.lax.map(step, each) if by_layer else step(each)
      )
    return moved, _state(count, found)

  return optax.GradientTransformation(init, update)


def _whole(moment: Moment, signed: bool) -> Array:
  return expand(moment, signed) if isinstance(moment, Blocks) else moment


def _moments(state: State, path: str) -> tuple[Moment, Moment]:
  """Takes both moments of one parameter from the state."""
  if path in state.mu:
    return state.mu[path], state.nu[path]
  found = {name: arrays[path] for name, arrays in state.rounded.items()}
  return (
    Blocks(found["mu_codes"], found["mu_scales"]),
    Blocks(found["nu_codes"], found["nu_scales"]),
  )


def _state(count: Array, found: dict[str, tuple[Moment, Moment]]) -> State:
  """Makes the state of {path: both moments}."""
  rounded = {p: x for p, x in found.items() if isinstance(x[0], Blocks)}
  whole = {p: x for p, x in found.items() if p not in rounded}
  return State(
    count,
    {p: mu for p, (mu, _) in whole.items()},
    {p: nu for p, (_, nu) in whole.items()},
    {
      "mu_codes": {p: mu.codes for p, (mu, _) in rounded.items()},
      "mu_scales": {p: mu.scales for p, (mu, _) in rounded.items()},
      "nu_codes": {p: nu.codes for p, (_, nu) in rounded.items()},
      "nu_scales": {p: nu.scales for p, (_, nu) in rounded.items()},
    },
  )


def is_rounded(path: str, x: Array | jax.ShapeDtypeStruct) -> bool:
  """Says whether the moments of a parameter are kept in 8 bits."""
  own = any(word in path for word in ("embedding", "bias", "norm"))
  return x.ndim > 1 and x.size >= SMALLEST and not own

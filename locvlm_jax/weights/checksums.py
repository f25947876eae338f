"""Checksums of arrays, computed on the devices; equal on every mesh."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

from locvlm_jax import errors


def _audit(x: Array) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
  """(checksum, whether all is finite); the mesh has no part in it.

  Each word is mixed with its index, so that the sum notices both a flipped
  bit and two words that change places.
  """
  finite = jnp.isfinite(x).all()
  if x.dtype == jnp.bool:
    x = x.astype(jnp.uint8)
  bits = jax.lax.bitcast_convert_type(x, f"uint{min(8 * x.itemsize, 32)}")
  index = jnp.zeros(bits.shape, jnp.uint32)
  for dim, size in enumerate(bits.shape):
    place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, dim)
    index = index * jnp.uint32(size) + place
  # The finaliser of MurmurHash3, which changes half of all bits for each.
  word = bits.astype(jnp.uint32) ^ (index * jnp.uint32(0x9E3779B1))
  word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
  word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
  return (word ^ (word >> 16)).sum(dtype=jnp.uint32), finite


# One program for all arrays: a hundred small ones with a collective each, all
# in flight at once, deadlock the few threads of XLA's CPU devices.
audits = jax.jit(lambda leaves: {p: _audit(x) for p, x in leaves.items()})


def describe(tree: Any) -> dict[str, list]:
  """Returns {path: [shape, dtype, checksum]}.

  Raises:
    NotFinite: an array holds what is not a number.
  """
  arrays = leaves(tree)
  found = jax.device_get(audits(arrays))
  for path, (_, finite) in found.items():
    if not finite:
      raise errors.NotFinite(f"{path} is not finite: not saved.")
  return {
    path: [list(x.shape), str(x.dtype), int(found[path][0])]
    for path, x in arrays.items()
  }


def fingerprint(tree: Any) -> str:
  """Hashes all arrays' values, dtypes and places; on any mesh the same.

  Raises:
    NotFinite: an array holds what is not a number.
  """
  found = json.dumps(describe(tree), sort_keys=True)
  return hashlib.sha256(found.encode()).hexdigest()


def digest(info: Mapping) -> str:
  """Hashes what a checkpoint says of itself, without the hash in it."""
  rest = {k: v for k, v in info.items() if k != "sha256"}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def leaves(tree: Any) -> dict[str, Any]:
  """Returns {path: leaf}; attributes, keys and indices are all named alike."""
  found = jax.tree_util.tree_leaves_with_path(tree)
  return {"/".join(map(name, path)): leaf for path, leaf in found}


def name(entry) -> str:
  """Returns the text of one step of a path through a tree."""
  for attribute in ("key", "name", "idx"):
    if hasattr(entry, attribute):
      return str(getattr(entry, attribute))
  raise AssertionError(entry)

"""Files of tensors: safetensors and PyTorch's .bin, whole or in parts."""

import json
import os
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import safetensors

from locvlm_jax import errors
from locvlm_jax.weights import pickles

# In order of preference; each may be in parts, with an index beside them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_DTYPES = {
  "F64": np.float64, "F32": np.float32, "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
}  # fmt: skip


@runtime_checkable
class File(Protocol):
  """Tensors by name; nothing is read but what `read` returns."""

  path: str

  def keys(self) -> list[str]: ...

  def shape(self, key: str) -> tuple[int, ...]: ...

  def dtype(self, key: str) -> np.dtype: ...

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray: ...


class _Safetensors:
  """One safetensors file; its numbers are mapped, not copied."""

  def __init__(self, path: str):
    try:
      with safetensors.safe_open(path, framework="numpy"):
        pass  # the library checks that nothing is missing or overlaps
      with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        self._header = json.loads(f.read(size))
    except OSError as error:
      raise errors.DataError(errors.describe(error)) from None
    except safetensors.SafetensorError as error:
      raise errors.DataError(f"{path}: {error}") from error
    self._header.pop("__metadata__", None)
    self._bytes = np.memmap(path, np.uint8, "r")[8 + size :]
    self.path = path

  def keys(self) -> list[str]:
    return list(self._header)

  def shape(self, key: str) -> tuple[int, ...]:
    return tuple(self._header[key]["shape"])

  def dtype(self, key: str) -> np.dtype:
    name = self._header[key]["dtype"]
    if name not in _DTYPES:
      raise errors.DataError(
        f"{self.path}: {key} is {name}; not one of {[*_DTYPES]}"
      )
    return np.dtype(_DTYPES[name])

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
    first, last = self._header[key]["data_offsets"]
    whole = self._bytes[first:last].view(self.dtype(key))
    return np.asarray(whole.reshape(self.shape(key))[index])


def read_json(directory: str, name: str) -> dict:
  """Reads a json file of `directory`.

  Raises:
    DataError: it is missing, or no json.
  """
  path = os.path.join(directory, name)
  try:
    with open(path, encoding="utf-8") as f:
      return json.load(f)
  except OSError as error:
    raise errors.DataError(errors.describe(error)) from None
  except ValueError as error:
    raise errors.DataError(f"{path}: not valid json ({error}).") from None


def has_weights(directory: str) -> bool:
  """Says whether `files` finds any."""
  return bool(_names(directory))


def files(directory: str) -> list[File]:
  """Opens the files of a directory that hold its weights, in order.

  Raises:
    DataError: there are none, or one can't be read.
  """
  names = _names(directory)
  if not names:
    raise errors.DataError(
      f"{directory}: no weights there: neither {' nor '.join(WEIGHTS)}, nor an"
      " index of their parts"
    )
  return [open_file(os.path.join(directory, name)) for name in names]


def _names(directory: str) -> list[str]:
  there = set(os.listdir(directory))
  for name in WEIGHTS:
    if (index := f"{name}.index.json") in there:
      return _indexed(directory, index)
    if name in there:
      return [name]
  return []


def _indexed(directory: str, index: str) -> list[str]:
  names = sorted(set(read_json(directory, index)["weight_map"].values()))
  for name in names:
    if os.path.basename(name) != name:
      raise errors.DataError(
        f"{directory}: {index} names {name!r}, outside of it"
      )
  return names


def open_file(path: str) -> File:
  """Opens one file of weights, as its name ends: safetensors or .bin.

  Raises:
    DataError: it is missing, truncated or not such a file.
  """
  return (pickles.File if path.endswith(".bin") else _Safetensors)(path)

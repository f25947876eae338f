"""Files of tensors: safetensors and PyTorch's .bin, whole or in parts."""

import json
import os
import re
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import safetensors

from locvlm_jax import errors
from locvlm_jax import files as files_lib
from locvlm_jax.weights.layouts import pickles

# In order of preference; each may be in parts, with an index beside them.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
ADAPTER = "adapter_config.json"  # of a LoRA
_PART = re.compile(r"[^/\\\0]+\.(safetensors|bin)")
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
    except (safetensors.SafetensorError, ValueError) as error:
      raise files_lib.damaged(path, error) from error
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


def path_of(directory: str, name: str) -> str:
  """Joins a directory and the name of a file in it."""
  return os.path.join(directory, name)


def read_json(directory: str, name: str) -> dict:
  """Reads a json file of `directory`, which holds an object.

  Raises:
    DataError: it is missing, or no json, or no object.
  """
  path = os.path.join(directory, name)
  try:
    with open(path, encoding="utf-8") as f:
      content = json.load(f)
  except OSError as error:
    raise errors.DataError(errors.describe(error)) from None
  except (ValueError, RecursionError) as error:
    raise files_lib.damaged(path, f"not valid json ({error}).") from None
  if not isinstance(content, dict):
    raise errors.DataError(f"{path}: {content!r:.50} is no json object.")
  return content


def has_weights(directory: str) -> bool:
  """Says whether `files` finds any."""
  return bool(_names(directory))


def files(directory: str) -> list[File]:
  """Opens the files of a directory that hold its weights, in order.

  Raises:
    DataError: there are none, or one can't be read, or what lies beside them
      leaves open which of two models is meant.
  """
  names = _names(directory)
  if not names:
    raise errors.DataError(
      f"{directory}: no weights there: neither {' nor '.join(WEIGHTS)}, nor an"
      " index of their parts"
    )
  if ADAPTER in os.listdir(directory):
    raise errors.DataError(
      f"{directory}: {ADAPTER} lies beside the weights of a whole model, so"
      " that it is open whether its LoRA is part of them: move one of the two."
    )
  return [open_file(os.path.join(directory, name)) for name in names]


def _names(directory: str) -> list[str]:
  there = set(os.listdir(directory))
  for name in WEIGHTS:
    index = f"{name}.index.json"
    if name in there and index in there:
      raise errors.DataError(
        f"{directory}: both {name} and {index} are there: which of them is the"
        " model? Move the other one."
      )
    if index in there:
      return _indexed(directory, index)
    if name in there:
      return [name]
  return []


def _indexed(directory: str, index: str) -> list[str]:
  content = read_json(directory, index).get("weight_map")
  path = path_of(directory, index)
  if not isinstance(content, dict) or not content:
    raise errors.DataError(
      f"{path}: weight_map {content!r:.50} is no object that names files."
    )
  for key, name in content.items():
    if not isinstance(name, str) or not _PART.fullmatch(name):
      raise errors.DataError(
        f"{path}: weight_map: {key} is in {name!r:.100}, which names no file of"
        " weights in that directory."
      )
  return sorted(set(content.values()))


def open_file(path: str) -> File:
  """Opens one file of weights, as its name ends: safetensors or .bin.

  Raises:
    DataError: it is missing, truncated or not such a file.
  """
  return (pickles.File if path.endswith(".bin") else _Safetensors)(path)

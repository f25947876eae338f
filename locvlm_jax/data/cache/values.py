"""What is made of a large file as one value, as a cache keeps it."""

import gc
import os
import pickle
from collections.abc import Callable
from typing import Any

from locvlm_jax import files
from locvlm_jax.data.cache import entries

_VALUE = "value.pickle"


def make_once(path: str, maker: str, make: Callable[[], Any]) -> Any:
  """Makes a value of a large file once, for all processes and later starts.

  Args:
    path: of the file.
    maker: see `entries.find_or_make`.
    make: reads the file and makes what pickle can hold.

  Raises:
    DataError: what is kept is damaged; or as `make`.
  """

  def write(folder: str) -> None:
    with open(os.path.join(folder, _VALUE), "wb") as f:
      pickle.dump(make(), f, pickle.HIGHEST_PROTOCOL)

  folder = entries.find_or_make(path, maker, write)
  return make() if folder is None else _load(folder)


def _load(folder: str) -> Any:
  collects = gc.isenabled()
  gc.disable()  # all objects are in use: it would double the time
  try:
    with open(os.path.join(folder, _VALUE), "rb") as f:
      return pickle.load(f)
  except (OSError, EOFError, ValueError, pickle.UnpicklingError) as e:
    reason = f"is damaged ({e}): remove it, and it is made again."
    raise files.damaged(folder, reason) from None
  finally:
    if collects:
      gc.enable()

"""Reads the fields of other people's config files, and checks what they say.

Every error names the file, the field and its value. A field that is null
counts as absent, as in transformers.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from locvlm_jax import errors
from locvlm_jax.weights.layouts import tensor_files

# Of a size. A larger one is a mistake, never ends, and is no index of an array.
_MOST = (1 << 31) - 1


@dataclasses.dataclass(frozen=True)
class Fields:
  """The fields of a json file, or of an object in it.

  Attributes:
    path: of the file.
    content: the object.
    prefix: of the names in messages, as in "vision_config.".
  """

  path: str
  content: Mapping[str, Any]
  prefix: str = ""

  @classmethod
  def read(cls, directory: str, name: str) -> "Fields":
    """Reads a file of a directory.

    Raises:
      DataError: it is missing, or holds no json object.
    """
    content = tensor_files.read_json(directory, name)
    return cls(tensor_files.path_of(directory, name), content)

  def __contains__(self, name: str) -> bool:
    return self.content.get(name) is not None

  def has_any(self, *names: str) -> bool:
    """Says whether one of these fields is there."""
    return any(name in self for name in names)

  def get(self, name: str, default: Any = None) -> Any:
    """Returns a field of any type."""
    return self.content[name] if name in self else default

  def size(
    self, name: str, default: int | None = None, most: int = _MOST
  ) -> int:
    """Returns a positive integer, `most` at most.

    Raises:
      DataError: it is none, or it is missing and has no default.
    """
    value = self._field(name, default)
    if type(value) is not int or not 0 < value <= most:
      raise self._wrong(name, value, f"an integer from 1 to {most}")
    return value

  def integer(self, name: str, default: int) -> int:
    """Returns an integer.

    Raises:
      DataError: it is none.
    """
    value = self._field(name, default)
    if type(value) is not int or abs(value) >= _MOST:
      raise self._wrong(name, value, "an integer")
    return value

  def number(self, name: str, default: float | None = None) -> float:
    """Returns a positive number.

    Raises:
      DataError: it is none, or it is missing and has no default.
    """
    value = self._field(name, default)
    good = type(value) in (int, float) and 0 < value < _MOST**2
    if not good or not math.isfinite(value):
      raise self._wrong(name, value, "a positive number")
    return float(value)

  def flag(self, name: str, default: bool) -> bool:
    """Returns true or false.

    Raises:
      DataError: it is neither.
    """
    value = self._field(name, default)
    if type(value) is not bool:
      raise self._wrong(name, value, "true or false")
    return value

  def word(self, name: str, default: str) -> str:
    """Returns a text.

    Raises:
      DataError: it is none.
    """
    value = self._field(name, default)
    if not isinstance(value, str):
      raise self._wrong(name, value, "a text")
    return value

  def inner(self, name: str) -> "Fields":
    """Returns the fields of an object; none where it is absent.

    Raises:
      DataError: it is no object.
    """
    value = self._field(name, {})
    if not isinstance(value, Mapping):
      raise self._wrong(name, value, "an object")
    return Fields(self.path, value, f"{self.prefix}{name}.")

  def only(self, name: str, default: Any, *allowed: Any) -> Any:
    """Returns a field that may have a few values.

    Raises:
      ValueError: another value, which stands for what is not implemented.
    """
    value = self.get(name, default)
    same = [a for a in allowed if type(a) is type(value) and a == value]
    if not same:
      known = " or ".join(map(repr, allowed))
      raise ValueError(
        f"{self.path}: {self.prefix}{name} {value!r:.200}; only {known} can be"
        " read"
      )
    return value

  def _field(self, name: str, default: Any) -> Any:
    value = self.get(name, default)
    if value is None:
      raise errors.DataError(
        f"{self.path}: field {self.prefix}{name} is missing."
      )
    return value

  def _wrong(self, name: str, value: Any, wanted: str) -> errors.DataError:
    return errors.DataError(
      f"{self.path}: {self.prefix}{name} {value!r:.200} is not {wanted}."
    )

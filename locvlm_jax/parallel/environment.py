"""Reads from the environment which processes make up a run.

  JAX_COORDINATOR_ADDRESS   host:port of process 0
  JAX_NUM_PROCESSES         how many; "auto": as the platform says (TPU pods)
  JAX_PROCESS_ID            which of them this one is, from 0 on
  JAX_LOCAL_DEVICE_IDS      the GPUs of its host that it has, as 0 or 0,1;
                            without it, all

An empty variable counts as one that is not set. Without JAX_NUM_PROCESSES there
is one process.
"""

import dataclasses
from collections.abc import Mapping

_COUNT, _ID = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_DEVICES = "JAX_LOCAL_DEVICE_IDS"


@dataclasses.dataclass(frozen=True)
class Processes:
  """Which process this is, of how many.

  Attributes:
    count: of all processes; 0: the platform says it.
    index: of this one.
    coordinator: host:port of the first; "" where the platform says it.
  """

  count: int = 1
  index: int = 0
  coordinator: str = ""


def processes(environment: Mapping[str, str]) -> Processes:
  """Reads which process this is.

  Raises:
    ValueError: a variable is missing or wrong; names it.
  """
  count = environment.get(_COUNT, "")
  _check_devices(environment.get(_DEVICES, ""), count)
  if not count:
    _check_alone(environment)
    return Processes()
  if count == "auto":
    return Processes(count=0)
  number = _whole(_COUNT, count, "1, 2, ... or auto")
  if number < 1:
    raise ValueError(f"{_COUNT}={count!r}: use 1, 2, ... or auto.")
  if number == 1:
    return Processes()
  index = _whole(_ID, environment.get(_ID, ""), f"0 to {number - 1}")
  if not 0 <= index < number:
    raise ValueError(
      f"{_ID}={index}: use 0 to {number - 1}, since {_COUNT}={number}."
    )
  return Processes(number, index, _address(environment.get(_ADDRESS, "")))


def _whole(name: str, value: str, allowed: str) -> int:
  if not value:
    raise ValueError(
      f"{name} is not set: use {allowed}, as {_COUNT} says that there are"
      " several processes."
    )
  try:
    return int(value)
  except ValueError:
    raise ValueError(f"{name}={value!r}: use {allowed}.") from None


def _check_devices(value: str, count: str) -> None:
  """Refuses what is no list of devices, and one that would not be heeded."""
  numbers = [part.strip() for part in value.split(",")] if value else []
  if not all(n.isascii() and n.isdecimal() for n in numbers):
    raise ValueError(
      f"{_DEVICES}={value!r}: use numbers of GPUs on this host, as 0 or 0,1."
    )
  if len(set(map(int, numbers))) < len(numbers):
    raise ValueError(f"{_DEVICES}={value!r}: names a GPU twice.")
  if numbers and count in ("", "1"):
    raise ValueError(
      f"{_DEVICES}={value!r} is set and {_COUNT}={count!r}: a single process"
      " takes its GPUs from CUDA_VISIBLE_DEVICES."
    )


def _address(value: str) -> str:
  host, _, port = value.rpartition(":")
  if not (host and port.isdecimal() and 0 < int(port) < 65536):
    raise ValueError(
      f"{_ADDRESS}={value!r}: use host:port of process 0, as node1:12345."
    )
  return value


def _check_alone(environment: Mapping[str, str]) -> None:
  """Refuses what only one of several processes is given."""
  for name in (_ID, _ADDRESS):
    if environment.get(name):
      raise ValueError(
        f"{name}={environment[name]!r} is set and {_COUNT} is not: set both,"
        " or neither for a single process."
      )

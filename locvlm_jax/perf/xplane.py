"""Reads the traces that jax.profiler writes, without TensorFlow.

A trace is a protocol buffer (XSpace of openxla/tsl, profiler/protobuf/
xplane.proto): planes (a device, or the host) hold lines (a stream, a thread)
that hold events. What is read here:

  XSpace   1 planes
  XPlane   2 name  3 lines  4 event metadata  5 stat metadata (both maps)
  XLine    2 name  4 events
  XEvent   1 metadata id  2 offset in ps  3 duration in ps  4 stats
  XStat    1 metadata id  3 uint64  4 int64  5 string  6 bytes  7 reference
"""

import collections
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
  """One event of a trace.

  Attributes:
    plane, line: where it was recorded.
    name: of the operation, function or step.
    start, duration: in picoseconds, within its line.
    stats: of the event and of its kind, by name.
  """

  plane: str
  line: str
  name: str
  start: int
  duration: int
  stats: dict[str, Any]


def events(data: bytes) -> Iterator[Event]:
  """All events of a serialised XSpace.

  Raises:
    ValueError: not a protocol buffer.
  """
  for plane in _messages(data, 1):
    fields = _grouped(plane)
    name = _text(fields[2])
    stat_names = {
      key: _text(_grouped(value)[2]) for key, value in _map(fields[5])
    }
    kinds = {}
    for key, value in _map(fields[4]):
      kind = _grouped(value)
      kinds[key] = (_text(kind[2]), _stats(kind[5], stat_names))
    for line in fields[3]:
      yield from _line_events(name, line, kinds, stat_names)


def programs(data: bytes) -> dict[str, dict[str, str]]:
  """{program: {operation: the scopes it comes from}}, from the HLO in a trace.

  HloProto 1 module; module 1 name 3 computations; computation 2 instructions;
  instruction 1 name 7 metadata; metadata 2 op_name.
  """
  found = {}
  for plane in _messages(data, 1):
    fields = _grouped(plane)
    stat_names = {k: _text(_grouped(v)[2]) for k, v in _map(fields[5])}
    for _, kind in _map(fields[4]):
      proto = _stats(_grouped(kind)[5], stat_names).get("Hlo Proto")
      if proto is not None:
        module = _grouped(_grouped(proto)[1][0])
        found[_text(module[1])] = dict(_scopes(module[3]))
  return found


def _scopes(computations) -> Iterator[tuple[str, str]]:
  for computation in computations:
    for instruction in _messages(computation, 2):
      fields = _grouped(instruction)
      metadata = _grouped(fields[7][0]) if fields[7] else {}
      yield _text(fields[1]), _text(metadata.get(2, []))


def _line_events(plane: str, line, kinds, stat_names) -> Iterator[Event]:
  fields = _grouped(line)
  name = _text(fields[2])
  for event in fields[4]:
    values = _grouped(event)
    kind, common = kinds.get(_first(values[1]), ("", {}))
    stats = common | _stats(values[4], stat_names)
    start, duration = _first(values[2]), _first(values[3])
    yield Event(plane, name, kind, start, duration, stats)


def _stats(stats, names) -> dict[str, Any]:
  result = {}
  for stat in stats:
    fields = _grouped(stat)
    name = names.get(_first(fields[1]), "")
    if fields[7]:
      result[name] = names.get(fields[7][0], "")
    elif fields[5]:
      result[name] = _text(fields[5])
    else:
      value = fields[6] or fields[4] or fields[3]
      result[name] = value[0] if value else None
  return result


def _map(entries) -> Iterator[tuple[int, memoryview]]:
  for entry in entries:
    fields = _grouped(entry)
    yield _first(fields[1]), fields[2][0]


def _first(values) -> int:
  return values[0] if values else 0  # zero is not written


def _text(values) -> str:
  return bytes(values[0]).decode("utf-8", "replace") if values else ""


def _messages(data, number: int) -> list:
  return _grouped(data)[number]


def _grouped(data) -> collections.defaultdict:
  """{field number: its values}."""
  found = collections.defaultdict(list)
  for number, value in _fields(memoryview(data)):
    found[number].append(value)
  return found


_FIXED = {1: 8, 5: 4}  # wire type -> bytes


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
  """(number, value) of each field: an int, or its bytes."""
  at = 0
  while at < len(data):
    key, at = _varint(data, at)
    number, wire = key >> 3, key & 7
    if wire == 0:
      value, at = _varint(data, at)
      yield number, value
      continue
    size, at = _varint(data, at) if wire == 2 else (_FIXED.get(wire), at)
    if size is None or at + size > len(data):
      raise ValueError("not a trace: its bytes are no protocol buffer.")
    yield number, data[at : at + size]
    at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  """(number, where the next one begins); seven bits a byte, lowest first."""
  value = shift = 0
  while True:
    if at >= len(data):
      raise ValueError("not a trace: it is cut off.")
    byte = data[at]
    at += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, at
    shift += 7


@functools.cache
def scope_words(scope: str) -> frozenset[str]:
  """jit(step)/transpose(jvp(LocVLM))/llm/mlp/dot -> {jit, step, ..., mlp}."""
  words = scope.replace("(", "/").replace(")", "/").replace(":", "/")
  return frozenset(words.split("/"))

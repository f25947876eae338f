"""Reads the traces that jax.profiler writes, without TensorFlow.

A trace holds planes (a device, or the host); these hold lines (a stream, a
thread), which hold events, which have stats. `jax.profiler.ProfileData` reads
all of them, in whole nanoseconds. It does not expose (jax 0.10 to 0.12) the
stats that all events of a name share, and among these are

  "Hlo Proto"  a compiled program, whose operations name their scopes
  "tf_op"      the scopes of an operation, on TPUs

Those are read here with protobuf, by the part of the schemas that they need
(openxla/xla: tsl/profiler/protobuf/xplane.proto, service/hlo.proto and
xla_data.proto).
"""

import functools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf import message as protobuf

# {message: {field: (number, type)}}; a star marks repeated fields.
_SCHEMA = {
  "XSpace": {"planes": (1, "XPlane*")},
  "XPlane": {
    "name": (2, "string"),
    "event_metadata": (4, "EventEntry*"),
    "stat_metadata": (5, "StatEntry*"),
  },
  "EventEntry": {"value": (2, "XEventMetadata")},
  "StatEntry": {"key": (1, "int64"), "value": (2, "XStatMetadata")},
  "XEventMetadata": {"name": (2, "string"), "stats": (5, "XStat*")},
  "XStatMetadata": {"name": (2, "string")},
  "XStat": {
    "metadata_id": (1, "int64"),
    "str_value": (5, "string"),
    "bytes_value": (6, "bytes"),
    "ref_value": (7, "uint64"),
  },
  "HloProto": {"hlo_module": (1, "HloModule")},
  "HloModule": {
    "name": (1, "string"),
    "entry_computation_name": (2, "string"),
    "computations": (3, "HloComputation*"),
  },
  "HloComputation": {
    "name": (1, "string"),
    "instructions": (2, "HloInstruction*"),
  },
  "HloInstruction": {"name": (1, "string"), "metadata": (7, "OpMetadata")},
  "OpMetadata": {"op_name": (2, "string")},
}


class Event(NamedTuple):
  """One event of a trace.

  Attributes:
    plane, line: where it was recorded.
    name: of the operation, function or step.
    start, duration: in nanoseconds, since the trace began.
    stats: of the event and of all events of its name, by their names.
  """

  plane: str
  line: str
  name: str
  start: float
  duration: float
  stats: dict[str, Any]


class Program(NamedTuple):
  """What a compiled program says of its operations.

  Attributes:
    scopes: {operation: the scopes that it was written in}.
    entry: names of the operations that each execution runs exactly once.
  """

  scopes: dict[str, str]
  entry: frozenset[str]


class Trace(NamedTuple):
  """The content of one file: one host and its devices."""

  events: list[Event]
  programs: dict[str, Program]


def read(data: bytes) -> Trace:
  """Reads a serialized XSpace, the content of *.xplane.pb.

  Raises:
    ValueError: `data` is no XSpace.
  """
  try:
    planes = _messages()["XSpace"].FromString(data).planes
    shared = {plane.name: dict(_shared_stats(plane)) for plane in planes}
    events = _events(data, shared)
  except (protobuf.DecodeError, RuntimeError) as e:
    raise ValueError(f"not a trace: {e}.") from None
  return Trace(events, dict(_programs(shared)))


def _events(data: bytes, shared: dict[str, dict]) -> list[Event]:
  """All events, with the stats that they share with others of their name."""
  events = []
  with warnings.catch_warnings():
    # jaxlib's type of stats lacks a __module__, which Python 3.12 and newer
    # warn of; as an error this would abort the process.
    warnings.simplefilter("ignore", DeprecationWarning)
    for plane in jax.profiler.ProfileData.from_serialized_xspace(data).planes:
      common = shared.get(plane.name, {})
      events += [
        Event(
          plane.name,
          line.name,
          event.name,
          event.start_ns,
          event.duration_ns,
          common.get(event.name, {}) | dict(event.stats),
        )
        for line in plane.lines
        for event in line.events
      ]
  return events


def _shared_stats(plane) -> Iterator[tuple[str, dict[str, Any]]]:
  """(name of events, their common stats); those that are numbers left out."""
  names = {entry.key: entry.value.name for entry in plane.stat_metadata}
  for entry in plane.event_metadata:
    stats = {
      names.get(stat.metadata_id, ""): stat.bytes_value
      or stat.str_value
      or names.get(stat.ref_value, "")
      for stat in entry.value.stats
    }
    yield entry.value.name, stats


def _programs(shared: dict[str, dict]) -> Iterator[tuple[str, Program]]:
  """(name, program) of each program whose HLO is in the trace."""
  for kinds in shared.values():
    for stats in kinds.values():
      if hlo := stats.get("Hlo Proto"):
        module = _messages()["HloProto"].FromString(hlo).hlo_module
        yield module.name, _program(module)


def _program(module) -> Program:
  scopes, entry = {}, frozenset()
  for computation in module.computations:
    found = {x.name: x.metadata.op_name for x in computation.instructions}
    scopes |= found
    if computation.name == module.entry_computation_name:
      entry = frozenset(found)
  return Program(scopes, entry)


@functools.cache
def _messages() -> dict[str, type[protobuf.Message]]:
  """The classes of `_SCHEMA`'s messages."""
  file = descriptor_pb2.FileDescriptorProto(name="xplane", syntax="proto3")
  for name, fields in _SCHEMA.items():
    message = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
      message.field.add(name=field, number=number, **_type(kind))
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClassesForFiles([file.name], pool)


def _type(kind: str) -> dict[str, Any]:
  """The type of a field, as a FieldDescriptorProto says it."""
  field = descriptor_pb2.FieldDescriptorProto
  label = field.LABEL_REPEATED if kind[-1] == "*" else field.LABEL_OPTIONAL
  name = kind.rstrip("*")
  if name in _SCHEMA:
    return {"label": label, "type": field.TYPE_MESSAGE, "type_name": name}
  return {"label": label, "type": field.Type.Value(f"TYPE_{name.upper()}")}


@functools.cache
def scope_words(scope: str) -> frozenset[str]:
  """Splits jit(step)/transpose(jvp(LocVLM))/llm into {jit, step, ..., llm}."""
  words = scope.replace("(", "/").replace(")", "/").replace(":", "/")
  return frozenset(words.split("/"))

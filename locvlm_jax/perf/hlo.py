"""Reads from a compiled program's text what it moves between devices.

A program is a list of computations; it starts at the one marked ENTRY:

  %body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
    %g = f32[32,4]{1,0} all-gather(%x), channel_id=7, ...
  }
  ENTRY %main (...) -> ... {
    %w = (...) while(%t), condition=%c, body=%body, backend_config={...}
  }

A collective in the body of a loop runs once in each iteration of the loop.
"""

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(
  rf"%?[\w.\-]+ = (.*?) ({'|'.join(KINDS)})(-start)?\((.*)"
)
_CALLED = re.compile(r"(?:body|calls|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_ARRAY = re.compile(r"(pred|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\]")
_CONSTANT = re.compile(r"[su]32\[\]\S* constant\((\d+)\)")
# An all-reduce sends each byte twice: first parts of the sum, then the sum.
_PASSES = {"all-reduce": 2}


class Collective(NamedTuple):
  """One collective operation of a program.

  Attributes:
    kind: one of `KINDS`.
    arrays: (dtype, shape) of its results; of its operands for a reduce-scatter,
      which are larger.
    count: how often one execution of the program runs it.
    op_name: where in the source it comes from, as a path of scopes.
  """

  kind: str
  arrays: tuple[tuple[str, tuple[int, ...]], ...]
  count: int
  op_name: str

  @property
  def bytes(self) -> int:
    """Bytes of `arrays` on one device, of all `count` runs together."""
    sizes = (bits(dtype) * math.prod(shape) for dtype, shape in self.arrays)
    return self.count * sum(sizes) // 8


def bits(dtype: str) -> int:
  """Returns the bits of an element: bf16 -> 16; pred and s4 take 8."""
  found = re.search(r"\d+", dtype)
  return max(8, int(found[0])) if found else 8


def collectives(text: str) -> list[Collective]:
  """Finds all collective operations in a compiled program's `as_text()`.

  XLA for TPUs repeats an operation in each fusion that it overlaps with; the
  copies have the same channel_id and are counted once.
  """
  bodies, entry = _computations(text)
  runs = _runs(bodies, entry)
  found = {}
  for name, lines in bodies.items():
    for i, line in enumerate(lines):
      match = _COLLECTIVE.match(line)
      if match and runs[name]:
        collective = _collective(match, name, runs[name], line)
        channel = re.search(r"channel_id=(\d+)", line)
        key = (collective.kind, channel[1] if channel else (name, i))
        if key not in found or found[key].count > collective.count:
          found[key] = collective
  return list(found.values())


def summary(found: list[Collective]) -> dict[str, dict[str, int]]:
  """Sums by kind: how many one execution runs, and bytes on one device."""
  total = {}
  for collective in found:
    kind = total.setdefault(collective.kind, {"count": 0, "bytes": 0})
    kind["count"] += collective.count
    kind["bytes"] += collective.bytes
  return dict(sorted(total.items()))


def traffic(found: list[Collective]) -> int:
  """Estimates the bytes that a device sends in a ring of many devices."""
  return sum(c.bytes * _PASSES.get(c.kind, 1) for c in found)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """Splits a program: ({computation: instructions}, the name of ENTRY)."""
  bodies, entry, current = {}, "", None
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      current = bodies.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif current is not None and " = " in line:
      current.append(line.strip().removeprefix("ROOT "))
  return bodies, entry


def _runs(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
  """Counts how often one execution of the program runs each computation."""
  callers = collections.defaultdict(list)
  for name, lines in bodies.items():
    for called, trips in _calls(lines, bodies):
      callers[called].append((name, trips))

  @functools.cache
  def runs(name: str) -> int:
    if name == entry:
      return 1
    # A computation has one caller. Only the functions of reductions have
    # several, and those hold no collectives.
    return max((runs(c) * n for c, n in callers[name]), default=0)

  return {name: runs(name) for name in bodies}


def _calls(lines: list[str], bodies) -> Iterator[tuple[str, int]]:
  """Yields (computation, how often it runs) for each call in `lines`."""
  for line in lines:
    loop = _WHILE.search(line)
    if loop:
      body = bodies.get(loop[2], [])
      yield loop[2], _trips(line, bodies.get(loop[1], []), body)
      continue
    for name in _CALLED.findall(line):
      yield name, 1
    for names in _BRANCHES.findall(line):
      yield from ((n.strip().lstrip("%"), 1) for n in names.split(","))


def _trips(line: str, condition: list[str], body: list[str]) -> int:
  """Returns a loop's trip count: known to XLA, or from its counter's bound."""
  known = _TRIPS.search(line)
  if known:
    return int(known[1])
  bounds = [int(n) for n in re.findall(_CONSTANT, "\n".join(condition))]
  return max(bounds, default=1) // _increment(condition, body)


def _increment(condition: list[str], body: list[str]) -> int:
  """Returns what an iteration adds to the loop's counter; 1 if unclear.

  It is 2 in a loop that was unrolled by two, which has half as many iterations
  as its counter's bound says. The counter is an element of the loop's tuple.
  """
  index = re.search(
    r"[su]32\[\]\S* get-tuple-element\(.*index=(\d+)", "\n".join(condition)
  )
  if not index or not body:
    return 1
  lines = {x.split(" = ")[0].lstrip("%"): x for x in body}
  carried = _operands(body[-1], "tuple")
  if len(carried) <= int(index[1]):
    return 1
  update = lines.get(carried[int(index[1])], "")
  while copied := _operands(update, "copy"):
    update = lines.get(copied[0], "")
  added = _operands(update, "add")
  found = [re.search(_CONSTANT, lines.get(name, "")) for name in added]
  return max((int(n[1]) for n in found if n), default=1)


def _operands(line: str, operation: str) -> list[str]:
  """Returns the operands' names if `line` is this operation, else none."""
  found = re.search(rf" {operation}\(([^)]*)\)", line)
  names = re.sub(r"/\*.*?\*/", "", found[1]) if found else ""
  return [n.strip().lstrip("%") for n in names.split(",") if n.strip()]


def _collective(match, computation: str, count: int, line: str) -> Collective:
  """Reads a collective from its `line`, which `_COLLECTIVE` matched."""
  result, kind, is_start, rest = match.groups()
  arrays = _arrays(result)
  if is_start and kind != "all-reduce" or kind == "collective-permute":
    # A start gives (operands, results), and semaphores on TPUs.
    arrays = _without_semaphores(arrays)
    half = len(arrays) // 2
    arrays = (arrays[:half] if kind == "reduce-scatter" else arrays[half:]) or (
      arrays
    )
  elif kind == "reduce-scatter":
    arrays = _scattered(arrays, line)
  if kind == "all-reduce" and "all-reduce-scatter" in computation:
    kind = "reduce-scatter"  # as XLA for TPUs writes it
  name = re.search(r'op_name="([^"]*)"', rest)
  return Collective(kind, tuple(arrays), count, name[1] if name else "")


def _arrays(types: str) -> list[tuple[str, tuple[int, ...]]]:
  """Reads (bf16[8,4]{1,0}, u32[]) as [("bf16", (8, 4)), ("u32", ())]."""
  return [
    (dtype, tuple(int(d) for d in dims.split(",") if d))
    for dtype, dims in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", types))
  ]


def _without_semaphores(arrays):
  """Drops the u32 scalars at the end."""
  end = len(arrays)
  while end and arrays[end - 1] == ("u32", ()):
    end -= 1
  return arrays[:end]


def _scattered(arrays, line: str):
  """Returns a reduce-scatter's operands: its results, times the group's size.

  Only the dimension that is scattered grows.
  """
  dim = int(re.search(r"dimensions=\{(\d+)\}", line)[1])
  size = _group_size(line)
  return [
    (dtype, (*shape[:dim], shape[dim] * size, *shape[dim + 1 :]))
    for dtype, shape in arrays
  ]


def _group_size(line: str) -> int:
  """Returns the devices in a group: [2,4]<=[8] and {{0,1,2,3},{..}} have 4."""
  iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
  if iota:
    return int(iota[1])
  listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
  if listed:
    return len(listed[1].split(","))
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
  sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
  return math.prod(int(sizes[a]) for a in re.findall(r"'(\w+)'", mesh[2]))

"""What a compiled program moves between devices, read from its text.

A program is a list of computations, of which one is ENTRY:

  %body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
    %g = f32[32,4]{1,0} all-gather(%x), channel_id=7, ...
  }
  ENTRY %main (...) -> ... {
    %w = (...) while(%t), condition=%c, body=%body, backend_config={...}
  }

What lies in the body of a loop happens as often as the loop turns.
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
# Twice as many bytes go over a link: first the sum's parts, then the sum.
_PASSES = {"all-reduce": 2}


class Collective(NamedTuple):
  """One collective operation.

  Attributes:
    kind: of `KINDS`.
    arrays: (dtype, shape) of what it gives, whole where it gathers or sums.
    count: how often a step runs it.
    op_name: where in the source it comes from.
  """

  kind: str
  arrays: tuple[tuple[str, tuple[int, ...]], ...]
  count: int
  op_name: str

  @property
  def bytes(self) -> int:
    """Bytes of its largest side on one device, all runs together."""
    each = (bits(dtype) * math.prod(shape) for dtype, shape in self.arrays)
    return self.count * sum(each) // 8


def bits(dtype: str) -> int:
  """bf16 -> 16; pred and s4 take a byte."""
  found = re.search(r"\d+", dtype)
  return max(8, int(found[0])) if found else 8


def collectives(text: str) -> list[Collective]:
  """All collective operations of a compiled program's `as_text()`.

  XLA for TPUs repeats an operation in each of the fusions that it overlaps
  with; the channel's number tells that it is the same.
  """
  bodies, entry = _computations(text)
  times = _times(bodies, entry)
  found = {}
  for name, lines in bodies.items():
    for i, line in enumerate(lines):
      match = _COLLECTIVE.match(line)
      if match and times[name]:
        one = _collective(match, name, times[name], line)
        channel = re.search(r"channel_id=(\d+)", line)
        key = (one.kind, channel[1] if channel else (name, i))
        if key not in found or found[key].count > one.count:
          found[key] = one
  return list(found.values())


def summary(found: list[Collective]) -> dict[str, dict[str, int]]:
  """By kind: how many a step runs, and their bytes on one device."""
  total = {}
  for one in found:
    kind = total.setdefault(one.kind, {"count": 0, "bytes": 0})
    kind["count"] += one.count
    kind["bytes"] += one.bytes
  return dict(sorted(total.items()))


def traffic(found: list[Collective]) -> int:
  """Bytes that a device sends, if it has many peers."""
  return sum(one.bytes * _PASSES.get(one.kind, 1) for one in found)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """({name: instructions}, the name of ENTRY)."""
  bodies, entry, current = {}, "", None
  for line in text.splitlines():
    head = _HEAD.match(line)
    if head:
      current = bodies.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif current is not None and " = " in line:
      current.append(line.strip().removeprefix("ROOT "))
  return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
  """How often a step runs each computation."""
  callers = collections.defaultdict(list)
  for name, lines in bodies.items():
    for called, trips in _calls(lines, bodies):
      callers[called].append((name, trips))

  @functools.cache
  def times(name: str) -> int:
    if name == entry:
      return 1
    # A computation is called from one place; reducers, from many, hold none
    # of what is counted here.
    return max((times(c) * n for c, n in callers[name]), default=0)

  return {name: times(name) for name in bodies}


def _calls(lines: list[str], bodies) -> Iterator[tuple[str, int]]:
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
  """Turns of a loop: as noted, or its counter's bound by its step."""
  known = _TRIPS.search(line)
  if known:
    return int(known[1])
  bounds = [int(n) for n in re.findall(_CONSTANT, "\n".join(condition))]
  return max(bounds, default=1) // _step(condition, body)


def _step(condition: list[str], body: list[str]) -> int:
  """What a turn adds to the counter, one of the elements that it carries.

  A loop that was unrolled by two has half the turns of its bound.
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
  found = re.search(rf" {operation}\(([^)]*)\)", line)
  names = re.sub(r"/\*.*?\*/", "", found[1]) if found else ""
  return [n.strip().lstrip("%") for n in names.split(",") if n.strip()]


def _collective(match, computation: str, count: int, line: str) -> Collective:
  result, kind, is_start, rest = match.groups()
  arrays = _arrays(result)
  if is_start and kind != "all-reduce" or kind == "collective-permute":
    # A start gives (operands, results), and semaphores on TPUs.
    arrays = arrays[: _scalars_from(arrays)]
    half = len(arrays) // 2
    arrays = (arrays[:half] if kind == "reduce-scatter" else arrays[half:]) or (
      arrays
    )
  elif kind == "reduce-scatter":
    arrays = _grown(arrays, line)
  if kind == "all-reduce" and "all-reduce-scatter" in computation:
    kind = "reduce-scatter"  # as XLA for TPUs writes it
  name = re.search(r'op_name="([^"]*)"', rest)
  return Collective(kind, tuple(arrays), count, name[1] if name else "")


def _arrays(types: str) -> list[tuple[str, tuple[int, ...]]]:
  return [
    (dtype, tuple(int(d) for d in dims.split(",") if d))
    for dtype, dims in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", types))
  ]


def _scalars_from(arrays) -> int:
  """Where trailing u32 scalars, the semaphores, begin."""
  end = len(arrays)
  while end and arrays[end - 1] == ("u32", ()):
    end -= 1
  return end


def _grown(arrays, line: str):
  """What a reduce-scatter takes: its result times the devices, in one dim."""
  dim = int(re.search(r"dimensions=\{(\d+)\}", line)[1])
  size = _group_size(line)
  return [
    (dtype, (*shape[:dim], shape[dim] * size, *shape[dim + 1 :]))
    for dtype, shape in arrays
  ]


def _group_size(line: str) -> int:
  """Devices in one group: [2,4]<=[8] and {{0,1,2,3},{..}} have four."""
  iota = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
  if iota:
    return int(iota[1])
  listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
  if listed:
    return len(listed[1].split(","))
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
  sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
  return math.prod(int(sizes[a]) for a in re.findall(r"'(\w+)'", mesh[2]))

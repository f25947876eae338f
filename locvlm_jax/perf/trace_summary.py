"""Where the time of a step goes, read from a trace."""

import collections
import glob
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from locvlm_jax import errors
from locvlm_jax.perf import xplane

# The first that occurs among an operation's scopes is its stage: the ViT has
# attention and MLP of its own.
STAGES = (
  "optimizer",
  "vision",
  "adapter",
  "splice",
  "head",
  "loss",
  "attention",
  "mlp",
)
_NAMES = {"vision": "ViT", "mlp": "MLP"}
MS = 1e9  # picoseconds


class Operation(NamedTuple):
  """An operation of a program and its time, without that of what it calls."""

  name: str
  scope: str
  picoseconds: int


def read(directory: str) -> tuple[list[Operation], int, int]:
  """(operations, steps, devices) of the newest trace, all hosts together.

  Raises:
    DataError: no trace there.
  """
  found = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
  if not found:
    raise errors.DataError(
      f"{directory}: no trace (*.xplane.pb) below it. Train with"
      " --config.profile.steps=10,15."
    )
  newest = max(os.path.dirname(path) for path in found)
  operations, steps, devices = [], 0, 0
  for path in sorted(p for p in found if os.path.dirname(p) == newest):
    with open(path, "rb") as f:
      data = f.read()
    events = list(xplane.events(data))
    scopes = xplane.programs(data)
    operations += _operations(events, scopes)
    steps = max(steps, len(_step_numbers(events)))
    devices += len({e.plane for e in events if "/device:" in e.plane}) or 1
  return operations, max(steps, 1), devices


def _step_numbers(events) -> set[int]:
  return {e.stats["step_num"] for e in events if "step_num" in e.stats}


def _operations(events, scopes) -> Iterator[Operation]:
  lines = collections.defaultdict(list)
  for event in events:
    if _is_operation(event):
      lines[event.plane, event.line].append(event)
  for line in lines.values():
    for event, own in _own_time(line):
      program = str(event.stats.get("hlo_module", "")).split("(")[0]
      name = str(event.stats.get("hlo_op", event.name)).lstrip("%")
      scope = event.stats.get("tf_op") or scopes.get(program, {}).get(name, "")
      yield Operation(name.split(" = ")[0], scope, own)


def _is_operation(event: xplane.Event) -> bool:
  # TPUs have a line of their own for them; CPUs and GPUs mark each event.
  return event.duration > 0 and (
    event.line == "XLA Ops" or "hlo_op" in event.stats
  )


def _own_time(line: Sequence) -> Iterator[tuple[xplane.Event, int]]:
  """Each event's time less that of the events within it.

  while   |---------------|     own: what no operation covers
  fusion     |---| |--|
  """
  inner = collections.Counter()
  open_ = []  # events around the current one, outermost first
  line = sorted(line, key=lambda e: (e.start, -e.duration))
  for i, event in enumerate(line):
    while open_ and _end(line[open_[-1]]) <= event.start:
      open_.pop()
    if open_:
      inner[open_[-1]] += event.duration
    open_.append(i)
  for i, event in enumerate(line):
    yield event, max(event.duration - inner[i], 0)


def _end(event: xplane.Event) -> int:
  return event.start + event.duration


def stage(scope: str) -> str:
  """The stage that an operation belongs to."""
  words = xplane.scope_words(scope)
  found = next((s for s in STAGES if s in words), "other")
  return _NAMES.get(found, found)


def report(
  operations: Sequence[Operation], steps: int, devices: int, top: int
) -> str:
  """Stages by share, then the operations that take longest."""
  by_stage, by_name = collections.Counter(), collections.Counter()
  for one in operations:
    by_stage[stage(one.scope)] += one.picoseconds
    by_name[one.name, one.scope] += one.picoseconds
  total, each = max(sum(by_stage.values()), 1), steps * devices * MS
  lines = [f"{total / each:.3f} ms a step on {devices} devices, {steps} steps"]
  lines += [
    f"  {name:10s} {ps / total:6.1%} {ps / each:10.3f} ms"
    for name, ps in by_stage.most_common()
  ]
  lines += ["operations that take longest:"]
  lines += [
    f"  {ps / total:6.1%} {ps / each:10.3f} ms  {stage(scope):10s} {name}"
    f"  {scope[-60:]}"
    for (name, scope), ps in by_name.most_common(top)
  ]
  return "\n".join(lines)

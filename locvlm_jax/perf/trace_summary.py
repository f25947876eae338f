"""Tells from a trace which stages and operations a step's time goes to."""

import collections
import glob
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
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
MS = 1e6  # nanoseconds


class Operation(NamedTuple):
  """An execution of an operation, without the time of what it calls.

  Attributes:
    name: as the compiled program has it, such as "fusion.2".
    scope: where in the source it comes from, as a path of names.
    nanoseconds: that it took itself.
    program: that it belongs to; "" on TPUs.
    device: that ran it, as (plane of the trace, number).
  """

  name: str
  scope: str
  nanoseconds: float
  program: str
  device: tuple[str, int]


class Summary(NamedTuple):
  """All operations of a trace, on so many devices and in so many steps."""

  operations: list[Operation]
  steps: int
  devices: int


def read(directory: str) -> Summary:
  """Reads the newest trace below `directory`, of all hosts together.

  Steps are those that were marked by `jax.profiler.StepTraceAnnotation`; in a
  trace without marks, the executions of the program that took longest.

  Raises:
    DataError: no trace there, or a broken one.
  """
  found = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
  if not found:
    raise errors.DataError(
      f"{directory}: no trace (*.xplane.pb) below it. Train with"
      " --config.profile.steps=10,15."
    )
  newest = max(os.path.dirname(path) for path in found)
  operations, steps, devices = [], 1, 0
  for path in sorted(p for p in found if os.path.dirname(p) == newest):
    with open(path, "rb") as f:
      trace = xplane.read(f.read())
    host = list(_operations(trace))
    operations += host
    marked = {e.stats.get("step_num") for e in trace.events} - {None}
    steps = max(steps, len(marked) or _executions(trace, host))
    planes = {e.plane for e in trace.events if "/device:" in e.plane}
    devices += len(planes) or 1
  return Summary(operations, steps, devices)


def _executions(trace: xplane.Trace, operations: Sequence[Operation]) -> int:
  """How often a device ran the program that took longest; 0: unknown."""
  launches = [e for e in trace.events if e.line == "XLA Modules"]
  if launches:  # TPUs have an event for each execution
    longest = _longest((e.name, e.duration) for e in launches)
    counts = collections.Counter(e.plane for e in launches if e.name == longest)
    return max(counts.values())
  longest = _longest((one.program, one.nanoseconds) for one in operations)
  counts = collections.Counter(
    (one.device, one.name) for one in operations if one.program == longest
  )
  if longest in trace.programs:
    entry = trace.programs[longest].entry
    of_entry = [n for (_, name), n in counts.items() if name in entry]
    # An operation of the entry computation runs once in each execution. Some of
    # them are several kernels on a GPU, and the first execution may be cut off.
    return statistics.mode(of_entry) if of_entry else 0
  # A program that was read from the compile cache has no HLO in the trace. Its
  # loops run more often than itself, and what a branch hides less often.
  shared = collections.Counter(counts.values())
  return min((n for n, names in shared.items() if names > 1), default=0)


def _longest(times: Iterable[tuple[str, float]]) -> str:
  """The name that has the largest sum of times."""
  total = collections.Counter()
  for name, time in times:
    total[name] += time
  return max(total, key=total.get, default="")


def _operations(trace: xplane.Trace) -> Iterator[Operation]:
  lines = collections.defaultdict(list)
  for event in trace.events:
    if _is_operation(event):
      lines[event.plane, event.line].append(event)
  for line in lines.values():
    for event, own in _own_time(line):
      program = str(event.stats.get("hlo_module", "")).split("(")[0]
      name = str(event.stats.get("hlo_op", event.name)).lstrip("%")
      scope = event.stats.get("tf_op") or _scope(trace, program, name)
      device = event.plane, event.stats.get("device_ordinal", 0)
      yield Operation(name.split(" = ")[0], scope, own, program, device)


def _scope(trace: xplane.Trace, program: str, name: str) -> str:
  """The scope of an operation by the HLO of its program; "" if unknown."""
  found = trace.programs.get(program)
  return found.scopes.get(name, "") if found else ""


def _is_operation(event: xplane.Event) -> bool:
  # TPUs have a line of their own for them; CPUs and GPUs mark each event.
  return event.duration > 0 and (
    event.line == "XLA Ops" or "hlo_op" in event.stats
  )


def _own_time(line: Sequence) -> Iterator[tuple[xplane.Event, float]]:
  """Yields each event and its time less that of the events within it.

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


def _end(event: xplane.Event) -> float:
  return event.start + event.duration


def stage(scope: str) -> str:
  """Returns the stage that an operation of this scope belongs to."""
  words = xplane.scope_words(scope)
  found = next((s for s in STAGES if s in words), "other")
  return _NAMES.get(found, found)


def report(summary: Summary, top: int) -> str:
  """Prints the stages by share, then the `top` operations that take longest."""
  by_stage, by_name = collections.Counter(), collections.Counter()
  for one in summary.operations:
    by_stage[stage(one.scope)] += one.nanoseconds
    by_name[one.name, one.scope] += one.nanoseconds
  total = max(sum(by_stage.values()), 1)
  each = summary.steps * summary.devices * MS
  lines = [
    f"{total / each:.3f} ms a step on {summary.devices} devices,"
    f" {summary.steps} steps"
  ]
  lines += [
    f"  {name:10s} {ns / total:6.1%} {ns / each:10.3f} ms"
    for name, ns in by_stage.most_common()
  ]
  lines += ["operations that take longest:"]
  lines += [
    f"  {ns / total:6.1%} {ns / each:10.3f} ms  {stage(scope):10s} {name}"
    f"  {scope[-60:]}"
    for (name, scope), ns in by_name.most_common(top)
  ]
  return "\n".join(lines)

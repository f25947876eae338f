"""Measures how the cost grows with the work, and draws it.

  python -m benchmarks.scaling [--only NAME,NAME] [--json FILE] [--svg FILE]

For each axis the work that the formula counts is divided by the time, or the
bytes, that were measured. Shown is that rate as a share of the axis' best: a
line that falls to the right costs more than the formula says.

Each axis is written to the json when it ends, and an axis that the file has is
not measured again. --small measures the two least values of each, to see that
all of it runs.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from benchmarks import many_records
from locvlm_jax import before_jax, files, provenance
from locvlm_jax.bench import timing, train, workload
from locvlm_jax.data import packing
from locvlm_jax.experiments import charts, page
from locvlm_jax.models import locvlm, params
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.weights import checkpoints

# (where on the axis, work, cost[, what the same costs done otherwise])
Point = tuple[float, ...]
_VISUAL = 64  # tokens of the micro model's image
_PAIR = 28  # text tokens of a question of the micro-world and its answer


def _settings(**changes) -> train.Settings:
  fields = {"model": "micro", "stage": 2, "batch": 8, "text": 64}
  fields |= {"accumulate": 1, "remat": "none", "unroll": 8}
  fields |= {"mu_dtype": "float32", "warmup": 2, "steps": 3, "rounds": 3}
  return train.Settings(**{**fields, "trace": None, **changes})


def _step(settings: train.Settings) -> tuple[float, float]:
  """Returns (FLOPs, seconds) of a step."""
  found = train.train_step(settings)
  return settings.batch * found["sample_flops"], min(found["seconds"])


def devices(num: int) -> Point:
  """A step of 16 rows on simulated devices that share the cores here."""
  before = os.environ.get("XLA_FLAGS", "")
  simulated = f"--xla_force_host_platform_device_count={num}"
  os.environ["XLA_FLAGS"] = f"{before} {simulated}"
  try:
    return num, *timing.in_subprocess(_step, _settings(batch=16))
  finally:
    os.environ["XLA_FLAGS"] = before


def length(positions: int) -> Point:
  """A step of 8,192 positions in rows of one length."""
  text, batch = positions - _VISUAL, 8192 // positions
  return positions, *_step(_settings(text=text, batch=batch))


def batch(size: int) -> Point:
  """A step of rows of 128 positions."""
  return size, *_step(_settings(batch=size))


def pairs(num: int) -> Point:
  """A step of 32 questions, `num` of an image in a tree; beside it, rows."""
  trees, rows = tree_seconds(num, 32)
  return num, 32 * _pair_flops(num), trees, rows


def _pair_flops(num: int) -> float:
  """Counts FLOPs of a question where `num` share the row of an image."""
  model = locvlm.LocVLM(workload.model_config("micro"))
  forward = flops_lib.forward_flops(model, num * _PAIR)
  return flops_lib.train_flops(forward, {"adapter", "llm"}) / num


def tree_seconds(num: int, questions: int) -> tuple[float, float]:
  """Times steps of trees and of separate rows, in turn.

  Args:
    num: questions of an image.
    questions: of a step.

  Returns:
    Seconds of the fastest step, as trees and as rows.
  """
  config, mesh = workload.model_config("micro"), sharding.make_mesh({})
  alone = workload.random_batch(config, questions, _PAIR)
  with jax.set_mesh(mesh):
    trees = _stepper(padded(tree_batch(num, questions)), mesh)
    apart = _stepper(padded(alone), mesh)
    trees(), apart()
    seconds = [(_seconds(trees), _seconds(apart)) for _ in range(5)]
  return min(s for s, _ in seconds), min(s for _, s in seconds)


def tree_batch(num: int, questions: int) -> dict[str, np.ndarray]:
  """Draws rows of an image and `num` questions that do not see each other."""
  config, text = workload.model_config("micro"), num * (_PAIR - 1) + 1
  found = workload.random_batch(config, questions // num, text)
  numbers = np.repeat(np.arange(1, num + 1), _PAIR - 1)
  shared = np.full(1 + _VISUAL, -1)
  segments = np.concatenate([shared, numbers]).astype(np.int32)
  found["segments"] = np.tile(segments, (questions // num, 1))
  return found


def padded(fields: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Pads rows to a multiple of 64 positions, as in training."""
  more = -fields["tokens"].shape[1] % packing.LENGTH_MULTIPLE
  by_position = {"tokens", "loss_mask", "segments"} & fields.keys()
  wider = {k: np.pad(fields[k], ((0, 0), (0, more))) for k in by_position}
  return {**fields, **wider}


def _stepper(
  fields: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> Callable[[], None]:
  """Returns what runs a step of the micro model on this batch."""
  model = locvlm.LocVLM(workload.model_config("micro"))
  step, now, rows = train.prepared(model, _settings(), fields, mesh)

  def run() -> None:
    now["state"], scalars = step(now["state"], rows)
    jax.block_until_ready(scalars)

  return run


def _seconds(call: Callable[[], None]) -> float:
  began = time.perf_counter()
  call()
  return time.perf_counter() - began


def first_start(num: int) -> Point:
  """CPU seconds to open a file of records and draw a batch, the first time."""
  return num, num, many_records.costs(num).first


def later_start(num: int) -> Point:
  """The same, when a process before has read the file."""
  return num, num, many_records.costs(num).later


def rows_of_many(num: int) -> Point:
  """CPU seconds of the next rows of a file of that many records."""
  return num, many_records.ROWS, many_records.costs(num).rows


def memory(num: int) -> Point:
  """Memory of the first start at its peak, by bytes of the file."""
  found = many_records.costs(num)
  return num, found.size, found.memory


def checkpoint(layers: int) -> Point:
  """Bytes of a checkpoint of stage 2, by layers of the language model.

  What trains has 12 bytes a parameter, what is frozen 4.
  """
  config = workload.model_config("micro")
  llm = dataclasses.replace(config.llm, num_layers=layers)
  model = locvlm.LocVLM(dataclasses.replace(config, llm=llm))
  flat = params.flatten(
    jax.jit(locvlm.init_params, static_argnums=0)(model, jax.random.key(0))
  )
  own, frozen = params.split(flat, workload.trained_parts(2))
  mesh = sharding.make_mesh({}, jax.devices()[:1])
  tx = optimizer.make(workload.adamw(), 10)
  state, _ = step_lib.init_state(own, frozen, tx, mesh)
  items = _noisy(step_lib.to_items(state))
  with tempfile.TemporaryDirectory() as folder:
    saved = checkpoints.Checkpoints(folder)
    saved.save(1, items, {}, last=True)
    saved.close()
    files = pathlib.Path(folder).rglob("*")
    size = sum(f.stat().st_size for f in files if f.is_file())
  count = [sum(x.size for x in part.values()) for part in (own, frozen)]
  return layers, 12 * count[0] + 4 * count[1], size


def _noisy(items: dict) -> dict:
  """Replaces arrays by noise: zeros, as moments are at first, take no room."""
  rng = np.random.default_rng(0)

  def noise(x: jax.Array) -> jax.Array:
    values = rng.standard_normal(x.shape, np.float32).astype(x.dtype)
    return jax.device_put(values, x.sharding)

  return jax.tree.map(noise, items)


_RECORDS = (10**3, 10**4, 10**5, 10**6, 10**7)
AXES: dict[str, tuple[Callable[[int], Point], Sequence[int], str]] = {
  "devices": (devices, (1, 2, 4), "simulated devices, 16 rows"),
  "length": (length, (256, 512, 1024, 2048), "positions of a row"),
  "batch": (batch, (1, 2, 4, 8, 16, 32), "rows of a step"),
  "pairs": (pairs, (1, 2, 4, 8, 16), "questions of an image"),
  "checkpoint": (checkpoint, (2, 4, 8, 16, 32), "layers"),
  "first_start": (first_start, _RECORDS, "records: first start"),
  "later_start": (later_start, _RECORDS, "records: later start"),
  "rows": (rows_of_many, _RECORDS, "records: rows"),
  "memory": (memory, _RECORDS, "records: memory"),
}


def measured(names: Sequence[str], path: str | None, small: bool) -> dict:
  """Measures the axes that the file at `path` has not yet, and adds them.

  Returns:
    {axis: {"machine", "date", "points"}}, in the order of `AXES`.
  """
  found = {}
  if path and os.path.exists(path):
    found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  for name in names:
    if name in found:
      continue
    measure, values, _ = AXES[name]
    found[name] = {
      "machine": provenance.machine(),
      "date": datetime.date.today().isoformat(),
      "points": [_shown(name, measure(v)) for v in values[: 2 if small else 9]],
    }
    if path:
      files.write_json(path, {n: found[n] for n in AXES if n in found})
  return {n: found[n] for n in AXES if n in found}


def _shown(name: str, point: Point) -> Point:
  x, work, cost, *beside = point
  other = "".join(f", otherwise {work / c:.4g}" for c in beside)
  rate = f"{work:.4g} / {cost:.4g} = {work / cost:.4g}{other}"
  print(f"{name} {x:g}: {rate}", flush=True)
  return point


def chart(name: str, label: str, points: Sequence[Point]) -> charts.Chart:
  """Draws work by cost as a share of the best; equal steps for each point."""
  rates = [p[1] / p[2] for p in points]
  values = [100 * r / max(rates) for r in rates]
  line = charts.Line(
    "work by cost, percent of the best",
    tuple(charts.Value(float(i), v, v, v) for i, v in enumerate(values)),
    0,
  )
  ticks = tuple((float(i), f"{p[0]:,.0f}") for i, p in enumerate(points))
  return charts.Chart(name, label, (line,), ticks, 0.0, "")


def main() -> None:
  """Measures the axes, prints them and writes the files."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--only", default=",".join(AXES))
  parser.add_argument("--small", action="store_true")
  parser.add_argument("--json")
  parser.add_argument("--svg")
  flags = parser.parse_args()
  before_jax.widen_vectors()
  before_jax.keep_memory()
  names = flags.only.split(",")
  if unknown := set(names) - AXES.keys():
    parser.error(f"--only: no axis {', '.join(sorted(unknown))}: {[*AXES]}")
  found = measured(names, flags.json, flags.small)
  if flags.svg:
    drawn = [chart(n, AXES[n][2], a["points"]) for n, a in found.items()]
    pathlib.Path(flags.svg).write_text(page.figure(drawn))


if __name__ == "__main__":
  main()

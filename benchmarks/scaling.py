"""Measures how the cost grows with the work, and draws it.

  python -m benchmarks.scaling [--only NAME,NAME] [--json FILE] [--svg FILE]

For each axis the work that the formula counts is divided by the time, or the
bytes, that were measured. Shown is that rate as a share of the axis' best: a
line that falls to the right costs more than the formula says.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from locvlm_jax import ASSETS
from locvlm_jax.bench import timing, train, workload
from locvlm_jax.data import packing, rows, stream
from locvlm_jax.data.sources import conversations
from locvlm_jax.experiments import charts, page
from locvlm_jax.models import locvlm, params
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.text import coords, formats, tokenizer
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.weights import checkpoints

Point = tuple[float, float, float]  # (where on the axis, work, cost)
_VISUAL = 64  # tokens of the micro model's image
_PAIR = 28  # text tokens of a question of the micro-world and its answer


def _settings(**changes) -> train.Settings:
  fields = {"model": "micro", "stage": 2, "batch": 8, "text": 64}
  fields |= {"accumulate": 1, "remat": "none", "unroll": 1}
  fields |= {"mu_dtype": "float32", "warmup": 2, "steps": 3, "rounds": 3}
  return train.Settings(**{**fields, "trace": None, **changes})


def _step(settings: train.Settings) -> tuple[float, float]:
  """Returns (FLOPs, seconds) of a step."""
  found = train.train_step(settings)
  return settings.batch * found["sample_flops"], min(found["seconds"])


def devices(num: int) -> Point:
  """A step of 16 rows on simulated devices that share the cores here."""
  before = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={num}"
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
  """A step of 32 questions, `num` of an image in a tree."""
  trees, rows = tree_seconds(num, 32)
  print(
    f"trees of {num}: {32 / trees:.1f} samples/s, rows {32 / rows:.1f}",
    flush=True,
  )
  return num, 32 * _pair_flops(num), trees


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


def records(num: int) -> Point:
  """Opening a file of conversations, and its first batch, by records."""
  began = time.perf_counter()
  batches = _stream(_conversations(num))
  next(batches)
  return num, num, time.perf_counter() - began


def stream_of_records(num: int) -> Point:
  """The next 1,600 rows of a file of that many records."""
  batches = _stream(_conversations(num))
  next(batches)
  return num, 1600, _seconds(lambda: [next(batches) for _ in range(50)])


def _stream(path: str):
  source = conversations.Conversations(path, "")
  spec = rows.RowSpec(
    tokenizer=tokenizer.Tokenizer.load(str(ASSETS / "micro_base")),
    format=formats.FORMATS["v1"],
    coords=coords.Coords(),
    geometry="square",
    image_size=96,
    num_visual=_VISUAL,
    text_length=64,
    max_pairs=1,
    weights=(1.0, 1.0, 1.0),
  )
  order = stream.StreamSpec({"text": 1.0}, 32, 0, window=8, threads=1)
  return stream.train_iterator({"text": source}, rows.RowMaker(spec), order)


def _conversations(num: int) -> str:
  """Writes a file of conversations, once; the cache is in its folder."""
  folder = pathlib.Path(tempfile.gettempdir()) / "locvlm_scaling"
  os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
  folder.mkdir(exist_ok=True)
  path = folder / f"{num}.json"
  if not path.exists():
    asked = {"from": "human", "value": "Where is the cup?"}
    turns = [asked, {"from": "gpt", "value": "At the left."}]
    line = json.dumps({"id": "1", "conversations": turns})
    path.write_text("[" + ",\n".join([line] * num) + "]")
  return str(path)


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
  with tempfile.TemporaryDirectory() as folder:
    saved = checkpoints.Checkpoints(folder)
    saved.save(1, step_lib.to_items(state), {}, last=True)
    saved.close()
    files = pathlib.Path(folder).rglob("*")
    size = sum(f.stat().st_size for f in files if f.is_file())
  count = [sum(x.size for x in part.values()) for part in (own, frozen)]
  return layers, 12 * count[0] + 4 * count[1], size


AXES: dict[str, tuple[Callable[[int], Point], Sequence[int], str]] = {
  "devices": (devices, (1, 2, 4), "simulated devices, 16 rows"),
  "length": (length, (256, 512, 1024, 2048), "positions of a row"),
  "batch": (batch, (1, 2, 4, 8, 16, 32), "rows of a step"),
  "pairs": (pairs, (1, 2, 4, 8, 16), "questions of an image"),
  "records": (records, (10**3, 10**4, 10**5, 10**6), "records: start"),
  "checkpoint": (checkpoint, (2, 4, 8, 16, 32), "layers"),
  "stream": (stream_of_records, (10**3, 10**4, 10**5, 10**6), "records: rows"),
}


def chart(name: str, label: str, points: Sequence[Point]) -> charts.Chart:
  """Draws work by cost as a share of the best; equal steps for each point."""
  rates = [work / cost for _, work, cost in points]
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
  parser = argparse.ArgumentParser()
  parser.add_argument("--only", default=",".join(AXES))
  parser.add_argument("--json")
  parser.add_argument("--svg")
  flags = parser.parse_args()
  found = {}
  for name in flags.only.split(","):
    measure, values, _ = AXES[name]
    found[name] = [measure(value) for value in values]
    for x, work, cost in found[name]:
      rate = f"{work:.4g} / {cost:.4g} = {work / cost:.4g}"
      print(f"{name} {x:g}: {rate}", flush=True)
    if flags.json:  # what was measured is kept where the next fails
      pathlib.Path(flags.json).write_text(json.dumps(found, indent=1))
  if flags.svg:
    drawn = [chart(n, AXES[n][2], p) for n, p in found.items()]
    pathlib.Path(flags.svg).write_text(page.figure(drawn))


if __name__ == "__main__":
  main()

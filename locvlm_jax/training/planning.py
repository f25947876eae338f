"""Compiles a training step for a machine that is not here, and measures it."""

import dataclasses
import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping

import jax

from locvlm_jax import assemble, checks
from locvlm_jax.config import Config
from locvlm_jax.models import locvlm, params
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.perf import hlo, machines
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.room import memory
from locvlm_jax.training.room.layout import Layout

GIB = 2**30


def plan(
  config: Config,
  target: machines.Machine,
  layout: Layout | None = None,
  hlo_file: str | None = None,
) -> dict:
  """Compiles the training step of `config` for `target` and measures it.

  Args:
    config: all of it.
    target: the machine.
    layout: default: the config's.
    hlo_file: where the compiled program is written.

  Raises:
    ValueError: the config and the machine do not go together, or a compiler
      is missing.
  """
  layout = layout or Layout.of(config)
  assemble.training_model(config, target.device.name)  # or is refused
  mesh = sharding.make_mesh(layout.mesh, machines.devices(target))
  checks.check_batch(config, mesh, layout.accumulate)
  began = time.monotonic()
  result = {
    "topology": target.topology,
    "settings": settings(config, target, layout, mesh),
  }
  try:
    compiled = _compile(config, target, layout, mesh)
  except Exception as e:
    return result | {"fits": False} | _out_of_memory(e)
  text = compiled.as_text()
  if hlo_file:
    with open(hlo_file, "w", encoding="utf-8") as f:
      f.write(text)
  moved = hlo.collectives(text)
  peak = compiled.memory_analysis().peak_memory_in_bytes
  return result | {
    "compile_s": time.monotonic() - began,
    "memory": {"peak": peak, "has": target.device.memory},
    "fits": peak <= target.device.memory,
    "collectives": hlo.summary(moved),
    **floor(config, target, layout, hlo.traffic(moved)),
  }


def settings(
  config: Config, target: machines.Machine, layout: Layout, mesh
) -> dict:
  """Lists what a search varies, and the shape of the batch."""
  model = assemble.model(config, target.device.name, layout.remat).config
  return {
    "stage": config.stage,
    "batch_size": config.batch_size,
    "row": memory.row_length(config),
    "mesh": dict(mesh.shape),
    "accumulate": layout.accumulate,
    "remat": model.remat,
    "unroll": model.unroll,
    "attention": config.model.attention,
  }


def _compile(config: Config, target: machines.Machine, layout: Layout, mesh):
  """Compiles the step as the machine would run it."""
  name, is_gpu = target.device.name, target.device.is_gpu
  shape = assemble.training_model(config, name, layout.remat).config
  if shape.attention == "auto":
    usual = "cudnn" if is_gpu else "xla"
    shape = dataclasses.replace(shape, attention=usual)
  model = locvlm.LocVLM(shape)
  tx = optimizer.make(config.optim, config.steps)
  trainable, frozen = _parameters(config, model, mesh)
  state = step_lib.state_shapes(trainable, frozen, tx, mesh)
  rows = sharding.batch_sharding(mesh)
  step = step_lib.jit_train_step(
    model,
    tx,
    jax.tree.map(lambda x: x.sharding, state),
    rows,
    layout.accumulate,
  )
  batch = longest_batch(config, model, rows)
  # No autotuning without the device: its own choice of Triton's tiles has no
  # answer for some odd shapes, and cuBLAS is what most products end up with.
  options = {"xla_gpu_enable_triton_gemm": False} if is_gpu else {}
  with jax.set_mesh(mesh):
    return step.lower(state, batch).compile(options)


def _parameters(config, model, mesh) -> tuple[dict, dict]:
  """(trainable, frozen) shapes, as `initial.initial_params` places them."""
  shapes = params.param_shapes(model)
  where = sharding.param_shardings(shapes, mesh)
  kept = params.kept_dtypes(
    shapes, config.trainable, config.model.dtype, config.optim.masters
  )
  placed = {
    path: jax.ShapeDtypeStruct(x.shape, kept[path], sharding=where[path])
    for path, x in shapes.items()
  }
  return params.split(placed, config.trainable)


def longest_batch(config: Config, model: locvlm.LocVLM, rows) -> dict:
  """Returns the shapes of the longest batch, with sharding `rows`."""
  return {
    k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows)
    for k, x in memory.batch(config, model).items()
  }


def _out_of_memory(error: Exception) -> dict:
  """TPUs' compiler refuses what does not fit; the message says by how much.

  Raises:
    ValueError: the error is of another kind.
  """
  text = str(error)
  if "cuDNN not found" in text:
    raise ValueError("no cuDNN: pip install 'locvlm_jax[plan]'.") from None
  if "RESOURCE_EXHAUSTED" not in text:
    raise error
  used = re.search(r"(?:Used|\() ?([\d.]+)G", text)
  return {"memory": {"peak": float(used[1]) * GIB if used else None}}


def floor(
  config: Config, target: machines.Machine, layout: Layout, traffic: int
) -> dict:
  """Computes the least time of a step, and of the run.

  Three things take time: the model's products at the devices' peak, the
  optimizer's one pass over its state, what goes over the slowest link. The
  last can hide behind the first, the optimizer behind neither.
  """
  model, device = assemble.model(config), target.device
  text = memory.row_length(config) - model.config.num_visual
  trainable, _ = params.split(params.param_shapes(model), config.trainable)
  parts = flops_lib.trained_parts(trainable)
  flops = flops_lib.train_flops(flops_lib.forward_flops(model, text), parts)
  peak = flops_lib.peak_flops(device.name)
  compute = flops * config.batch_size / (peak * target.num)
  seconds = {
    "products": compute,
    "optimizer": _optimizer_seconds(config, target, layout),
    "links": _link_seconds(target, traffic),
  }
  least = max(compute, seconds["links"]) + seconds["optimizer"]
  return {
    "sample_flops": flops,
    "floor_ms": least * 1e3,
    "floor_of_ms": {name: s * 1e3 for name, s in seconds.items()},
    "samples_per_s": config.batch_size / least,
    "days": config.steps * least / 86_400,
  }


def _optimizer_seconds(config, target, layout: Layout) -> float:
  """Master, gradient and two moments are read; all but the gradient written."""
  shapes = params.param_shapes(assemble.model(config))
  trainable, _ = params.split(shapes, config.trainable)
  each = sum(math.prod(x.shape) for x in trainable.values())
  shards = target.num if layout.mesh["fsdp"] != 1 else 1
  return 28 * each / shards / target.device.bandwidth


def _link_seconds(target: machines.Machine, traffic: int) -> float:
  """Within a node by its links; a node's share of the rest by its network."""
  if target.num == 1:
    return 0.0
  within = traffic * (target.num - 1) / target.num / target.device.links
  if target.nodes == 1:
    return within
  per_node = target.num // target.nodes
  across = traffic * (target.nodes - 1) / target.nodes
  return max(within, across / (per_node * target.device.network))


def table(result: Mapping) -> str:
  """Writes the result for people."""
  s, memory = result["settings"], result["memory"]
  mesh = " ".join(f"{a}={n}" for a, n in s["mesh"].items())
  lines = [
    f"{result['topology']}  {mesh}  {s['stage']}: {s['batch_size']} rows of"
    f" {s['row']} in {s['accumulate']} microbatches, remat {s['remat']},"
    f" unroll {s['unroll']}, attention {s['attention']}"
  ]
  if "has" not in memory:
    peak = memory["peak"]
    need = f"needs {peak / GIB:.1f} GiB" if peak else "needs too much memory"
    return "\n".join(
      [*lines, f"  does not fit: {need}; --search tries what could be set"]
    )
  lines += [
    f"  memory       {memory['peak'] / GIB:8.2f} GiB of"
    f" {memory['has'] / GIB:.2f}: {'fits' if result['fits'] else 'TOO MUCH'}"
  ]
  lines += [
    f"  {kind:18s} {c['count']:6d} times {c['bytes'] / GIB:9.3f} GiB"
    for kind, c in result["collectives"].items()
  ]
  of = "  ".join(f"{n} {ms:.1f}" for n, ms in result["floor_of_ms"].items())
  return "\n".join(
    [
      *lines,
      f"  model        {result['sample_flops'] / 1e12:8.2f} TFLOP a sample",
      f"  floor        {result['floor_ms']:8.1f} ms a step ({of}),"
      f" {result['samples_per_s']:.1f} samples/s",
      f"  run          {result['days']:8.3f} days at the floor,"
      f" {2 * result['days']:.3f} at half of it",
      f"  compiled in  {result['compile_s']:8.1f} s",
    ]
  )


def search(config: Config, target: machines.Machine) -> list[dict]:
  """Plans every layout; the best first: those that fit, by their floor.

  "full" rematerialization runs the language model forward twice. Of two that
  are equally fast by the floor, the one that recomputes less is first.
  """
  results = []
  for layout in layouts(config, target):
    result = plan(config, target, layout)
    print(table(result), flush=True)
    results.append(result)
  results.sort(key=lambda r: rank(r))
  best = results[0]
  if best["fits"]:
    s = best["settings"]
    mesh = " ".join(f"--config.mesh.{a}={n}" for a, n in s["mesh"].items())
    print(
      f"fastest that fits: --config.model.remat={s['remat']}"
      f" --config.accumulate={s['accumulate']} {mesh}"
    )
  else:
    print("nothing fits: use more devices, or LoRA.")
  return results


_REMAT = ("none", "dots", "full")


def rank(result: Mapping) -> tuple:
  """Orders results: the smaller, the better."""
  s = result["settings"]
  if not result["fits"]:
    return (1, 0.0, 0, 0)
  again = 4 / 3 if s["remat"] == "full" else 1.0
  of = result["floor_of_ms"]
  time_ = max(of["products"] * again, of["links"]) + of["optimizer"]
  return (0, round(time_, 3), _REMAT.index(s["remat"]), s["accumulate"])


def layouts(config: Config, target: machines.Machine) -> Iterator[Layout]:
  """Lists each remat, number of microbatches and mesh that divide."""
  heads = config.model.llm.num_kv_heads
  for remat, accumulate, tensor in itertools.product(
    _REMAT, (1, 2, 4, 8), (1, 2)
  ):
    rest = target.num // tensor
    if target.num % tensor or heads % tensor:
      continue
    for data in sorted({1, target.nodes}):
      fsdp = rest // data
      rows, left = divmod(config.batch_size, accumulate)
      if left or rest % data or rows % (data * fsdp):
        continue
      mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
      yield Layout(mesh, accumulate, remat)

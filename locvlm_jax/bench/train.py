"""Training steps: milliseconds, samples a second and MFU, from random weights.

One fixed batch lies on the devices already: there is no input pipeline. With
--peer, transformers' Llava on PyTorch trains a model of the same size on the
same device: as it is commonly run (bfloat16 weights and moments, gradient
checkpointing) and, on CUDA, tuned (float32 masters under autocast, compiled
layers, the head on text alone, checkpointing only if ours rematerializes).
Each runs in a process of its own, ours before and after. MFU counts model FLOPs
without rematerialization, and half of a full attention for causal attention.
"""

import argparse
import time
import types
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from locvlm_jax.bench import timing, workload
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.training import optimizer, tracing
from locvlm_jax.training import step as step_lib

_MATMUL_REPEATS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `measure`."""
  parser.add_argument("--model", default="micro", choices=workload.SIZES)
  parser.add_argument("--stage", type=int, default=2, choices=(1, 2))
  parser.add_argument("--batch", type=int, help="rows, on all devices together")
  parser.add_argument("--text", type=int, help="text tokens a row")
  parser.add_argument("--accumulate", type=int, default=1, help="microbatches")
  parser.add_argument("--remat", default="none", help="none | dots | full")
  parser.add_argument("--unroll", type=int, default=1, help="layers a turn")
  parser.add_argument(
    "--mu_dtype", default="float32", help="of Adam's first moment"
  )
  parser.add_argument("--warmup", type=int, default=5, help="steps")
  parser.add_argument("--steps", type=int, default=5, help="timed, a round")
  parser.add_argument("--rounds", type=int, default=4)
  parser.add_argument(
    "--trace", help="a folder for a trace of three more steps of ours"
  )


def measure(arguments: argparse.Namespace) -> dict:
  """Returns medians and spread of ours, and of the peers if asked for."""
  rows, text = workload.SIZES[arguments.model]
  arguments.batch = arguments.batch or rows
  arguments.text = arguments.text or text
  found: dict[str, list[dict]] = {}
  for name, run, extra in _contestants(arguments.peer):
    found.setdefault(name, []).append(
      timing.in_subprocess(run, arguments, *extra)
    )
  results = {name: _rates(parts, arguments) for name, parts in found.items()}
  ours = results["ours"]["samples_per_s"]["median"]
  ratios = {
    f"over_{name}": ours / result["samples_per_s"]["median"]
    for name, result in results.items()
    if name != "ours"
  }
  settings = {
    k: v for k, v in vars(arguments).items() if k not in ("json", "measure")
  }
  return {"settings": settings, **results, **ratios}


def _contestants(peer: bool) -> list[tuple[str, Callable, tuple]]:
  """Lists (name, function, its extra arguments) in the order of their runs."""
  ours = ("ours", train_step, ())
  if not peer:
    return [ours]
  # It imports torch, which need not be installed.
  from locvlm_jax.bench import peers_train

  peers = [
    (name, peers_train.train_step, (tuned,))
    for name, tuned in peers_train.variants().items()
  ]
  return [ours, *peers, ours]


def _rates(parts: Sequence[Mapping], arguments: argparse.Namespace) -> dict:
  """Joins the runs of one contestant, and adds its rates."""
  seconds = [s for part in parts for s in part["seconds"]]
  facts = {k: v for k, v in parts[0].items() if k != "seconds"}
  per_second = [arguments.batch / s for s in seconds]
  flops, peak = facts["sample_flops"], facts["peak_flops"]
  return {
    **facts,
    "step_ms": timing.spread([1e3 * s for s in seconds]),
    "samples_per_s": timing.spread(per_second),
    "tokens_per_s": timing.spread([arguments.text * r for r in per_second]),
    "mfu": timing.spread([r * flops / peak for r in per_second]),
  }


def train_step(arguments: argparse.Namespace) -> dict:
  """Times our training step on all devices of this process."""
  trained = workload.trained_parts(arguments.stage)
  model = locvlm.LocVLM(
    workload.model_config(arguments.model, arguments.remat, arguments.unroll)
  )
  shards = {"data": -1} if arguments.stage == 1 else {"fsdp": -1}
  mesh = sharding.make_mesh(shards)
  tx = optimizer.make(_optimizer(arguments.mu_dtype), 1000)
  with jax.set_mesh(mesh):
    params = _random_params(model, trained, mesh)
    state, where = step_lib.init_state(*params, tx, mesh)
    batch = workload.random_batch(model.config, arguments.batch, arguments.text)
    batch = sharding.put_batch(batch, mesh, arguments.batch)
    jitted = step_lib.jit_train_step(
      model, tx, where, sharding.batch_sharding(mesh), arguments.accumulate
    )
    now = {"state": state}
    del state, params  # the step donates them

    def step() -> None:
      now["state"], now["scalars"] = jitted(now["state"], batch)

    seconds = timing.per_step(
      step,
      lambda: jax.block_until_ready(now),
      warmup=arguments.warmup,
      steps=arguments.steps,
      rounds=arguments.rounds,
    )
    if arguments.trace:
      _trace(jitted, now, batch, arguments.trace)
  return {
    **_device_facts(model, arguments, batch["tokens"]),
    "loss": float(now["scalars"]["loss"]),
    "seconds": seconds,
  }


def _device_facts(
  model: locvlm.LocVLM, arguments: argparse.Namespace, tokens: jax.Array
) -> dict:
  """Describes the devices, and what a sample costs on them."""
  device, num = jax.devices()[0], jax.device_count()
  forward = flops_lib.forward_flops(model, arguments.text)
  trained = set(workload.trained_parts(arguments.stage))
  return {
    "device": device.device_kind,
    "devices": num,
    "versions": {"jax": jax.__version__},
    "row": tokens.shape[1],
    "sample_flops": flops_lib.train_flops(forward, trained),
    "peak_flops": flops_lib.peak_flops(device.device_kind) * num,
    "one_product_flops": _matmul_flops(model.config, tokens.size),
    "memory": (device.memory_stats() or {}).get("peak_bytes_in_use"),
  }


def _optimizer(mu_dtype: str) -> types.SimpleNamespace:
  """Returns the paper's optimizer, with the fields of `config.optim`."""
  return types.SimpleNamespace(
    name="adamw",
    lr=2e-5,
    warmup_ratio=0.03,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    clip_norm=1.0,
    mu_dtype=mu_dtype,
  )


def _trace(jitted: Callable, now: dict, batch: dict, directory: str) -> None:
  """Runs three more steps, traced as a run's are (see locvlm_jax.profile)."""
  profile = types.SimpleNamespace(steps=(1, 3), hlo=False, memory=False)
  traced = tracing.traced(jitted, profile, directory, 0)
  for _ in range(3):
    now["state"], now["scalars"] = traced(now["state"], batch)


def _random_params(
  model: locvlm.LocVLM, trained: Sequence[str], mesh: jax.sharding.Mesh
) -> tuple[dict, dict]:
  """Draws (trainable float32, frozen in the model's dtype), born sharded."""
  shapes = params_lib.param_shapes(model)
  masters, _ = params_lib.split(shapes, trained)

  def init(key):
    flat = params_lib.flatten(locvlm.init_params(model, key))
    return {
      p: x if p in masters else x.astype(model.config.dtype)
      for p, x in flat.items()
    }

  where = sharding.param_shardings(shapes, mesh)
  params = jax.jit(init, out_shardings=where)(jax.random.key(0))
  return params_lib.split(params, trained)


def _matmul_flops(config: locvlm.LocVLMConfig, positions: int) -> float:
  """Measures FLOP/s of one device on the MLP's product alone, as a ceiling."""
  rows = max(positions // jax.device_count(), 1)
  width, hidden = config.llm.width, config.llm.mlp_width
  x = jnp.ones((rows, width), config.dtype)
  kernel = jnp.ones((width, hidden), config.dtype)
  product = jax.jit(jnp.matmul)
  product(x, kernel).block_until_ready()
  began = time.perf_counter()
  for _ in range(_MATMUL_REPEATS):
    y = product(x, kernel)
  y.block_until_ready()
  seconds = (time.perf_counter() - began) / _MATMUL_REPEATS
  return 2.0 * rows * width * hidden / seconds

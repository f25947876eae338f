"""Training steps: milliseconds, samples a second and MFU, from random weights.

One fixed batch that already lies on the devices: no input pipeline. The peer,
with --peer and PyTorch and transformers installed: transformers' Llava of the
same size on the same device, as it is commonly run (bfloat16 weights and
moments, gradient checkpointing) and, on CUDA, tuned (float32 masters under
autocast, compiled layers, head on text alone, checkpointing only if ours
rematerialises). Each runs in a process of its own, ours before and after.
Rates divide by SCALE's model FLOPs: no rematerialisation, causal attention.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np

from locvlm_jax.bench import peers, timing
from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.text.formats import IMAGE_TOKEN
from locvlm_jax.training import optimizer, tracing
from locvlm_jax.training import step as step_lib

# Model -> (rows, text tokens) of a batch, if not given.
SIZES = {"micro": (8, 64), "b": (16, 128), "l": (16, 128)}
_GEMM_REPEATS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The arguments of `measure`."""
  parser.add_argument("--model", default="micro", choices=SIZES)
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
  parser.add_argument("--peer", action="store_true", help="PyTorch too")
  parser.add_argument(
    "--trace", help="a folder for a trace of three more steps of ours"
  )


def measure(arguments: argparse.Namespace) -> dict:
  """Medians and spread of ours, and of the peer where it is asked for."""
  rows, text = SIZES[arguments.model]
  arguments.batch = arguments.batch or rows
  arguments.text = arguments.text or text
  runs = [("ours", _ours, ())]
  if arguments.peer:
    runs += [
      (name, peers.train_step, (tuned,)) for name, tuned in _peers().items()
    ]
    runs += runs[:1]
  found: dict[str, list[dict]] = {}
  for name, run, extra in runs:
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
  return {"settings": vars(arguments) | {"json": None}, **results, **ratios}


def _peers() -> dict[str, bool]:
  """Name of each arm -> whether it is tuned."""
  try:
    import torch
    import transformers  # noqa: F401
  except ImportError:
    raise ValueError(
      "--peer needs PyTorch: pip install torch transformers."
    ) from None
  cuda = {"peer_tuned": True} if torch.cuda.is_available() else {}
  return {"peer": False, **cuda}


def _rates(parts: list[Mapping], arguments) -> dict:
  """What the runs of one contestant say, with its rates."""
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


def config(name: str, remat: str = "none", unroll: int = 1):
  """The `LocVLMConfig` of "b", "l" or "micro"."""

  micro = locvlm.LocVLMConfig(
    clip_vit.VisionConfig(
      image_size=96,
      patch_size=12,
      width=128,
      num_layers=6,
      num_heads=4,
      mlp_width=512,
    ),
    "mlp",
    llama.LlamaConfig(
      vocab_size=1024,
      width=128,
      num_layers=4,
      num_heads=4,
      num_kv_heads=4,
      head_dim=32,
      mlp_width=352,
      eps=1e-5,
    ),
    dtype="float32",
  )
  made = {"b": locvlm.locvlm_b, "l": locvlm.locvlm_l, "micro": lambda: micro}
  return dataclasses.replace(made[name](), remat=remat, unroll=unroll)


def batch(shape, rows: int, text: int) -> dict[str, np.ndarray]:
  """Rows of <s>, one image and text - 1 tokens that are all learned.

  Args:
    shape: `LocVLMConfig`.
    rows: in all.
    text: text tokens a row.
  """

  rng, visual = np.random.default_rng(0), shape.vision.num_patches
  length, size = visual + text, shape.vision.image_size
  tokens = rng.integers(3, shape.llm.vocab_size, (rows, length), np.int32)
  tokens[:, 1 : 1 + visual] = IMAGE_TOKEN
  mask = np.ones((rows, length), bool)
  mask[:, : 1 + visual] = False
  images = rng.integers(0, 256, (rows, 1, size, size, 3), np.uint8)
  return {
    "images": images,
    "tokens": tokens,
    "loss_mask": mask,
    "lengths": np.full(rows, length, np.int32),
  }


def trained_parts(stage: int) -> tuple[str, ...]:
  return ("adapter",) if stage == 1 else ("adapter", "llm")


def timed(step: Callable[[], None], wait: Callable[[], None], arguments):
  """Seconds of a step, once a round; waits at a round's end, not a step's."""
  for _ in range(arguments.warmup):
    step()
  wait()
  seconds = []
  for _ in range(arguments.rounds):
    began = time.perf_counter()
    for _ in range(arguments.steps):
      step()
    wait()
    seconds.append((time.perf_counter() - began) / arguments.steps)
  return seconds


def _traced(train_step: Callable, now: dict, rows, directory: str) -> None:
  """Three more steps, traced as a run's are (`locvlm_jax.profile`)."""

  profile = {"steps": (1, 3), "hlo": False, "memory": False}
  train_step = tracing.traced(train_step, profile, directory, 0)
  for _ in range(3):
    now["state"], now["scalars"] = train_step(now["state"], rows)


def _optimizer(arguments) -> dict:
  return {
    "name": "adamw",
    "lr": 2e-5,
    "warmup_ratio": 0.03,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "mu_dtype": arguments.mu_dtype,
  }


def _ours(arguments) -> dict:
  import jax

  trained = trained_parts(arguments.stage)
  model = locvlm.LocVLM(
    config(arguments.model, arguments.remat, arguments.unroll)
  )
  shards = {"data": -1} if arguments.stage == 1 else {"fsdp": -1}
  mesh = sharding.make_mesh(shards)
  tx = optimizer.make(_optimizer(arguments), 1000)
  with jax.set_mesh(mesh):
    params = _random_params(model, trained, mesh)
    state, where = step_lib.init_state(*params, tx, mesh)
    rows = sharding.put_batch(
      batch(model.config, arguments.batch, arguments.text),
      mesh,
      arguments.batch,
    )
    train_step = step_lib.jit_train_step(
      model, tx, where, sharding.batch_sharding(mesh), arguments.accumulate
    )
    now = {"state": state}
    del state, params

    def step() -> None:
      now["state"], now["scalars"] = train_step(now["state"], rows)

    seconds = timed(step, lambda: jax.block_until_ready(now), arguments)
    if arguments.trace:
      _traced(train_step, now, rows, arguments.trace)
  device = jax.devices()[0]
  forward = flops_lib.forward_flops(model, arguments.text)
  return {
    "device": device.device_kind,
    "devices": jax.device_count(),
    "versions": {"jax": jax.__version__},
    "row": rows["tokens"].shape[1],
    "sample_flops": flops_lib.train_flops(forward, set(trained)),
    "peak_flops": flops_lib.peak_flops(device.device_kind) * jax.device_count(),
    "one_product_flops": _product_flops(model.config, rows["tokens"].size),
    "memory": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    "loss": float(now["scalars"]["loss"]),
    "seconds": seconds,
  }


def _random_params(model, trained, mesh) -> tuple[dict, dict]:
  """(trainable float32, frozen in the model's dtype), born sharded."""
  import jax

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


def _product_flops(shape, positions: int) -> float:
  """FLOP/s of one device on the MLP's product alone: what can be reached."""
  import jax
  import jax.numpy as jnp

  rows = max(positions // jax.device_count(), 1)
  width, hidden = shape.llm.width, shape.llm.mlp_width
  x = jnp.ones((rows, width), shape.dtype)
  kernel = jnp.ones((width, hidden), shape.dtype)
  product = jax.jit(jnp.matmul)
  product(x, kernel).block_until_ready()
  began = time.perf_counter()
  for _ in range(_GEMM_REPEATS):
    y = product(x, kernel)
  y.block_until_ready()
  seconds = (time.perf_counter() - began) / _GEMM_REPEATS
  return 2.0 * rows * width * hidden / seconds

"""Times training steps of random weights: `python -m locvlm_jax.bench train`.

Prints milliseconds, samples a second and MFU. One fixed batch lies on the
devices already: there is no input pipeline. MFU counts model FLOPs without
rematerialization, and half of a full attention for causal attention.

With --peer, transformers' Llava on PyTorch trains a model of the same size on
the same device: as it is commonly run (bfloat16 weights and moments, gradient
checkpointing) and, on CUDA, tuned (float32 masters under autocast, compiled
layers, the head on text alone, checkpointing only if ours rematerializes). Each
runs in a process of its own, ours before and after.
"""

import dataclasses
import time
import types
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from locvlm_jax import before_jax
from locvlm_jax.bench import command_line, timing, workload
from locvlm_jax.models import layers, locvlm, quantized
from locvlm_jax.models import params as params_lib
from locvlm_jax.models.kernels import segments
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import flops as flops_lib
from locvlm_jax.training import optimizer, tracing
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.compact import masters

_MATMUL_REPEATS = 10


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is trained, and for how long; each is a flag of the same name."""

  model: str
  stage: int
  batch: int | None
  text: int | None
  accumulate: int
  remat: str
  unroll: int
  mu_dtype: str
  warmup: int
  steps: int
  rounds: int
  trace: str | None
  base_weights: str = "float"
  lora_rank: int = 0
  moments: str = "float"
  masters: str = "float32"
  pack: int = 0

  def model_config(self) -> locvlm.LocVLMConfig:
    """Returns the config of our model."""
    config = workload.model_config(self.model, self.remat, self.unroll)
    config = workload.with_lora(config, self.base_weights, self.lora_rank)
    if self.pack < 2:
      return config
    bound = segments.Bound(self.pack, config.num_visual + self.text)
    return dataclasses.replace(config, bound=bound)

  def trained(self) -> tuple[str, ...]:
    """Returns patterns of the paths of the parameters that train."""
    return workload.trained_parts(self.stage, bool(self.lora_rank))


def define_flags() -> None:
  """Defines the flags of `main`."""
  flags.DEFINE_enum("model", "micro", workload.SIZES, "Size of the model.")
  flags.DEFINE_integer("stage", 2, "Of training.", 1, 2)
  flags.DEFINE_integer(
    "batch",
    None,
    "Rows on all devices together; left out: 8, or 16 of b and l.",
  )
  flags.DEFINE_integer(
    "text", None, "Text tokens of a row; left out: 64, or 128 of b and l."
  )
  flags.DEFINE_integer("accumulate", 1, "Microbatches a step.", 1)
  flags.DEFINE_enum(
    "remat", "none", layers.REMAT, "What the backward pass computes again."
  )
  flags.DEFINE_integer("unroll", 1, "Layers in one turn of the loop.", 1)
  flags.DEFINE_string("mu_dtype", "float32", "Dtype of Adam's first moment.")
  flags.DEFINE_enum(
    "moments", "float", optimizer.MOMENTS, "Of Adam, as config.optim has them."
  )
  flags.DEFINE_enum(
    "masters", "float32", masters.MASTERS, "As config.optim has them."
  )
  flags.DEFINE_enum(
    "base_weights", "float", quantized.PRECISIONS, "Of a LLM with --lora_rank."
  )
  flags.DEFINE_integer(
    "lora_rank", 0, "Of what trains instead of the LLM; 0: the LLM trains.", 0
  )
  flags.DEFINE_integer(
    "pack",
    0,
    "Conversations of a row, of a quarter of --text to all of it; 0: one, of"
    " --text tokens.",
    0,
  )
  flags.DEFINE_integer("warmup", 5, "Steps before the first round.", 1)
  flags.DEFINE_integer("steps", 5, "Steps that a round times.", 1)
  flags.DEFINE_string(
    "trace", None, "A folder for a trace of three more steps."
  )
  command_line.define_flags(rounds=4)


def main(argv: list[str]) -> None:
  """Prints what `measure` finds for the flags."""
  del argv
  settings = command_line.read(Settings)
  rows, text = workload.SIZES[settings.model]
  settings = dataclasses.replace(
    settings, batch=settings.batch or rows, text=settings.text or text
  )
  command_line.show(measure(settings, command_line.has_peer()))


def measure(settings: Settings, has_peer: bool) -> dict:
  """Returns medians and spread of ours, and of the peers if asked for.

  Raises:
    ValueError: the peers do not train so, or a contestant failed.
  """
  if has_peer and (settings.lora_rank or settings.pack):
    raise ValueError(
      "--peer trains whole models on rows of one length: leave --lora_rank and"
      " --pack out."
    )
  found: dict[str, list[dict]] = {}
  for name, run, extra in _contestants(has_peer):
    found.setdefault(name, []).append(
      timing.in_subprocess(run, settings, *extra)
    )
  results = {name: rates(parts, settings) for name, parts in found.items()}
  ours = results["ours"]["samples_per_s"]["median"]
  ratios = {
    f"over_{name}": ours / result["samples_per_s"]["median"]
    for name, result in results.items()
    if name != "ours"
  }
  return {"settings": dataclasses.asdict(settings), **results, **ratios}


def _contestants(has_peer: bool) -> list[tuple[str, Callable, tuple]]:
  """Lists (name, function, its extra arguments) in the order of their runs."""
  ours = ("ours", train_step, ())
  if not has_peer:
    return [ours]
  # It imports torch, which need not be installed.
  from locvlm_jax.bench import peers_train

  peers = [
    (name, peers_train.train_step, (tuned,))
    for name, tuned in peers_train.variants().items()
  ]
  return [ours, *peers, ours]


def rates(parts: Sequence[Mapping], settings: Settings) -> dict:
  """Joins the runs of one contestant, and adds its rates."""
  seconds = [s for part in parts for s in part["seconds"]]
  facts = {k: v for k, v in parts[0].items() if k != "seconds"}
  per_second = [settings.batch / s for s in seconds]
  flops, peak = facts["sample_flops"], facts["peak_flops"]
  return {
    **facts,
    "step_ms": timing.spread([1e3 * s for s in seconds]),
    "samples_per_s": timing.spread(per_second),
    "tokens_per_s": timing.spread([settings.text * r for r in per_second]),
    "mfu": timing.spread([r * flops / peak for r in per_second]),
  }


def train_step(settings: Settings) -> dict:
  """Times our training step on all devices of this process."""
  before_jax.keep_memory()
  model = locvlm.LocVLM(settings.model_config())
  shards = {"data": -1, "fsdp": 1 if settings.stage == 1 else -1}
  num = params_lib.num_llm_parameters(model.config.llm)
  mesh = sharding.make_mesh(sharding.sizes_for(shards, num))
  with jax.set_mesh(mesh):
    batch = _batch(model.config, settings)
    jitted, now, batch = prepared(model, settings, batch, mesh)

    def step() -> None:
      now["state"], now["scalars"] = jitted(now["state"], batch)

    seconds = timing.per_step(
      step,
      lambda: jax.block_until_ready(now),
      warmup=settings.warmup,
      steps=settings.steps,
      rounds=settings.rounds,
    )
    if settings.trace:
      _trace(jitted, now, batch, settings.trace)
  return {
    **_device_facts(model, settings, batch["tokens"]),
    "loss": float(now["scalars"]["loss"]),
    "seconds": seconds,
  }


def prepared(
  model: locvlm.LocVLM,
  settings: Settings,
  batch: Mapping[str, np.ndarray],
  mesh: jax.sharding.Mesh,
) -> tuple[Callable, dict, dict]:
  """Returns (the step, {"state": before it}, the batch on the devices).

  To be called, as the step is, where the mesh is set.
  """
  tx = optimizer.make(_adamw(settings), 1000)
  params = _random_params(model, settings, mesh)
  state, where = step_lib.init_state(*params, tx, mesh)
  rows = sharding.batch_sharding(mesh)
  step = step_lib.jit_train_step(model, tx, where, rows, settings.accumulate)
  placed = sharding.put_batch(dict(batch), mesh, len(batch["tokens"]))
  return step, {"state": state}, placed


def _device_facts(
  model: locvlm.LocVLM, settings: Settings, tokens: jax.Array
) -> dict:
  """Describes the devices, and what a sample costs on them."""
  device, num = jax.devices()[0], jax.device_count()
  text = settings.text
  if settings.pack:  # the mean of the conversations
    text = int(workload.text_lengths(settings.batch, text).mean())
  forward = flops_lib.forward_flops(model, text)
  shapes = params_lib.param_shapes(model)
  paths, _ = params_lib.split(shapes, settings.trained())
  trained = flops_lib.trained_parts(paths)
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


def _adamw(settings: Settings) -> types.SimpleNamespace:
  """Returns the optimizer's settings, as `config.optim` has them."""
  return workload.adamw(
    mu_dtype=settings.mu_dtype,
    moments=settings.moments,
    masters=settings.masters,
  )


def _batch(
  config: locvlm.LocVLMConfig, settings: Settings
) -> dict[str, np.ndarray]:
  """Draws `settings.batch` conversations, in rows as `settings.pack` says."""
  if settings.pack:
    return workload.packed_batch(
      config, settings.batch, settings.text, settings.pack
    )
  return workload.random_batch(config, settings.batch, settings.text)


def _trace(jitted: Callable, now: dict, batch: dict, directory: str) -> None:
  """Runs three more steps, traced as a run's are (see locvlm_jax.profile)."""
  profile = types.SimpleNamespace(steps=(1, 3), hlo=False, memory=False)
  traced = tracing.traced(jitted, profile, directory, 0)
  for _ in range(3):
    now["state"], now["scalars"] = traced(now["state"], batch)


def _random_params(
  model: locvlm.LocVLM, settings: Settings, mesh: jax.sharding.Mesh
) -> tuple[dict, dict]:
  """Draws (trainable, frozen), born sharded and in the dtypes of a run."""
  shapes = params_lib.param_shapes(model)
  trained, dtype = settings.trained(), model.config.dtype
  kept = params_lib.kept_dtypes(shapes, trained, dtype, settings.masters)

  def init(key):
    flat = params_lib.flatten(locvlm.init_params(model, key))
    return {p: x.astype(kept[p]) for p, x in flat.items()}

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

"""Checks that a GPU computes what the CPU does: attention, a step, answers.

  python -m benchmarks.gpu_parity

Compares jax's first device with the CPU; needs no package but those of a bare
GPU image (jax, flax, optax, orbax, einops, transformers). Prints each
difference with its bound, and ends with exit status 1 if one is beyond it.
"""

import functools
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax.bench import workload
from locvlm_jax.inference import decode
from locvlm_jax.models import attention, locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.models.kernels import segments
from locvlm_jax.parallel import sharding
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib
from locvlm_jax.weights.layouts import huggingface

REFERENCE = os.path.join(
  os.path.dirname(__file__), "../locvlm_jax/assets/micro_reference"
)
ROWS, TEXT, NEW = 4, 48, 24
ADAM = workload.adamw(lr=1e-3, warmup_ratio=0.0)


def _apart(a, b) -> float:
  """Returns the norm of a - b, divided by that of b."""
  a, b = (np.asarray(x, np.float64) for x in (a, b))
  return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _heads(length: int, width: int, dtype) -> list[jax.Array]:
  """Draws queries, keys and values [B, T, H, K]."""
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(k, (2, length, 4, width), dtype) for k in keys]


def cudnn(length: int, causal: bool, packed: bool = False) -> dict[str, float]:
  """Compares cuDNN's bfloat16 attention and gradient with XLA's in float32.

  Args:
    length: of the rows.
    causal: see `attend`.
    packed: whether a row holds three conversations.
  """
  lengths = jnp.array([length, length - 27], jnp.int32)
  real = (jnp.arange(length) < lengths[:, None])[..., None, None]
  numbers = 1 + 3 * jnp.arange(length) // length * jnp.ones((2, 1), jnp.int32)
  numbers = jnp.where(real[..., 0, 0], numbers, 0)
  fields = {"lengths": lengths}
  if packed:
    rows = segments.rows_of(numbers, segments.Bound(3, length // 2))
    fields |= {"segments": numbers, "rows": rows}

  def loss(args, implementation):
    out = attention.attend(
      *args, causal=causal, **fields, implementation=implementation
    )
    # Padded queries are unspecified, and nothing reads them.
    out = jnp.where(real, out, 0).astype(jnp.float32)
    return jnp.sin(out).sum(), out

  grad = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
  low = _heads(length, 128, jnp.bfloat16)
  (got, out), (want, right) = (
    grad(low, "cudnn"),
    grad([x.astype(jnp.float32) for x in low], "xla"),
  )
  return {"output": _apart(out, right), "gradient": max(map(_apart, got, want))}


def _model() -> tuple[locvlm.LocVLM, dict]:
  """Reads the committed reference model."""
  params, config = huggingface.load_llava(REFERENCE)
  return locvlm.LocVLM(config), params


def step(device) -> dict[str, float]:
  """Returns the scalars of the third step of stage 2 on `device`."""
  model, params = _model()
  mesh = sharding.make_mesh({}, [device])
  tx = optimizer.make(ADAM, 100)
  with jax.set_mesh(mesh):
    flat = jax.tree.map(
      lambda x: jax.device_put(np.asarray(x, np.float32), device),
      params_lib.flatten(params),
    )
    state, where = step_lib.init_state(
      *params_lib.split(flat, ("adapter", "llm")), tx, mesh
    )
    rows = sharding.put_batch(
      workload.random_batch(model.config, ROWS, TEXT), mesh, ROWS
    )
    run = step_lib.jit_train_step(
      model, tx, where, sharding.batch_sharding(mesh), 1
    )
    for _ in range(3):
      state, scalars = run(state, rows)
  return {k: float(scalars[k]) for k in ("loss", "grad_norm")}


def answers(device, rows: slice = slice(None)) -> np.ndarray:
  """Returns the greedy tokens of prompts of different lengths."""
  model, params = _model()
  batch = workload.random_batch(model.config, ROWS, TEXT)
  batch = {k: v[rows] for k, v in batch.items() if k != "loss_mask"}
  batch["lengths"] = (batch["lengths"] - np.arange(ROWS)[rows] * 9).astype(
    np.int32
  )
  place = functools.partial(jax.device_put, device=device)
  found = decode.generate(
    model,
    jax.tree.map(place, params),
    jax.tree.map(place, batch),
    decode.Sampling(max_new_tokens=NEW, stop=(-2,)),
  )
  return np.asarray(found)


def measure(device) -> dict[str, tuple[float, float]]:
  """Returns {what is compared: (difference, its bound)}."""
  cpu, found = jax.devices("cpu")[0], {}
  if device.platform == "gpu":
    for kind, fields in (
      ("causal", (704, True)),
      ("all keys", (704, False)),
      ("odd length", (577, False)),
      ("packed", (704, True, True)),
    ):
      for name, value in cudnn(*fields).items():
        found[f"cuDNN, {kind}, {name}"] = value, 1e-2
  with jax.default_matmul_precision("highest"):
    want = step(cpu)
    for name, value in step(device).items():
      found[f"third step, {name}"] = abs(value / want[name] - 1), 1e-4
    ours = answers(device)
    found["greedy tokens, CPU"] = float((ours != answers(cpu)).mean()), 0.0
    single = np.concatenate(
      [answers(device, slice(i, i + 1)) for i in range(ROWS)]
    )
    found["greedy tokens, one by one"] = float((ours != single).mean()), 0.0
  return found


def main() -> int:
  """Prints a line for each; returns 1 if one is beyond its bound."""
  found = measure(jax.devices()[0])
  for what, (difference, bound) in found.items():
    print(f"{what:32} {difference:9.2e}  (at most {bound:.0e})")
  return int(any(d > bound for d, bound in found.values()))


if __name__ == "__main__":
  sys.exit(main())

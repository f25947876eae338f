"""Short trainings of the micro model in miniature, and what they leave."""

import json
import os

import numpy as np
from changed import changed

from configs import micro
from locvlm_jax.config import Config
from locvlm_jax.weights import initial


def config(root, argument="base,tiny", **change) -> Config:
  c = micro.get_config(argument)
  c.root = root
  c.optim.name = "adamw"  # compiles faster; `test_optimizer` tests Muon
  return changed(c, **change)


def curve(workdir) -> list[tuple[int, float, float]]:
  with open(os.path.join(workdir, "metrics.jsonl")) as f:
    rows = [json.loads(line) for line in f]
  return [(r["step"], r["loss"], r["grad_norm"]) for r in rows]


def params(workdir) -> dict[str, np.ndarray]:
  flat = initial.open_params(str(workdir))[0]
  return {path: v.read() for path, v in flat.items()}


def same(a, b) -> bool:
  return a.keys() == b.keys() and all(
    a[k].tobytes() == b[k].tobytes() for k in a
  )

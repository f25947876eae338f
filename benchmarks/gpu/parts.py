"""What the GPU script measures, the most wanted first.

A part has a process of its own and a time limit. Its settings are measured one
after the other, each result kept as it comes.
"""

import dataclasses
from collections.abc import Mapping, Sequence

MICRO = {"model": "micro", "batch": 2, "text": 16, "mu_dtype": "float32"}
MICRO |= {"warmup": 1, "steps": 1, "rounds": 1, "accumulate": 1}


@dataclasses.dataclass(frozen=True)
class Part:
  """One process of the script.

  Attributes:
    name: in the results.
    kind: what runs it; a function of that name in `run_part`.
    seconds: after which it is stopped.
    settings: that it measures; fields of `bench.train.Settings`, or of
      `decoding.Settings`.
  """

  name: str
  kind: str
  seconds: int
  settings: Sequence[Mapping] = ({},)


def _step(model: str, stage: int, **fields: object) -> dict:
  """Returns the settings of a training step, as B and L are trained."""
  own = {"model": model, "stage": stage, "batch": 16, "text": 128}
  own |= {"accumulate": 1, "unroll": 1, "mu_dtype": "bfloat16"}
  own["remat"] = "dots"
  timed = {"warmup": 5, "steps": 5, "rounds": 4, "trace": None}
  return {**own, **timed, **fields}


L2 = _step("l", 2)
# remat x microbatches x layers unrolled; a part that is stopped keeps those
# that it has measured.
SEARCH = [
  {"unroll": 4},
  {"remat": "full"},
  {"remat": "full", "batch": 64, "accumulate": 4},
  {"batch": 32, "accumulate": 2},
  {"unroll": 2},
  {"remat": "full", "unroll": 4, "batch": 32},
  {"unroll": 32},
  {"remat": "none", "batch": 8, "accumulate": 2},
]
QLORA = {"base_weights": "nf4", "lora_rank": 64, "remat": "full", "batch": 8}
ONE_GPU = {"moments": "8bit", "masters": "split", "remat": "full"}
ONE_GPU |= {"batch": 64, "accumulate": 8}
PACKED = [{"pack": n, "batch": 32} for n in (1, 4, 2)]


def _steps(model: str, stage: int, changes: Sequence[Mapping]) -> list[dict]:
  return [_step(model, stage, **c) for c in changes]


PARTS = (
  Part("L stage 2", "train", 100, [L2]),
  Part("L stage 2, tuned peer", "tuned_peer", 110, [L2]),
  Part("L stage 2, common peer", "common_peer", 80, [L2]),
  Part("decode", "decode", 110, [{"model": "l", "batch_sizes": (1, 8, 64)}]),
  Part("search", "train", 120, _steps("l", 2, SEARCH)),
  Part("one_gpu", "train", 80, [_step(m, 2, **ONE_GPU) for m in "lb"]),
  Part("qlora", "train", 80, [_step(m, 2, **QLORA) for m in "bl"]),
  Part("packed", "train", 100, _steps("b", 2, PACKED)),
  Part("B stage 2", "train", 80, [_step("b", 2)]),
  Part("stage 1", "train", 100, [_step(m, 1, batch=64) for m in "lb"]),
  Part("L stage 2, again", "train", 80, [L2]),
  Part("B stage 2, tuned peer", "tuned_peer", 100, [_step("b", 2)]),
  Part("B stage 2, common peer", "common_peer", 80, [_step("b", 2)]),
  Part("L stage 1, tuned peer", "tuned_peer", 100, [_step("l", 1, batch=64)]),
  Part("L stage 1, common peer", "common_peer", 80, [_step("l", 1, batch=64)]),
  Part("parity", "parity", 100),
)


def tiny(part: Part) -> Part:
  """Returns the part on a small model, the same in all but size."""
  if part.kind == "parity":
    return part
  if part.kind == "decode":
    few = {"model": "micro", "batch_sizes": (1, 2), "dtype": "float32"}
    return dataclasses.replace(part, settings=[few | {"few": 2, "many": 4}])
  small = [_small(settings) for settings in part.settings]
  return dataclasses.replace(part, settings=small[:2])


def _small(settings: Mapping) -> dict:
  """Keeps what decides which code runs: remat, moments, masters, packing."""
  found = {**settings, **MICRO}
  if settings.get("pack", 0) > 1:
    found["batch"] = settings["pack"]
  if settings["accumulate"] > 1:
    found |= {"accumulate": 2, "batch": 2}
  return found | {"unroll": min(settings["unroll"], 2)}

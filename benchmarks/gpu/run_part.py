"""Runs one part of the GPU script in this process.

  python -m benchmarks.gpu.run_part NUMBER RESULTS [tiny]

Appends a line of json to the file RESULTS for each of the part's settings: the
settings, and what was measured or the error. One that fails, as by too little
memory, does not stop the next.
"""

import gc
import json
import sys
from collections.abc import Mapping

import jax

from benchmarks.gpu import parts


def train(settings: Mapping) -> dict:
  """Times our training step."""
  from locvlm_jax.bench import train as bench

  own = bench.Settings(**settings)
  return bench.rates([bench.train_step(own)], own)


def common_peer(settings: Mapping) -> dict:
  """Times transformers' Llava as it is commonly trained."""
  return _peer(settings, tuned=False)


def tuned_peer(settings: Mapping) -> dict:
  """Times transformers' Llava with compiled layers and float32 masters."""
  return _peer(settings, tuned=True)


def _peer(settings: Mapping, tuned: bool) -> dict:
  import torch

  from locvlm_jax.bench import peers_train
  from locvlm_jax.bench import train as bench

  own = bench.Settings(**settings)
  compiled = tuned and torch.cuda.is_available()  # compiling needs a compiler
  return bench.rates([peers_train.train_step(own, compiled)], own)


def decode(settings: Mapping) -> dict:
  """Times decoding, beside the least time that memory needs."""
  from benchmarks.gpu import decoding

  return decoding.measure(decoding.Settings(**settings))


def parity(settings: Mapping) -> dict:
  """Compares the device with the CPU."""
  del settings
  from benchmarks import gpu_parity

  found = gpu_parity.measure(jax.devices()[0])
  return {k: {"difference": d, "bound": b} for k, (d, b) in found.items()}


KINDS = {
  f.__name__: f for f in (train, common_peer, tuned_peer, decode, parity)
}


def run(part: parts.Part, results: str) -> bool:
  """Measures each of the settings; returns whether any has a result."""
  any_good = False
  for settings in part.settings:
    line: dict = {"part": part.name, "settings": dict(settings)}
    try:
      line["result"] = KINDS[part.kind](settings)
      any_good = True
    except Exception as e:
      first = (str(e).strip() or repr(e)).splitlines()[0]
      line["error"] = f"{type(e).__name__}: {first[:300]}"
      print(line["error"], file=sys.stderr)
    append(results, line)
    jax.clear_caches()
    gc.collect()
  return any_good


def append(results: str, entry: Mapping) -> None:
  """Adds a line; one that was cut off before it is a line of its own."""
  with open(results, "a", encoding="utf-8") as f:
    f.write(f"\n{json.dumps(entry)}\n")


def main(number: str, results: str, *words: str) -> int:
  """Runs the part of this number; 1 if none of its settings has a result."""
  part = parts.PARTS[int(number)]
  part = parts.tiny(part) if "tiny" in words else part
  return int(not run(part, results))


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))

"""What a run needs on a machine: `python -m locvlm_jax.plan`.

  --config configs/locvlm_l.py --device 24GB          will it fit on one card?
  --config configs/locvlm_l.py --topology a100:8      one training step
  ... --search                                        what to set instead

--device estimates at once, without a compiler, the GiB of weights, gradients,
optimizer, activations and workspace, and the hours of the run. It takes a size
or a card (t4, l4, a10g, rtx3090, rtx4090, rtx5090, l40s, a6000, a100-40, a100,
h100, h200, b200, v4, v5e, v5p, v6e; here: the one at hand). --search proposes
what fits: microbatches, rematerialization, a moment in bfloat16, the rank of a
LoRA, shorter rows, whichever gives up least.

Compiles the training step of --config for --topology (h200:1, a100:8, h100:8,
a100:2x8, v5e:4x4, v6e:4x4, v4:2x2x2, v5p:2x2x4) and prints peak memory, what
moves between devices, and the floor of a step: no run is faster. --search
compiles it for every rematerialization, number of microbatches and mesh, and
names the fastest that fits. It needs the compilers of those machines, best in
an environment of their own: pip install 'locvlm_jax[plan]' (2 GB).
"""

import os

from absl import flags

from locvlm_jax import command

command.define_config()
_TOPOLOGY = flags.DEFINE_string("topology", None, "The machine; see above.")
_DEVICE = flags.DEFINE_string("device", None, "A card, or its size; see above.")
_JSON = flags.DEFINE_string("json", None, "A file to write the results to.")
_SEARCH = flags.DEFINE_bool(
  "search", False, "Compile what could be set instead, and name the fastest."
)
_HLO = flags.DEFINE_string(
  "hlo", None, "A file to write the compiled program to."
)


def main(argv: list[str]) -> None:
  """Prints a table of each program; with --search, the fastest that fits."""
  del argv
  from locvlm_jax.perf import machines

  if _DEVICE.value:
    return _estimate(_DEVICE.value)
  if not _TOPOLOGY.value:
    raise ValueError(
      "--topology is missing: a machine to compile for, as a100:8; or a card to"
      " estimate for, as --device 24GB or --device here."
    )
  target = machines.parse(_TOPOLOGY.value)
  machines.prepare(target)  # before jax is imported, which reads what this sets
  from locvlm_jax import checks, files
  from locvlm_jax.training import planning

  config = command.config()
  checks.check(config)
  if _SEARCH.value:
    results = planning.search(config, target)
  else:
    results = planning.plan(config, target, hlo_file=_HLO.value)
    print(planning.table(results))
  if _JSON.value:
    files.write_json(_JSON.value, results)


def _estimate(name: str) -> None:
  """Prints whether the config fits on one device."""
  from locvlm_jax import checks
  from locvlm_jax.perf import machines

  if name != "here":
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs on a device
  from locvlm_jax.training import program
  from locvlm_jax.training.room import answer

  config = command.config()
  checks.check(config)
  device = program.device_here() if name == "here" else machines.device(name)
  print(answer.tell(config, device, _SEARCH.value))


if __name__ == "__main__":
  command.run(main, required=["config"])

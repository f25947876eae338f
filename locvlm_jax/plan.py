"""What a run needs on a machine that is not here: `python -m locvlm_jax.plan`.

  --config configs/locvlm_l.py --topology a100:8      one training step
  ... --search                                        what to set instead

Compiles the training step of --config for --topology (h200:1, a100:8, h100:8,
a100:2x8, v5e:4x4, v6e:4x4, v4:2x2x2, v5p:2x2x4) and prints peak memory, what
moves between devices, and the floor of a step: no run is faster. --search
compiles it for every rematerialization, number of microbatches and mesh, and
names the fastest that fits. It needs the compilers of those machines, best in
an environment of their own: pip install 'locvlm_jax[plan]' (2 GB).
"""

from absl import flags

from locvlm_jax import command

command.define_config()
_TOPOLOGY = flags.DEFINE_string("topology", None, "The machine; see above.")
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


if __name__ == "__main__":
  command.run(main, required=["config", "topology"])

"""The paper's recipe in one command: train, evaluate, train, evaluate, report.

  python -m locvlm_jax.reproduce --config configs/micro.py:demo --workdir DIR
  python -m locvlm_jax.reproduce --tables 4,11 --workdir DIR
  python -m locvlm_jax.reproduce --scale full --tables 4,11 --data DATA \\
    --workdir DIR --dry_run

The first runs, for each stage, `locvlm_jax.train` and `locvlm_jax.evaluate`
with `--config FILE:STAGE,WORDS`; every stage after the first starts from the
first one's checkpoint, or, as course@stage2 does, from that of the stage it
names. The workdir receives one folder a stage, the compiled programs,
results.json and report.html.

The second makes tables of the paper on the micro-world: each arm of a table is
trained and evaluated with each seed, and the workdir receives a folder for
each, and tables.md, tables.json and report.html, written anew whenever one is
finished. Arms that tables share are run once.

The third makes them with the paper's models and data, which have to be below
--data; with --dry_run it prints which files these are, and all commands.

Each command is printed or logged; what is finished is not repeated when the
same line is run again. Further `--config.x=y` and `--override` go to all of
them.
"""

import re
import shlex
import sys

from absl import flags
from ml_collections import config_flags

from locvlm_jax import command

command.define_config()
_WORKDIR = command.define_workdir("The folder that keeps the runs.")
_STAGES = flags.DEFINE_list(
  "stages", ["stage1", "stage2"], "The stages to run, in order."
)
_REFERENCE = flags.DEFINE_string(
  "reference", None, "results.json of another run, to show beside this one's."
)
_TABLES = flags.DEFINE_list(
  "tables",
  [],
  "Tables to make in place of stages: numbers of the paper's, or spatial,"
  " objectives, coordinates, pseudo, memory.",
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each arm of a table.", 1)
_JOBS = flags.DEFINE_integer(
  "jobs", 1, "Stages, or arms of tables, that run at a time where they do not"
  " wait for each other, each on its share of the cores.", 1,
)  # fmt: skip
_RECORDS = flags.DEFINE_string(
  "records", "", "With --tables: a folder of finished runs, each a small file,"
  " such as benchmarks/results/records. What is there is not run again, and"
  " what is finished is added.",
)  # fmt: skip
_SCALE = flags.DEFINE_enum(
  "scale", "micro", ["micro", "full"], "Tables of the micro model in the"
  " micro-world, or of the paper's models on the paper's data.",
)  # fmt: skip
_DATA = flags.DEFINE_string(
  "data", "data", "With --scale full: the folder of weights and data sets."
)
_LAUNCH = flags.DEFINE_string(
  "launch", "", "With --scale full: the script that starts each command, such"
  " as launch/tpu_pod.sh, and returns at its end; default: this machine.",
)  # fmt: skip
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "With --scale full: print files and commands, run nothing."
)
command.define_override()


def main(argv: list[str]) -> None:
  """Runs the recipe of the flags, or makes the tables."""
  del argv
  if not _TABLES.value:
    _run_recipe()
  elif _SCALE.value == "full":
    _make_full_tables()
  else:
    _make_tables()


def _make_full_tables() -> None:
  from locvlm_jax.experiments import experiment
  from locvlm_jax.experiments.full import full_scale, steps

  tables = experiment.check_tables(_TABLES.value)
  overrides = _overrides(sys.argv[1:])
  wanted = steps.evaluations(tables, _SEEDS.value, _DATA.value, overrides)
  if _DRY_RUN.value:
    print(full_scale.describe(wanted, _WORKDIR.value))
  else:
    print(full_scale.run(wanted, tables, _WORKDIR.value, _LAUNCH.value))


def _make_tables() -> None:
  from locvlm_jax.experiments import experiment

  print(
    experiment.run(
      experiment.Experiment(
        tables=experiment.check_tables(_TABLES.value),
        config=_config_file("configs/micro.py"),
        workdir=_WORKDIR.value,
        seeds=_SEEDS.value,
        jobs=_JOBS.value,
        overrides=_overrides(sys.argv[1:]),
        command=_line(),
        records=_RECORDS.value,
      )
    )
  )


def _run_recipe() -> None:
  from locvlm_jax.reports import reading
  from locvlm_jax.training import recipe

  path, words = _REFERENCE.value, sys.argv[1:]
  recipe.run(
    recipe.Recipe(
      config=_config_file(),
      workdir=_WORKDIR.value,
      stages=tuple(_STAGES.value),
      overrides=_overrides(words),
      reference=reading.read_object(path) if path else None,
      command=_line(),
      jobs=_JOBS.value,
    )
  )


def _line() -> str:
  """Returns the command line, for the record."""
  return shlex.join(["python", "-m", "locvlm_jax.reproduce", *sys.argv[1:]])


def _config_file(default: str = "") -> str:
  """Returns --config as it was given, with its words after a colon."""
  flag = flags.FLAGS["config"]
  if flag.present:
    return config_flags.get_config_filename(flag)
  if not default:
    raise ValueError("--config is missing; --help explains it.")
  return default


def _overrides(words: list[str]) -> tuple[str, ...]:
  """Returns the words that set a field of the config, or let one differ."""
  pattern = r"--?(no)?config\.|--?override\b"
  found = tuple(w for w in words if re.match(pattern, w))
  if apart := [w for w in found if "=" not in w]:
    raise ValueError(
      f"{apart[0]}: write one word, --config.FIELD=VALUE or --override=FIELD."
    )
  return found


if __name__ == "__main__":
  command.run(main, required=["workdir"])

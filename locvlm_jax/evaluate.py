"""Evaluates a model: `python -m locvlm_jax.evaluate --config F --workdir DIR`.

The parameters are those of the newest checkpoint in the workdir, or of a
Hugging Face Llava directory given with --llava. Writes into the workdir

  predictions.jsonl   every question, answer and judgement
  results.json        the metrics, and all that they were measured with
  manifest.json       the latter, from the start

Run again after an interruption it goes on where it stopped, as long as nothing
in the manifest has changed. `--table 8 --workdir DIR` prints the paper's table
with that run's numbers.
"""

from absl import flags

from locvlm_jax import command
from locvlm_jax.evals import paper, session

_LLAVA = flags.DEFINE_string(
  "llava", "", "Evaluate this Hugging Face Llava directory instead."
)
_TASKS = flags.DEFINE_list("tasks", [], "Tasks; default: config.eval.tasks.")
_SAMPLES = flags.DEFINE_integer(
  "samples", None, "Questions a task; default: config.eval.samples; 0: all.", 0
)
_SEEDS = flags.DEFINE_integer(
  "seeds", None, "Repetitions; default: config.eval.seeds.", 1
)
_TABLE = flags.DEFINE_integer(
  "table", None, "Print this table of the paper, 4 to 10, with the numbers of"
  " the results in --workdir; nothing is asked.",
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Flags to a config, then `evaluate`."""
  del argv
  if _TABLE.value is not None:
    print(paper.table(_TABLE.value, command.workdir()))
    return
  flags_ = {"samples": _SAMPLES.value, "seeds": _SEEDS.value}
  given = {name: value for name, value in flags_.items() if value is not None}
  config = command.config(eval=given)
  names = _TASKS.value or config.eval.tasks
  session.evaluate(config, command.workdir(), names, _LLAVA.value)


if __name__ == "__main__":
  command.run(main)

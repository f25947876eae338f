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

import json
import os
from collections.abc import Mapping, Sequence

from absl import flags

from locvlm_jax import command

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
    print(table(_TABLE.value, command.workdir()))
    return
  config = command.config()
  for name, flag in (("samples", _SAMPLES), ("seeds", _SEEDS)):
    if flag.value is not None:
      config["eval"][name] = flag.value
  names = _TASKS.value or config["eval"]["tasks"]
  evaluate(config, command.workdir(), names, _LLAVA.value)


def evaluate(
  config: Mapping, workdir: str, names: Sequence[str], llava: str = ""
) -> dict[str, float]:
  """Parameters, questions, answers, scores.

  Args:
    config: the resolved config as plain data.
    workdir: absolute path; where the parameters are and the results go.
    names: tasks, of `EVALS`.
    llava: a Hugging Face Llava directory to take the parameters from.

  Returns:
    {"task.metric": value}, the mean over `eval.seeds`; with several, also
    {"task.metric.std": deviation}.
  """
  from locvlm_jax import asking, build
  from locvlm_jax.evals import EVALS

  if unknown := [n for n in names if n not in EVALS]:
    raise ValueError(f"tasks {unknown}: not among {', '.join(EVALS)}.")
  tasks = [EVALS[n] for n in names]
  metrics, manifest = asking.ask(config, tasks, workdir, workdir, llava)
  if build.is_first():
    path = os.path.join(workdir, "results.json")
    build.write_json(path, {"metrics": metrics, **manifest})
  return metrics


def table(number: int, workdir: str) -> str:
  """The paper's table with the numbers of a workdir, as Markdown.

  Raises:
    ValueError: no such table, or nothing was evaluated there.
  """
  from locvlm_jax.evals import paper

  path = os.path.join(workdir, "results.json")
  if not os.path.exists(path):
    raise ValueError(f"{path}: no such file; evaluate --tasks makes it.")
  with open(path, encoding="utf-8") as f:
    return paper.render(number, json.load(f)["metrics"])


if __name__ == "__main__":
  command.run(main)

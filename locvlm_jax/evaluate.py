"""Evaluates a model: `python -m locvlm_jax.evaluate --config F --workdir DIR`.

The parameters are those of the newest checkpoint in the workdir, or of a
Hugging Face Llava directory given with --llava; model, coords, geometry,
prompt_format, tokenizer and video are those that they were trained with. Writes
into the workdir, or the folder of --out

  predictions.jsonl   every question, answer and judgement
  results.json        the metrics, and all that they were measured with
  manifest.json       the latter, from the start
  calibration.json    with eval.constrained: the IoU to expect of a box
  calibration_lists.json    the same of boxes in lists
  TASK_results.json, TASK_labels/    what detect tasks found, as COCO's results
                            and as YOLO's labels with scores

Run again after an interruption it goes on where it stopped, as long as nothing
in the manifest has changed. `--table 8 --workdir DIR` prints the paper's table
with the numbers that are there.
"""

from absl import flags

from locvlm_jax import command

command.define_config()
command.define_workdir("The run that is asked; the results go there too.")
_LLAVA = flags.DEFINE_string(
  "llava", "", "A Hugging Face Llava directory to ask instead of the run."
)
_OUT = flags.DEFINE_string(
  "out", "", "The folder for the results, where it is not the run's own, which"
  " may then be somebody else's.",
)  # fmt: skip
_TASKS = flags.DEFINE_list(
  "tasks", [], "Names of tasks; config.eval.tasks if absent."
)
_SAMPLES = flags.DEFINE_integer(
  "samples", None, "Questions of each task, 0 for all; config.eval.samples if"
  " absent.", 0,
)  # fmt: skip
_SEEDS = flags.DEFINE_integer(
  "seeds", None, "How often to repeat it; config.eval.seeds if absent.", 1
)
_OVERRIDE = command.define_override()
_TABLE = flags.DEFINE_integer(
  "table", None, "Print this table of the paper, 4 to 10, with the results that"
  " are in --workdir, and ask nothing.",
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Asks the model, or prints a table of what it was asked before."""
  del argv
  from locvlm_jax import agreement, before_jax
  from locvlm_jax.evals import paper, session

  before_jax.keep_memory()
  if _TABLE.value is not None:
    print(paper.table(_TABLE.value, _OUT.value or command.workdir()))
    return
  given = {"samples": _SAMPLES.value, "seeds": _SEEDS.value}
  given = {name: value for name, value in given.items() if value is not None}
  config, workdir = command.config(eval=given), command.workdir()
  config = agreement.adopt(
    config, _LLAVA.value or workdir, command.said(), _OVERRIDE.value
  )
  names = _TASKS.value or config.eval.tasks
  session.evaluate(config, workdir, names, _LLAVA.value, _OUT.value)


if __name__ == "__main__":
  command.run(main, required=["workdir"], keeps_programs=True)

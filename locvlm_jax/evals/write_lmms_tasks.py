"""Writes our tasks as lmms-eval reads them.

  python -m locvlm_jax.evals.write_lmms_tasks --config C --checkpoint DIR \\
    --tasks spatial_paper,hal_coco,msvd_qa --out TASKS

Then, in an environment of its own (pip install -e '.[lmms]'), lmms-eval scores
any of its models by them as `evaluate` does:

  lmms-eval --include_path TASKS --tasks locvlm_spatial_paper \\
    --model locvlm_jax --model_args checkpoint=DIR

docs/evaluation.md has more. The questions are those of `evaluate` with the same
config: the files are those of `config.eval`, and locations are written as the
model in --checkpoint was trained to read them.
"""

from absl import flags

from locvlm_jax import command

command.define_config()
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "", "A run's workdir or a Llava directory, whose form and frame"
  " of locations is taken; if absent, the config's.",
)  # fmt: skip
_OUT = flags.DEFINE_string("out", None, "The folder to write.")
_TASKS = flags.DEFINE_list(
  "tasks", [], "Names of tasks; config.eval.tasks if absent."
)
_SAMPLES = flags.DEFINE_integer(
  "samples", None, "Questions of each task, 0 for all; config.eval.samples if"
  " absent.", 0,
)  # fmt: skip
_OVERRIDE = command.define_override()


def main(argv: list[str]) -> None:
  """Writes them, and prints their names in lmms-eval."""
  del argv
  from locvlm_jax import agreement, assemble
  from locvlm_jax.evals.budgets import Budgets
  from locvlm_jax.evals.harness import lmms_tasks
  from locvlm_jax.evals.tasks import EVALS

  given = {} if _SAMPLES.value is None else {"samples": _SAMPLES.value}
  config = agreement.adopt(
    command.config(eval=given), _CHECKPOINT.value, command.said(),
    _OVERRIDE.value,
  )  # fmt: skip
  names = _TASKS.value or config.eval.tasks
  if unknown := [n for n in names if n not in EVALS]:
    raise ValueError(f"tasks {unknown}: not among {', '.join(EVALS)}.")
  e, budgets = config.eval, Budgets.of(config.eval)
  for task in map(EVALS.get, names):
    asked = assemble.questions(config, task, seed=e.seed, samples=e.samples)
    tokens = budgets.tokens(task.name)
    name = lmms_tasks.write(
      _OUT.value, task, asked, max_new_tokens=tokens, temperature=e.temperature
    )
    print(f"{name}: {len(asked)} questions")


if __name__ == "__main__":
  command.run(main, required=["config", "out"])

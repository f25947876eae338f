"""Evaluates a model: `python -m locvlm_jax.evaluate --config F --workdir DIR`.

The parameters are those of the newest checkpoint in the workdir, or of a
Hugging Face Llava directory given with --llava. Writes into the workdir

  predictions.jsonl   every question, answer and judgement
  eval.json           the metrics, and what they were measured with
"""

import itertools
import os
from collections.abc import Mapping, Sequence

from absl import flags

from locvlm_jax import command, faults

_LLAVA = flags.DEFINE_string(
  "llava", "", "Evaluate this Hugging Face Llava directory instead."
)
_TASKS = flags.DEFINE_list("tasks", [], "Tasks; default: config.eval.tasks.")


def main(argv: list[str]) -> None:
  """Flags to a config, then `evaluate`."""
  del argv
  config = command.config()
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
    {"task.metric": value}.
  """
  from locvlm_jax import build, hosts
  from locvlm_jax.evals import EVALS

  build.check(config)
  unknown = [n for n in names if n not in EVALS]
  if unknown:
    raise ValueError(f"tasks {unknown}: not among {', '.join(EVALS)}.")
  os.makedirs(workdir, exist_ok=True)
  with hosts.Watch(config["faults"]) as watch:
    watch.meet()
    watch.at(0, "compare hosts")
    watch.agree("run", build.facts(config))
    return _evaluate(config, workdir, names, llava, watch)


def _evaluate(config, workdir, names, llava, watch) -> dict[str, float]:
  import jax

  from locvlm_jax import build, sharding
  from locvlm_jax.evals import EVALS, run

  watch.at(0, "restore")
  questions = {n: build.questions(config, EVALS[n]) for n in names}
  mesh = sharding.make_mesh(config["mesh"])
  metrics = {}
  with (
    jax.set_mesh(mesh),
    _open(os.path.join(workdir, "predictions.jsonl")) as out,
  ):
    answer, origin = build.answerer(config, mesh, workdir, llava)
    answer = _stoppable(answer, watch)
    for name, examples in questions.items():
      scores = run.run(
        EVALS[name], examples, answer, out=out, log=_log,
        batch_size=config["eval"]["batch_size"],
      )  # fmt: skip
      metrics |= {f"{name}.{k}": v for k, v in scores.items()}
      print("  ".join(f"{k}={v:.4g}" for k, v in scores.items()), flush=True)
  result = {"metrics": metrics, "origin": origin, "config": config,
            "versions": build.versions()}  # fmt: skip
  if build.is_first():
    build.write_json(os.path.join(workdir, "eval.json"), result)
  return metrics


def _open(path: str):
  """The first process writes; the others' answers are the same."""
  from locvlm_jax import build

  return open(path if build.is_first() else os.devnull, "w", encoding="utf-8")


def _stoppable(answer, watch):
  """`answer`, which ends all processes at one batch when one is asked to."""
  batches = itertools.count(1)

  def stoppable(examples):
    batch = next(batches)
    if watch.stops_before(batch):
      raise faults.Preempted(
        f"preempted after {batch - 1} batches; run the same command again."
      )
    # The first ones compile, each length of prompts its own program.
    watch.at(batch, "answer")
    answers = answer(examples)
    watch.at(batch, "score")
    return answers

  return stoppable


def _log(line: str) -> None:
  print(line, flush=True)


if __name__ == "__main__":
  command.run(main)

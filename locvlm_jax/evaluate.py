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

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence

from absl import flags

from locvlm_jax import command, faults

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

  from locvlm_jax import answering, build, sharding

  watch.at(0, "restore")
  first = config["eval"]["seed"]
  seeds = range(first, first + config["eval"]["seeds"])
  questions = {
    (name, seed): _questions(config, name, seed)
    for seed in seeds
    for name in names
  }
  mesh = sharding.make_mesh(config["mesh"])
  with jax.set_mesh(mesh):
    answerer = answering.Answerer.load(config, mesh, workdir, llava)
    manifest = _manifest(config, answerer.origin, questions)
    asked = [x for examples in questions.values() for x in examples]
    answerer = answerer.with_features(asked, lambda n: watch.at(n, "features"))
    scores = _scores(answerer, questions, workdir, manifest, watch)
  metrics = _over_seeds(scores)
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
  return paper.render(number, _read(path)["metrics"])


def _questions(config, name: str, seed: int) -> list:
  from locvlm_jax import build
  from locvlm_jax.evals import EVALS

  changed = {**config, "eval": {**config["eval"], "seed": seed}}
  return build.questions(changed, EVALS[name])


def _manifest(config, origin, questions) -> dict:
  """All that the answers depend on."""
  from locvlm_jax import build

  texts = {
    f"{name}, seed {seed}": json.dumps(
      [dataclasses.asdict(x) for x in examples], sort_keys=True
    )
    for (name, seed), examples in questions.items()
  }
  hashes = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in texts.items()}
  return {"origin": origin, "config": config, "versions": build.versions(),
          "questions": hashes}  # fmt: skip


def _scores(answerer, questions, workdir, manifest, watch) -> dict:
  """{(task, seed): metrics}; answers of an interrupted run are kept."""
  from locvlm_jax.evals import EVALS, run

  scores, done = {}, _resume(workdir, manifest)
  with _open(os.path.join(workdir, "predictions.jsonl"), "a") as out:
    for (name, seed), examples in questions.items():
      scores[name, seed] = found = run.run(
        EVALS[name], examples, _stoppable(answerer.with_seed(seed), watch),
        batch_size=answerer.config["eval"]["batch_size"],
        done=done.get(f"{name}, seed {seed}"), seed=seed, out=out, log=_log,
      )  # fmt: skip
      print("  ".join(f"{k}={v:.4g}" for k, v in found.items()), flush=True)
  return scores


def _resume(workdir: str, manifest: Mapping) -> dict[str, dict[str, str]]:
  """Answers that an earlier run with the same manifest has left.

  Without them predictions.jsonl is empty afterwards. The first process looks,
  and tells the others.
  """
  from locvlm_jax import build, metrics, sharding
  from locvlm_jax.evals import run

  paths = [os.path.join(workdir, n) for n in ("manifest.json",
                                              "predictions.jsonl")]  # fmt: skip
  answers, lines = {}, []
  if build.is_first():
    if all(map(os.path.exists, paths)) and _read(paths[0]) == json.loads(
      json.dumps(manifest)
    ):
      lines, answers = run.finished(paths[1])
    metrics.rewrite(paths[1], lines)
    build.write_json(paths[0], manifest)
    if lines:
      print(f"{len(lines)} answers are there already", flush=True)
  named = {f"{task}, seed {seed}": a for (task, seed), a in answers.items()}
  return json.loads(sharding.from_first(json.dumps(named)))


def _read(path: str):
  with open(path, encoding="utf-8") as f:
    return json.load(f)


def _over_seeds(scores: Mapping) -> dict[str, float]:
  """The mean of each metric, and its deviation where there are several."""
  values = collections.defaultdict(list)
  for (name, _), found in scores.items():
    for metric, value in found.items():
      values[f"{name}.{metric}"].append(value)
  metrics = {name: statistics.fmean(found) for name, found in values.items()}
  several = {n: found for n, found in values.items() if len(found) > 1}
  return metrics | {f"{n}.std": statistics.stdev(v) for n, v in several.items()}


def _open(path: str, mode: str):
  """The first process writes; the others' answers are the same."""
  from locvlm_jax import build

  return open(path if build.is_first() else os.devnull, mode, encoding="utf-8")


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

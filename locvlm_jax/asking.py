"""Asks a model the questions of some tasks, on all hosts, and keeps answers.

A folder receives

  predictions.jsonl   every question, answer and judgement
  manifest.json       all that the answers depend on, from the start

and the same call goes on where an interrupted one stopped, as long as nothing
in the manifest has changed.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import statistics
from collections.abc import Mapping, Sequence

import jax

from locvlm_jax import answering, build, faults, hosts, metrics, sharding
from locvlm_jax.evals import run


def ask(
  config: Mapping, tasks: Sequence[run.Task], workdir: str, out: str,
  llava: str = "",
) -> tuple[dict[str, float], dict]:  # fmt: skip
  """Parameters, questions, answers, scores.

  Args:
    config: the resolved config as plain data.
    tasks: what is asked.
    workdir: where a run has left its parameters.
    out: the folder for the answers.
    llava: a Hugging Face Llava directory to take the parameters from instead.

  Returns:
    ({"task.metric": value}, the mean over `eval.seeds`; with several, also
    {"task.metric.std": deviation}; the manifest).
  """
  build.check(config)
  os.makedirs(out, exist_ok=True)
  with hosts.Watch(config["faults"]) as watch:
    watch.meet()
    watch.at(0, "compare hosts")
    watch.agree("run", build.facts(config))
    return _ask(config, tasks, workdir, out, llava, watch)


def _ask(config, tasks, workdir, out, llava, watch):
  watch.at(0, "restore")
  first = config["eval"]["seed"]
  questions = {
    (task, seed): _questions(config, task, seed)
    for seed in range(first, first + config["eval"]["seeds"])
    for task in tasks
  }
  mesh = sharding.make_mesh(config["mesh"])
  with jax.set_mesh(mesh):
    answerer = answering.Answerer.load(config, mesh, workdir, llava)
    manifest = _manifest(config, answerer.origin, questions)
    asked = [x for examples in questions.values() for x in examples]
    answerer = answerer.with_features(asked, lambda n: watch.at(n, "features"))
    scores = _scores(answerer, questions, out, manifest, watch)
  return _over_seeds(scores), manifest


def _questions(config: Mapping, task: run.Task, seed: int) -> list:
  changed = {**config, "eval": {**config["eval"], "seed": seed}}
  return build.questions(changed, task)


def _manifest(config, origin, questions) -> dict:
  """All that the answers depend on."""
  texts = {
    f"{task.name}, seed {seed}": json.dumps(
      [dataclasses.asdict(x) for x in examples], sort_keys=True
    )
    for (task, seed), examples in questions.items()
  }
  hashes = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in texts.items()}
  return {"origin": origin, "config": config, "versions": build.versions(),
          "questions": hashes}  # fmt: skip


def _scores(answerer, questions, out, manifest, watch) -> dict:
  """{(task's name, seed): metrics}; answers of an interrupted run are kept."""
  scores, done = {}, _resume(out, manifest)
  with _open(os.path.join(out, "predictions.jsonl"), "a") as file:
    for (task, seed), examples in questions.items():
      scores[task.name, seed] = found = run.run(
        task, examples, _stoppable(answerer.with_seed(seed), watch),
        batch_size=answerer.config["eval"]["batch_size"], seed=seed,
        done=done.get(f"{task.name}, seed {seed}"), out=file, log=_log,
      )  # fmt: skip
      print("  ".join(f"{k}={v:.4g}" for k, v in found.items()), flush=True)
  return scores


def _resume(out: str, manifest: Mapping) -> dict[str, dict[str, str]]:
  """Answers that an earlier run with the same manifest has left.

  Without them predictions.jsonl is empty afterwards. The first process looks,
  and tells the others.
  """
  paths = [os.path.join(out, n) for n in ("manifest.json",
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

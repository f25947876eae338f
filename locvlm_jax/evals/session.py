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
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import jax

from locvlm_jax import assemble, checks, errors, files, provenance
from locvlm_jax.config import Config, plain
from locvlm_jax.evals import predictions
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.tasks import task as task_lib
from locvlm_jax.inference import predictor
from locvlm_jax.inference.question import Question
from locvlm_jax.parallel import hosts, sharding


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """What is asked of a model, and how it answers.

  Attributes:
    files: what names the annotations: `config.eval`, or `config.data`.
    decoding: how answers are decoded; its seed is the first of `seeds`.
    batch_size: questions at a time.
    samples: questions a task; 0: all.
    seeds: repetitions, each with a seed of its own.
  """

  files: Any
  decoding: predictor.Decoding
  batch_size: int
  samples: int = 0
  seeds: int = 1

  @classmethod
  def of(cls, config: Config) -> "Request":
    """Reads what `config.eval` asks for."""
    e = config.eval
    decoding = predictor.Decoding.of(e)
    return cls(e, decoding, e.batch_size, e.samples, e.seeds)


def ask(
  config: Config,
  tasks: Sequence[task_lib.Task],
  workdir: str,
  out: str,
  llava: str = "",
  request: Request | None = None,
) -> tuple[dict[str, float], dict]:
  """Parameters, questions, answers, scores.

  Args:
    config: all of it.
    tasks: what is asked.
    workdir: where a run has left its parameters.
    out: the folder for the answers.
    llava: a Hugging Face Llava directory to take the parameters from instead.
    request: default: that of `config.eval`.

  Returns:
    ({"task.metric": value}, the mean over `eval.seeds`; with several, also
    {"task.metric.std": deviation}; the manifest).
  """
  checks.check(config)
  os.makedirs(out, exist_ok=True)
  request = request or Request.of(config)
  with hosts.Watch(config.faults) as watch:
    watch.connect()
    watch.enter(0, "compare hosts")
    watch.compare("run", provenance.facts(config))
    return _ask(config, request, tasks, workdir, out, llava, watch)


def _ask(config, request: Request, tasks, workdir, out, llava, watch):
  watch.enter(0, "restore")
  first = request.decoding.seed
  questions = {
    (task, seed): assemble.questions(
      config, task, seed=seed, samples=request.samples, files=request.files
    )
    for seed in range(first, first + request.seeds)
    for task in tasks
  }
  mesh = sharding.make_mesh(dict(config.mesh))
  with jax.set_mesh(mesh):
    answering = predictor.Predictor.load(config, mesh, workdir, llava)
    manifest = _manifest(config, answering.origin, questions)
    answering = dataclasses.replace(
      answering, decoding=request.decoding
    ).with_features(
      [x for examples in questions.values() for x in examples],
      config.video.cache,
      config.data.threads,
      lambda number: watch.enter(number, "features"),
    )
    scores = _scores(
      answering, questions, out, manifest, watch, request.batch_size
    )
  return _over_seeds(scores), manifest


def _manifest(config, origin, questions) -> dict:
  """All that the answers depend on."""
  texts = {
    f"{task.name}, seed {seed}": json.dumps(
      [dataclasses.asdict(x) for x in examples], sort_keys=True
    )
    for (task, seed), examples in questions.items()
  }
  hashes = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in texts.items()}
  return {
    "origin": origin,
    "config": plain(config),
    "versions": provenance.versions(),
    "questions": hashes,
  }


def _scores(
  answering, questions, out, manifest, watch, batch_size: int
) -> dict:
  """{(task's name, seed): metrics}; answers of an interrupted run are kept."""
  scores, done = {}, _resume(out, manifest)
  with _open(os.path.join(out, "predictions.jsonl"), "a") as file:
    for (task, seed), examples in questions.items():
      scores[task.name, seed] = found = ask_task(
        task,
        examples,
        _stoppable(answering.decoded(seed=seed), watch),
        batch_size=batch_size,
        seed=seed,
        done=done.get(f"{task.name}, seed {seed}"),
        out=file,
        log=_log,
      )
      print("  ".join(f"{k}={v:.4g}" for k, v in found.items()), flush=True)
  return scores


def _resume(out: str, manifest: Mapping) -> dict[str, dict[str, str]]:
  """Answers that an earlier run with the same manifest has left.

  Without them predictions.jsonl is empty afterwards. The first process looks,
  and tells the others.
  """
  paths = [os.path.join(out, n) for n in ("manifest.json", "predictions.jsonl")]
  answers, lines = {}, []
  if hosts.is_first():
    if all(map(os.path.exists, paths)) and _read(paths[0]) == json.loads(
      json.dumps(manifest)
    ):
      lines, answers = predictions.finished(paths[1])
    files.write_lines(paths[1], lines)
    files.write_json(paths[0], manifest)
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
  return open(path if hosts.is_first() else os.devnull, mode, encoding="utf-8")


def _stoppable(answer, watch):
  """`answer`, which ends all processes at one batch when one is asked to."""
  batches = itertools.count(1)

  def stoppable(examples):
    batch = next(batches)
    if watch.stop_requested(batch):
      raise errors.Preempted(
        f"preempted after {batch - 1} batches; run the same command again."
      )
    # The first ones compile, each length of prompts its own program.
    watch.enter(batch, "answer")
    answers = answer(examples)
    watch.enter(batch, "score")
    return answers

  return stoppable


def _log(line: str) -> None:
  print(line, flush=True)


AnswerFn = Callable[[Sequence[Question]], Sequence[str]]


def ask_task(
  task: task_lib.Task,
  examples: Sequence[Question],
  generate_fn: AnswerFn,
  *,
  batch_size: int,
  done: Mapping[str, str] | None = None,
  seed: int = 0,
  out: TextIO | None = None,
  log: Callable[[str], None] | None = None,
) -> dict[str, float]:
  """Metrics of one task.

  Examples are asked in the order of their lengths, so that little is padding.

  Args:
    task: an entry of `EVALS`.
    examples: what `task.examples` gave.
    generate_fn: `batch_size` examples -> as many answers. Always called with
      full batches, so that it compiles once: the last one is filled up with
      copies of its last example, whose answers are dropped.
    batch_size: examples a call.
    done: answers that are there already, by the example's id.
    seed: of the examples; goes into the rows.
    out: where prediction rows go, one json object a line: {task, seed, id,
      image, question, history, answer, truth, result}.
    log: where progress lines go; None for silence.
  """
  assert batch_size > 0, batch_size
  answers, start = dict(done or {}), time.monotonic()
  waiting = sorted((e for e in examples if e.id not in answers), key=_length)
  for first in range(0, len(waiting), batch_size):
    part = waiting[first : first + batch_size]
    padded = part + [part[-1]] * (batch_size - len(part))
    got = list(generate_fn(padded))
    assert len(got) == batch_size, (len(got), batch_size)
    answers |= {e.id: a for e, a in zip(part, got, strict=False)}
    if out is not None:
      predictions.write(out, task, seed, part, got)
    if log is not None:
      seconds = time.monotonic() - start
      log(_progress(task.name, first + len(part), len(waiting), seconds))
  return task.score(examples, [answers[e.id] for e in examples])


def _length(example: Question) -> int:
  """Characters of the prompt; pictures are alike within a task."""
  turns = sum(len(text) for turn in example.history for text in turn)
  return turns + len(example.question)


def _progress(name: str, done: int, total: int, seconds: float) -> str:
  rate = done / max(seconds, 1e-9)
  left = (total - done) / rate
  return f"eval {name}: {done}/{total}  {rate:.1f}/s  {left:.0f} s left"


def evaluate(
  config: Config, workdir: str, names: Sequence[str], llava: str = ""
) -> dict[str, float]:
  """Parameters, questions, answers, scores.

  Args:
    config: all of it.
    workdir: absolute path; where the parameters are and the results go.
    names: tasks, of `EVALS`.
    llava: a Hugging Face Llava directory to take the parameters from.

  Returns:
    {"task.metric": value}, the mean over `eval.seeds`; with several, also
    {"task.metric.std": deviation}.
  """

  if unknown := [n for n in names if n not in EVALS]:
    raise ValueError(f"tasks {unknown}: not among {', '.join(EVALS)}.")
  tasks = [EVALS[n] for n in names]
  metrics, manifest = ask(config, tasks, workdir, workdir, llava)
  if hosts.is_first():
    path = os.path.join(workdir, "results.json")
    files.write_json(path, {"metrics": metrics, **manifest})
  return metrics

"""Asks a model the questions of some tasks, on all hosts, and keeps answers.

A folder receives

  predictions.jsonl   every question, answer and judgement
  manifest.json       all that the answers depend on, from the start

and the same call goes on where an interrupted one stopped, as long as nothing
in the manifest has changed.
"""

import collections
import contextlib
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

from locvlm_jax import assemble, checks, errors, files, progress, provenance
from locvlm_jax.config import Config, plain
from locvlm_jax.evals import calibration, predictions, results_files, units
from locvlm_jax.evals.budgets import Budgets
from locvlm_jax.evals.predictions import part_name
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.tasks.task import Task
from locvlm_jax.evals.unreadable import Unreadable
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference import pictures, predictor
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.listing import listings
from locvlm_jax.inference.question import Question, batches
from locvlm_jax.parallel import folder_lock, hosts, sharding
from locvlm_jax.weights import runs


def evaluate(
  config: Config,
  workdir: str,
  names: Sequence[str],
  llava: str = "",
  out: str = "",
) -> dict[str, float]:
  """Asks the questions of some tasks and writes results.json.

  Args:
    config: all of it.
    workdir: absolute path; where the parameters are.
    names: tasks, of `EVALS`.
    llava: a Hugging Face Llava directory to take the parameters from.
    out: where answers and results go; default: `workdir`.

  Returns:
    {"task.metric": value}, the mean over `eval.seeds`; with several, also
    {"task.metric.std": deviation}. results.json has their units, too.

  Raises:
    ValueError: an unknown task, or what `ask` refuses.
  """
  if unknown := [n for n in names if n not in EVALS]:
    raise ValueError(f"tasks {unknown}: not among {', '.join(EVALS)}.")
  tasks = [EVALS[n] for n in names]
  out = out or workdir
  metrics, manifest = ask(config, tasks, workdir, out, llava)
  if hosts.is_first():
    results = {
      "metrics": metrics,
      "units": {name: units.of(name) for name in metrics},
      **manifest,
    }
    files.write_json(os.path.join(out, "results.json"), results)
    _calibrate(out, manifest)
    for said in results_files.write_beside(out, tasks):
      _log(said)
  return metrics


def _calibrate(out: str, manifest: Mapping) -> None:
  """Writes what the probabilities of boxes are worth, where there are any."""
  how = manifest["config"]["eval"]
  if how["constrained"] and not (how["temperature"] or how["zoom"]):
    path = os.path.join(out, predictions.FILE)
    if said := calibration.write(path, out, manifest):
      _log(said)


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """What is asked of a model, and how it answers.

  Attributes:
    files: what names the annotations: `config.eval`, or `config.data`.
    decoding: how answers are decoded; its seed is the first of `seeds`.
    batch_size: questions at a time.
    samples: questions a task; 0: all.
    seeds: repetitions, each with a seed of its own.
    budgets: tokens of an answer, by task; None: those of `decoding`.
    max_bad_share: of the pictures that a task asks about; more that can't be
      used stop it.
  """

  files: Any
  decoding: predictor.Decoding
  batch_size: int
  samples: int = 0
  seeds: int = 1
  budgets: Budgets | None = None
  max_bad_share: float = 0.0

  @classmethod
  def of(cls, config: Config) -> "Request":
    """Reads what `config.eval` asks for."""
    e = config.eval
    return cls(
      e,
      predictor.Decoding.of(e),
      e.batch_size,
      e.samples,
      e.seeds,
      Budgets.of(e),
      e.max_bad_share,
    )

  def decoded(
    self, model: predictor.Predictor, task: Task, seed: int
  ) -> predictor.Predictor:
    """Makes a model decode as `task` wants it."""
    tokens = self.decoding.max_new_tokens
    tokens = self.budgets.tokens(task.name) if self.budgets else tokens
    return model.decoded(seed=seed, max_new_tokens=tokens)


def ask(
  config: Config,
  tasks: Sequence[Task],
  workdir: str,
  out: str,
  llava: str = "",
  request: Request | None = None,
) -> tuple[dict[str, float], dict]:
  """Loads a model, asks it the questions of some tasks, scores the answers.

  Args:
    config: all of it.
    tasks: what is asked.
    workdir: where a run has left its parameters.
    out: the folder for the answers.
    llava: a Hugging Face Llava directory to take the parameters from instead.
    request: default: that of `config.eval`.

  Returns:
    ({"task.metric": value}, the mean over the seeds; with several, also
    {"task.metric.std": deviation}; the manifest).
  """
  checks.check(config)
  if not llava:
    runs.check_trained(workdir)
  files.check_writable(out, "--out")
  request = request or Request.of(config)
  with hosts.Watch(config.faults) as watch:
    watch.connect()
    watch.enter(0, "compare hosts")
    watch.compare("run", provenance.facts(config))
    watch.enter(0, "restore")
    mesh = sharding.make_mesh(assemble.mesh_sizes(config))
    with jax.set_mesh(mesh), folder_lock.held(out, "evaluate"):
      questions = _questions(config, request, tasks)
      _check_lists(request.decoding, questions)
      model = predictor.Predictor.load(config, mesh, workdir, llava)
      manifest = _manifest(config, model.origin, questions)
      # Nothing else needs the cores while pictures are awaited.
      threads = max(config.data.threads, os.cpu_count() or 1)
      ahead = pictures.ReadingAhead(threads)
      model = dataclasses.replace(model, decoding=request.decoding, ahead=ahead)
      model = model.with_features(
        itertools.chain.from_iterable(questions.values()),
        config.video.cache,
        config.data.threads,
        lambda batch: watch.enter(batch, "features"),
      )
      with contextlib.closing(ahead):
        scores = _scores(model, questions, request, out, manifest, watch)
  return _over_seeds(scores), manifest


def _questions(config, request: Request, tasks) -> dict:
  """Returns {(task, seed): its questions}."""
  first = request.decoding.seed
  return {
    (task, seed): assemble.questions(
      config, task, seed=seed, samples=request.samples, files=request.files
    )
    for seed in range(first, first + request.seeds)
    for task in tasks
  }


def _check_lists(decoding: predictor.Decoding, questions: Mapping) -> None:
  """Refuses beams for lists of locations, which are decoded greedily.

  Raises:
    ValueError: names the task.
  """
  for (task, _), asked in questions.items():
    if decoding.constrained and any(q.listed for q in asked):
      listings.check(decoding, task.name)


def _manifest(config, origin, questions) -> dict:
  """Describes all that the answers depend on."""
  texts = {
    part_name(task.name, seed): json.dumps(
      [dataclasses.asdict(q) for q in asked], sort_keys=True
    )
    for (task, seed), asked in questions.items()
  }
  hashes = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in texts.items()}
  return {
    "origin": origin,
    "prompts": config.eval.prompts,
    "config": plain(config),
    "versions": provenance.versions(),
    "questions": hashes,
  }


def _scores(model, questions, request, out, manifest, watch) -> dict:
  """Returns {(task's name, seed): metrics}; keeps answers of an earlier run."""
  scores, done = {}, _resume(out, manifest)
  with _open(os.path.join(out, predictions.FILE), "a") as file:
    for (task, seed), asked in questions.items():
      asker = request.decoded(model, task, seed)
      asker = asker.sharing(asked, request.batch_size)
      scores[task.name, seed] = found = ask_task(
        task,
        asked,
        _stoppable(asker, watch),
        batch_size=request.batch_size,
        max_bad_share=request.max_bad_share,
        seed=seed,
        done=done.get(part_name(task.name, seed)),
        read_ahead=asker.read_ahead,
        out=file,
        log=_log,
      )
      print("  ".join(f"{k}={v:.4g}" for k, v in found.items()), flush=True)
  return scores


def _resume(out: str, manifest: Mapping) -> dict[str, dict[str, Answer]]:
  """Returns earlier answers; the first process reads and tells the others."""
  found = predictions.resume(out, manifest) if hosts.is_first() else {}
  known = {
    part: {i: (a, a.details) for i, a in answers.items()}
    for part, answers in found.items()
  }
  known = json.loads(sharding.broadcast_text(json.dumps(known)))
  return {
    part: {i: answers_lib.of(*a) for i, a in answers.items()}
    for part, answers in known.items()
  }


def _open(path: str, mode: str):
  """Opens a file that only the first process writes: all have its answers."""
  return open(path if hosts.is_first() else os.devnull, mode, encoding="utf-8")


AnswerFn = Callable[[Sequence[Question]], Sequence[Answer]]


def _stoppable(model: AnswerFn, watch) -> AnswerFn:
  """Makes a model end all processes at one batch when one is asked to end."""
  batches = itertools.count(1)

  def answer(questions):
    batch = next(batches)
    if watch.stop_requested(batch):
      raise errors.Preempted(
        f"preempted after {batch - 1} batches; run the same command again."
      )
    # The first ones compile, each length of prompts its own program.
    watch.enter(batch, "answer")
    answers = model(questions)
    watch.enter(batch, "score")
    return answers

  return answer


def ask_task(
  task: Task,
  questions: Sequence[Question],
  model: AnswerFn,
  *,
  batch_size: int,
  max_bad_share: float,
  done: Mapping[str, str] | None = None,
  seed: int = 0,
  read_ahead: Callable[[Sequence[Question]], None] | None = None,
  out: TextIO | None = None,
  log: Callable[[str], None] | None = None,
) -> dict[str, float]:
  """Asks a model the questions of one task and scores its answers.

  They are asked in the order of their lengths, so that little is padding. Those
  about pictures that can't be used are answered by "", which each benchmark
  scores as it scores an empty answer.

  Args:
    task: an entry of `EVALS`.
    questions: what `task.questions` gave.
    model: `batch_size` questions -> as many answers.
    batch_size: questions a call.
    max_bad_share: of the pictures that are asked about; more that can't be used
      are too many.
    done: answers that are there already, by the question's id.
    seed: of the questions; goes into the rows.
    read_ahead: is told of each batch one batch early, to read its pictures.
    out: where rows go, as `predictions` describes them; None for nowhere.
    log: where progress lines go; None for silence.

  Returns:
    {metric: value}, with `cut_off`: how many answers had no tokens left; and
    `unreadable`: how many pictures can't be used, if any.

  Raises:
    DataError: too many pictures can't be used.
  """
  assert batch_size > 0, batch_size
  answers, start = dict(done or {}), time.monotonic()
  unreadable = Unreadable(task.name, questions, max_bad_share)
  number = 0
  asked = list(_waiting(questions, answers, batch_size))
  waiting = sum(len(batch) for batch, _ in asked)
  for i, (batch, filled) in enumerate(asked):
    number += len(batch)
    for _, early in asked[i : i + 2] if read_ahead else ():
      read_ahead(early)
    given = list(model(filled))
    assert len(given) == batch_size, (len(given), batch_size)
    given = given[: len(batch)]  # the rest are copies of the last question
    answers |= {q.id: a for q, a in zip(batch, given, strict=True)}
    if out is not None:
      predictions.write(out, task, seed, batch, given)
    unreadable.add(batch, given)
    if log is not None:
      seconds = time.monotonic() - start
      log(progress.line(f"eval {task.name}", number, waiting, seconds))
  if log is not None and unreadable.reasons:
    log(unreadable.describe())
  said = [answers_lib.of(answers[q.id]) for q in questions]
  cut_off = sum(answer.cut_off for answer in said)
  added = {units.CUT_OFF: float(cut_off), **unreadable.count()}
  return task.score(questions, said) | added


def _waiting(questions, answers: Mapping, batch_size: int):
  """Yields the batches of all questions, without what is answered.

  So a run that goes on asks in the batches of one that was not interrupted.
  """
  for batch, filled in batches(questions, batch_size):
    left = [q for q in batch if q.id not in answers]
    if len(left) == len(batch):
      yield batch, filled
    elif left:
      yield left, left + [left[-1]] * (batch_size - len(left))


def _log(line: str) -> None:
  print(line, flush=True)


def _over_seeds(scores: Mapping) -> dict[str, float]:
  """Averages each metric, with its deviation where there are several."""
  values = collections.defaultdict(list)
  for (name, _), found in scores.items():
    for metric, value in found.items():
      values[f"{name}.{metric}"].append(value)
  metrics = {name: statistics.fmean(found) for name, found in values.items()}
  several = {n: found for n, found in values.items() if len(found) > 1}
  return metrics | {f"{n}.std": statistics.stdev(v) for n, v in several.items()}

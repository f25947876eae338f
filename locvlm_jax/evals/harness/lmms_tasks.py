"""Our tasks as lmms-eval reads them, scored as `evaluate` scores them.

A folder receives, of each task,

  locvlm_NAME.jsonl   its questions, one a line: {id, row}
  locvlm_NAME.yaml    what lmms-eval does with them
  functions.py        names the functions below, for all of them

A row is a question of ours as json: pictures by their absolute paths, the
answers before it, and what its scorer needs.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import ImageOps

from locvlm_jax import errors, files
from locvlm_jax.data.media import images, video
from locvlm_jax.evals.scorers.metrics import Unit, find_unit
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.tasks.task import Task
from locvlm_jax.inference.question import Question

PREFIX = "locvlm_"  # lmms-eval has tasks of its own, as "gqa"
_FUNCTIONS = """\
from locvlm_jax.evals.harness.lmms_tasks import (  # noqa: F401
  aggregate,
  doc_to_messages,
  doc_to_target,
  doc_to_text,
  doc_to_visual,
  process_results,
)
"""
_METRIC = """\
  - metric: {name}
    aggregation: !function functions.aggregate
    higher_is_better: {better}
"""
_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_messages: !function functions.doc_to_messages
doc_to_text: !function functions.doc_to_text
doc_to_visual: !function functions.doc_to_visual
doc_to_target: !function functions.doc_to_target
process_results: !function functions.process_results
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: {temperature}
  do_sample: {sampled}
metric_list:
{metrics}\
metadata:
  - version: 1.0
"""


def write(
  folder: str,
  task: Task,
  questions: Sequence[Question],
  *,
  max_new_tokens: int,
  temperature: float,
) -> str:
  """Writes a task's files.

  Args:
    folder: made if absent.
    task: an entry of `EVALS`.
    questions: what `task.questions` gave; at least one.
    max_new_tokens: of an answer.
    temperature: 0 is greedy.

  Returns:
    Its name in lmms-eval.

  Raises:
    DataError: there is no question, a picture is not a file, or a video is
      asked about mirrored.
  """
  if not questions:
    raise errors.DataError(f"{task.name}: no questions: nothing to write.")
  os.makedirs(folder, exist_ok=True)
  name = PREFIX + task.name
  path = os.path.join(os.path.abspath(folder), f"{name}.jsonl")
  found = task.score(questions, [""] * len(questions))
  metrics = [m for m in found if find_unit(task.units, m) != Unit.COUNT]
  rows = [_doc(task, question, metrics) for question in questions]
  files.write_lines(path, [json.dumps(row) + "\n" for row in rows])
  text = _TASK.format(
    name=name,
    questions=json.dumps(path),
    tokens=max_new_tokens,
    temperature=temperature,
    sampled=str(temperature > 0).lower(),
    metrics="".join(_METRIC.format(name=m, better=_better(m)) for m in metrics),
  )
  files.write_lines(os.path.join(folder, f"{name}.yaml"), [text])
  files.write_lines(os.path.join(folder, "functions.py"), [_FUNCTIONS])
  return name


def _better(metric: str) -> str:
  """Says whether more is better, for lmms-eval's table."""
  return str(not metric.endswith("error")).lower()


def _doc(
  task: Task, question: Question, metrics: Sequence[str]
) -> dict[str, str]:
  """Makes a line; texts alone, so that all lines have the same columns."""
  named = [os.path.abspath(_path(task, p)) for p in question.pictures]
  if question.mirrored and any(map(video.is_video, named)):
    raise errors.DataError(
      f"{task.name}: asks about mirrored videos, and lmms-eval passes files on"
      " as they are: ask it with evaluate."
    )
  row = dataclasses.asdict(question) | {
    "image": named, "task": task.name, "metrics": list(metrics)
  }  # fmt: skip
  return {"id": question.id, "row": json.dumps(row)}


def _path(task: Task, picture: Any) -> str:
  if isinstance(picture, (str, os.PathLike)):
    return os.fspath(picture)
  raise errors.DataError(f"{task.name}: a picture is in no file of its own")


def question(doc: Mapping[str, str]) -> Question:
  """Reads the question of a line."""
  row = json.loads(doc["row"])
  # A folder that was written earlier may lack a newer field.
  names = [f.name for f in dataclasses.fields(Question) if f.name in row]
  lists = {n: tuple(row[n]) for n in names if isinstance(row[n], list)}
  lists["history"] = tuple(map(tuple, row["history"]))
  return Question(**{n: lists.get(n, row[n]) for n in names})


def doc_to_messages(
  doc: Mapping[str, str], lmms_eval_specific_kwargs: Any = None
) -> list[dict]:
  """Makes a conversation that ends with the question, pictures first.

  Raises:
    DataError: names a picture that can't be used.
  """
  del lmms_eval_specific_kwargs  # wordings are those of `evaluate`
  asked = question(doc)
  turns = [
    message
    for before, answer in asked.history
    for message in (_message("user", before), _message("assistant", answer))
  ]
  messages = [*turns, _message("user", asked.question)]
  messages[0]["content"][:0] = [_media(asked, p) for p in asked.pictures]
  return messages


def _message(role: str, text: str) -> dict:
  return {"role": role, "content": [{"type": "text", "text": text}]}


def _media(asked: Question, path: str) -> dict:
  """A picture as it is shown, or the path of a video."""
  if video.is_video(path):
    return {"type": "video", "url": path}
  return {"type": "image", "url": _picture(asked, path)}


def _picture(asked: Question, path: str):
  try:
    picture = images.load_image(path, asked.size)
  except images.BadImage as error:
    raise errors.DataError(f"{path}: {error}") from None
  return ImageOps.mirror(picture) if asked.mirrored else picture


def doc_to_text(
  doc: Mapping[str, str], lmms_eval_specific_kwargs: Any = None
) -> str:
  """Returns the question alone, for models without conversations."""
  del lmms_eval_specific_kwargs
  return question(doc).question


def doc_to_visual(
  doc: Mapping[str, str], lmms_eval_specific_kwargs: Any = None
) -> list:
  """Returns its pictures, or the paths of its videos."""
  del lmms_eval_specific_kwargs
  asked = question(doc)
  return [_media(asked, path)["url"] for path in asked.pictures]


def doc_to_target(doc: Mapping[str, str]) -> str:
  """Returns what the scorer needs, as json, for lmms-eval's logs."""
  return json.dumps(question(doc).truth)


def process_results(
  doc: Mapping[str, str], results: Sequence[str]
) -> dict[str, dict]:
  """Keeps an answer for every metric: they are about all answers together."""
  metrics = json.loads(doc["row"])["metrics"]
  return {
    name: {"row": doc["row"], "answer": results[0], "metric": name}
    for name in metrics
  }


def aggregate(results: Sequence[Mapping[str, str]]) -> float:
  """Computes a metric as `evaluate` does; NaN where nothing speaks for it."""
  task = EVALS[json.loads(results[0]["row"])["task"]]
  answers = [kept["answer"] for kept in results]
  found = task.score(list(map(question, results)), answers)
  return found.get(results[0]["metric"], float("nan"))

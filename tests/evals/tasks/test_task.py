"""What all tasks have in common, and all that make their own questions."""

import json

import pytest
from eval_scenes import DRAWN, ask, rate, record
from hypothesis import given, settings
from hypothesis import strategies as st

from locvlm_jax.data import catalog
from locvlm_jax.data.records import Object, Record
from locvlm_jax.evals import predictions
from locvlm_jax.evals.scorers.metrics import find_unit
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.evals.tasks.benchmark import Benchmark
from locvlm_jax.evals.tasks.task import Task

# Those that make their own questions; the others are in test_benchmark.py.
OURS = [n for n, t in EVALS.items() if not isinstance(t, Benchmark)]


def asked_about(task, id):
  """A record that the task has questions about."""
  if task.startswith(("rd_", "rec_")):
    texts = ("the cup", "cup on the left", "the cup")
    region = Object("the cup", (5.0, 10.0, 30.0, 40.0), texts=texts)
    return Record(id, f"{id}.jpg", 100, 100, (region,))
  turns = [(f"what {i}?", str(i)) for i in range(5)]
  return record(id, turns, **{o.category: o.box for o in DRAWN.objects})


@pytest.mark.parametrize("name", EVALS)
def test_a_task_has_a_source_and_states_units(name):
  task = EVALS[name]
  assert isinstance(task, Task) and task.name == name
  assert task.source in {**catalog.SOURCES, **catalog.BENCHMARKS}
  assert find_unit(task.units, "num") == "count"


def test_every_benchmark_of_the_catalog_has_a_task():
  assert catalog.BENCHMARKS.keys() <= {t.source for t in EVALS.values()}


@pytest.mark.parametrize("task", OURS)
def test_questions_follow_the_seed_and_not_the_other_images(task):
  records = [asked_about(task, str(i)) for i in range(6)]
  first = ask(task, records)
  assert first
  assert first == ask(task, records)
  assert first != ask(task, records, seed=1)
  alone = ask(task, records[3:4])
  assert alone == [q for q in first if q.id.split("/")[0] == "3"]
  assert 0 < len(ask(task, records, limit=8)) <= 8
  assert len({q.id for q in first}) == len(first)


@pytest.mark.parametrize("task", OURS)
@settings(deadline=None, max_examples=20)
@given(answer=st.text())
def test_every_answer_has_a_score_in_a_stated_unit(task, answer):
  questions = ask(task, [asked_about(task, "1")])
  metrics = rate(task, questions, [answer] * len(questions))
  assert metrics["num"] == len(questions)
  assert all(find_unit(EVALS[task].units, name) for name in metrics)
  row = predictions.row(EVALS[task], questions[0], answer)
  json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("task", OURS)
def test_without_questions_there_is_no_score(task):
  metrics = rate(task, [], [])
  assert metrics["num"] == 0
  assert "accuracy" not in metrics
  assert "acc_iou50" not in metrics

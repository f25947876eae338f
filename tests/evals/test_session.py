"""Evaluation keeps its answers, and says what they depend on."""

import json

import pytest
from eval_scenes import ask, record
from paths import ASSETS

from configs import micro
from locvlm_jax import errors
from locvlm_jax.config import Config, freeze
from locvlm_jax.evals import session
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import predictor

BASE = ASSETS / "micro_base"


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(num_train=2, num_val=8)


@pytest.fixture
def asked(monkeypatch):
  """Ids of the questions that the model was asked, a list for each batch."""
  batches = []

  def answer(self, questions):
    batches.append([q.id for q in questions])
    seed = self.decoding.seed
    return [f"[{len(q.id)},{seed},90,90]" for q in questions]

  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  return batches


def _config(root, **change) -> Config:
  c = micro.get_config("stage2")
  c.root, c.tokenizer = root, str(BASE)
  c.eval.update(**{"samples": 6, "batch_size": 2} | change)
  return freeze(c)


def _run(config, path):
  names = ["locpred", "revloc"]
  metrics = session.evaluate(config, str(path), names, str(BASE))
  return metrics, [
    json.loads(line)
    for line in (path / "predictions.jsonl").read_text().splitlines()
  ]


def test_answers_of_an_interrupted_run_are_not_asked_again(
  root, tmp_path, asked, monkeypatch
):
  config = _config(root)
  whole, rows = _run(config, tmp_path / "whole")
  first = [x for batch in asked for x in batch]
  asked.clear()
  answer = predictor.Predictor.__call__

  def dies(self, questions):
    if len(asked) == 2:
      raise KeyboardInterrupt
    return answer(self, questions)

  broken = tmp_path / "broken"
  monkeypatch.setattr(predictor.Predictor, "__call__", dies)
  with pytest.raises(KeyboardInterrupt):
    _run(config, broken)
  with (broken / "predictions.jsonl").open("a") as f:
    f.write('{"task": "locp')  # cut off in the middle of a line
  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  again, found = _run(config, broken)
  assert again == whole and found == rows
  assert [x for batch in asked for x in batch] == first


def test_another_setting_asks_all_questions_again(root, tmp_path, asked):
  _run(_config(root), tmp_path)
  asked.clear()
  _, rows = _run(_config(root, temperature=0.5), tmp_path)
  assert len(rows) == sum(map(len, asked)) > 6


def test_nothing_is_made_where_there_is_no_checkpoint(root, tmp_path):
  workdir = tmp_path / "typo"
  with pytest.raises(errors.DataError, match="typo: no checkpoint there"):
    session.evaluate(_config(root), str(workdir), ["locpred"])
  assert not workdir.exists()


def test_answers_of_a_run_that_may_only_be_read_go_elsewhere(
  root, tmp_path, asked
):
  (tmp_path / "run").touch()  # nothing can be made below it
  workdir, out = str(tmp_path / "run" / "a"), tmp_path / "mine"
  arguments = _config(root), workdir, ["locpred"], str(BASE)
  with pytest.raises(
    errors.DataError, match="a: nothing can be written there.*--out"
  ):
    session.evaluate(*arguments)
  assert not asked
  session.evaluate(*arguments, str(out))
  made = {p.name for p in out.iterdir() if not p.name.startswith(".")}
  assert made == {"predictions.jsonl", "results.json", "manifest.json"}


def test_several_seeds_give_mean_and_deviation(root, tmp_path, asked):
  config = _config(root, seeds=2)
  metrics, rows = _run(config, tmp_path)
  assert {r["seed"] for r in rows} == {0, 1}
  by_seed = [
    [
      r["result"]["iou"]
      for r in rows
      if r["seed"] == seed and r["task"] == "locpred"
    ]
    for seed in (0, 1)
  ]
  means = [sum(x) / len(x) for x in by_seed]
  assert metrics["locpred.mean_iou"] == pytest.approx(sum(means) / 2)
  wanted = abs(means[0] - means[1]) / 2**0.5
  assert metrics["locpred.mean_iou.std"] == pytest.approx(wanted)
  written = json.loads((tmp_path / "results.json").read_text())
  assert written["metrics"] == metrics
  assert written["units"].keys() == metrics.keys()
  assert written["units"]["locpred.mean_iou.std"] == "number"
  assert written["units"]["revloc.accuracy"] == "share"
  assert written["units"]["revloc.num"] == "count"
  origin = written["origin"]
  assert origin["llava"] == str(BASE) and len(origin["sha256"]) == 64
  assert len(written["questions"]) == 4
  assert len(set(written["questions"].values())) == 4


def test_constrained_answers_all_hold_a_location(root, tmp_path):
  metrics, rows = _run(_config(root, constrained=True, batch_size=4), tmp_path)
  located = [r for r in rows if r["task"] == "locpred"]
  assert metrics["locpred.parse_rate"] == 1 and len(located) == 6
  assert all(r["answer"].startswith("It is at [") for r in located)


def test_the_last_batch_is_filled_up_and_every_row_is_written(tmp_path):
  records = [record(str(i), cup=(10, 20, 30, 60)) for i in range(5)]
  questions, calls, lines = ask("locpred", records), [], []

  def model(batch):
    calls.append([q.id for q in batch])
    last = questions[4].id
    return ["[10,20,30,60]" if q.id == last else "?" for q in batch]

  path = tmp_path / "predictions.jsonl"
  with path.open("w") as out:
    metrics = session.ask_task(
      EVALS["locpred"],
      questions,
      model,
      batch_size=2,
      max_bad_share=0.0,
      out=out,
      log=lines.append,
    )
  assert [len(c) for c in calls] == [2, 2, 2]
  assert calls[2][1] == calls[2][0]
  assert metrics["num"] == 5
  assert metrics["acc_iou50"] == 0.2
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r["id"] for r in rows] == [q.id for q in questions]
  assert rows[4]["result"]["correct"]
  assert rows[0]["result"]["error"] == "no location"
  assert rows[4]["task"] == "locpred"
  assert "5/5" in lines[-1]


def test_a_model_that_gives_too_few_answers_is_refused():
  questions = ask("locpred", [record(cup=(10, 20, 30, 60))])
  with pytest.raises(AssertionError):
    session.ask_task(
      EVALS["locpred"], questions, lambda _: [], batch_size=1, max_bad_share=0.0
    )

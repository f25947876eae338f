"""How many tokens an answer may have, and those that had none left."""

import json

import pytest
from eval_scenes import ask, record

from configs import base, locvlm_b, locvlm_vid_b
from locvlm_jax.config import freeze
from locvlm_jax.evals import predictions, session, units
from locvlm_jax.evals.budgets import Budgets
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.predictor import Decoding


def _budgets(*entries):
  c = base.get_config()
  c.eval.max_new_tokens_of = entries
  return Budgets.of(freeze(c).eval)


def test_the_first_entry_that_fits_a_task_decides():
  budgets = _budgets("msvd_qa=7", "*_qa=1024", "gqa=16")
  names = ("msvd_qa", "tgif_qa", "gqa", "locpred")
  assert [budgets.tokens(name) for name in names] == [7, 1024, 16, 32]


@pytest.mark.parametrize(
  "entry, message",
  [
    ("gqa", "'gqa' is not like 'gqa=128'"),
    ("gqa=0", "'gqa=0' is not like"),
    ("gpa=16", "'gpa=16' fits no task; there are locpred, "),
  ],
)
def test_an_entry_that_says_nothing_is_refused(entry, message):
  with pytest.raises(ValueError, match=message):
    _budgets("vqav2=16", entry)


def test_the_word_paper_decodes_as_the_paper():
  e = freeze(locvlm_b.get_config("stage2,paper")).eval
  how, budgets = Decoding.of(e), Budgets.of(e)
  assert (how.temperature, how.top_k, how.top_p) == (0.2, 0, 1.0)
  assert e.seeds == 3
  assert budgets.tokens("gqa") == budgets.tokens("rd_refcocog_val") == 128
  e = freeze(locvlm_vid_b.get_config("paper")).eval
  assert Budgets.of(e).tokens("activitynet_qa") == 1024
  assert freeze(locvlm_b.get_config()).eval.temperature == 0


def test_answers_that_were_cut_off_are_counted_after_a_restart_too(tmp_path):
  records = [record(str(i), cup=(10, 20, 30, 60)) for i in range(3)]
  questions = ask("locpred", records)
  path = tmp_path / predictions.FILE

  def model(batch):
    return [Answer("[10,20,30", cut_off=q.id != questions[0].id) for q in batch]

  def run(**done):
    with path.open("a") as out:
      task = EVALS["locpred"]
      return session.ask_task(
        task, questions, model, batch_size=3, max_bad_share=0.0, out=out, **done
      )

  first = run()
  assert first["cut_off"] == 2
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row["cut_off"] for row in rows] == [False, True, True]
  done = predictions.finished(str(path))[1]["locpred, seed 0"]
  assert run(done=done) == first
  assert units.of("locpred.cut_off") == units.Unit.COUNT


def test_rows_of_earlier_versions_are_answers_too(tmp_path):
  path = tmp_path / predictions.FILE
  path.write_text('{"task": "vqa", "seed": 0, "id": "1", "answer": "red"}\n')
  (answer,) = predictions.finished(str(path))[1]["vqa, seed 0"].values()
  assert answer == "red" and not answer.cut_off

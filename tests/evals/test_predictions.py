"""The rows of predictions.jsonl, and which of them outlive a kill."""

import json

from eval_scenes import DRAWN, ask, rate

from locvlm_jax.evals import predictions
from locvlm_jax.evals.tasks import EVALS


def _write(path, questions, answers):
  with path.open("a", encoding="utf-8") as out:
    predictions.write(out, EVALS["spatial"], 3, questions, answers)


def test_a_row_gives_back_a_question_that_scores_the_same(tmp_path):
  questions = ask("spatial", [DRAWN])
  answers = [f"To the {q.truth['label']}." for q in questions]
  _write(tmp_path / "rows", questions, answers)
  rows = [json.loads(x) for x in (tmp_path / "rows").read_text().splitlines()]
  read = [predictions.question(row) for row in rows]
  assert [q.history for q in read] == [q.history for q in questions]
  assert rate("spatial", read, answers) == rate("spatial", questions, answers)


def test_rows_are_kept_up_to_the_one_that_a_kill_cut_off(tmp_path):
  questions = ask("spatial", [DRAWN])[:3]
  path, manifest = tmp_path / predictions.FILE, {"config": {"sizes": (1, 2)}}
  assert predictions.resume(str(tmp_path), manifest) == {}
  _write(path, questions, ["left", "right", "above"])
  whole = path.read_text()
  path.write_text(whole + '{"task": "spa')
  answers = predictions.resume(str(tmp_path), manifest)["spatial, seed 3"]
  assert list(answers) == [q.id for q in questions]
  assert list(answers.values()) == ["left", "right", "above"]
  assert path.read_text() == whole


def test_another_manifest_empties_the_file(tmp_path):
  assert predictions.resume(str(tmp_path), {"config": 1}) == {}
  path = tmp_path / predictions.FILE
  _write(path, ask("spatial", [DRAWN])[:1], ["left"])
  assert predictions.resume(str(tmp_path), {"config": 2}) == {}
  assert path.read_text() == ""
  about = json.loads((tmp_path / predictions.MANIFEST).read_text())
  assert about == {"config": 2}

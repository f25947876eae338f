"""Pictures that can't be used are counted and named; too many are refused."""

import json
import pathlib
import shutil

import pytest
from changed import changed
from eval_scenes import ask, record
from paths import ASSETS
from PIL import Image

from configs import micro
from locvlm_jax import assemble, errors
from locvlm_jax.config import Config
from locvlm_jax.evals import session
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import answer, predictor
from locvlm_jax.parallel import sharding
from locvlm_jax.pseudo import self_training
from locvlm_jax.training import validation

BASE = str(ASSETS / "micro_base")


@pytest.fixture(scope="module")
def root(microworld, tmp_path_factory):
  """A copy of a micro-world, for its pictures are damaged."""
  folder = tmp_path_factory.mktemp("world") / "w"
  return str(shutil.copytree(microworld(num_train=2, num_val=8), folder))


def config(root: str, **change) -> Config:
  c = micro.get_config("stage2")
  c.root, c.tokenizer = root, BASE
  c.eval.update(samples=0, batch_size=8, max_new_tokens=2)
  return changed(c, **change)


def damage(path: pathlib.Path) -> bytes:
  """Cuts off the end of a picture, and returns what it was."""
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  return whole


def rows(workdir) -> list[dict]:
  text = (workdir / "predictions.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def pictures(root: str) -> list[pathlib.Path]:
  return sorted(pathlib.Path(root, "images/val").iterdir())


def test_a_damaged_picture_is_named_and_the_rest_is_scored(
  root, tmp_path, capfd
):
  """Also after it is mended: the same command asks about it again."""
  bad, c = pictures(root)[0], config(root)
  whole = damage(bad)
  metrics = session.evaluate(c, str(tmp_path), ["hallucination"], BASE)
  silent = [r for r in rows(tmp_path) if "unreadable" in r]
  assert metrics["hallucination.unreadable"] == 1
  assert metrics["hallucination.num"] == len(rows(tmp_path)) > len(silent) > 0
  assert {r["image"] for r in silent} == {str(bad)}
  assert all(
    r["answer"] == "" and "truncated" in r["unreadable"] for r in silent
  )
  assert f"1 of 8 pictures can't be used: {bad}: " in capfd.readouterr().out
  units = json.loads((tmp_path / "results.json").read_text())["units"]
  assert units["hallucination.unreadable"] == "count"

  bad.write_bytes(whole)
  again = session.evaluate(c, str(tmp_path), ["hallucination"], BASE)
  assert "hallucination.unreadable" not in again
  assert not any("unreadable" in r for r in rows(tmp_path))
  assert len(rows(tmp_path)) == again["hallucination.num"]


@pytest.fixture
def looks(monkeypatch):
  """A model that reads the pictures, and says the same of each."""

  def look(self, questions):
    seen = [self._read(q.image, False, q.size) for q in questions]
    return [
      answer.Answer("", unreadable=self._reason(q))
      if shown is None
      else answer.Answer("no")
      for q, shown in zip(questions, seen, strict=True)
    ]

  monkeypatch.setattr(predictor.Predictor, "__call__", look)


def test_a_run_goes_on_over_a_picture_that_its_validation_cannot_read(
  root, looks
):
  bad, other = pictures(root)[:2]
  spoiled = {path: damage(path) for path in (bad,)}
  fields = {"rows": 0, "tasks": ("hallucination",), "samples": 0}
  c = config(root, **{f"validation.{k}": v for k, v in fields.items()})
  mesh = sharding.make_mesh(assemble.mesh_sizes(c))
  measured = validation.Validation(c, None, mesh)
  found = measured({})
  assert found["val.hallucination.unreadable"] == 1
  assert 0 < found["val.hallucination.num"]
  spoiled[other] = damage(other)
  with pytest.raises(errors.DataError, match="2 of 8 pictures can't be used"):
    measured({})
  for path, whole in spoiled.items():
    path.write_bytes(whole)


def test_no_caption_is_made_of_what_was_not_seen(root, tmp_path, looks):
  """An empty answer would be one where no filter leaves it out."""
  bad = sorted(pathlib.Path(root, "images/train").iterdir())[0]
  whole = damage(bad)
  c = config(root, **{"pseudo.filters": ()})
  out = tmp_path / "captions.jsonl"
  summary = self_training.write(c, "", str(out), BASE)
  lines = [json.loads(line) for line in out.read_text().splitlines()]
  assert summary["unreadable"] + summary["kept"] == summary["asked"]
  assert summary["unreadable"] and summary["kept"] == len(lines)
  assert all("no" in line["caption"] for line in lines)
  bad.write_bytes(whole)


def test_too_many_of_them_end_the_task_by_a_line_that_names_three():
  records = [record(str(i), cup=(10, 20, 30, 60)) for i in range(10)]
  questions = ask("locpred", records)

  def model(batch):
    bad = answer.Answer("", unreadable="cut off")
    return [bad if int(q.id[0]) < 3 else "?" for q in batch]

  def score(share):
    return session.ask_task(
      EVALS["locpred"], questions, model, batch_size=10, max_bad_share=share
    )

  assert score(0.3)["unreadable"] == 3
  with pytest.raises(
    errors.DataError, match=r"locpred: 3 of 10 .*[012].jpg: cut off;.*=0.2"
  ):
    score(0.2)


def test_a_picture_of_another_size_than_its_boxes_is_not_asked_about(
  root, tmp_path, looks
):
  bad = pictures(root)[2]
  whole = bad.read_bytes()
  with Image.open(bad) as picture:
    picture.resize((50, 40)).save(bad)
  session.evaluate(config(root), str(tmp_path), ["hallucination"], BASE)
  (reason,) = {r["unreadable"] for r in rows(tmp_path) if "unreadable" in r}
  assert reason.startswith("is (50, 40), the annotation says")
  bad.write_bytes(whole)

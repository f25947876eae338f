"""A run on disk: what is read of it, and which file and line is refused."""

import json

import pytest
import small_runs

from locvlm_jax import errors
from locvlm_jax.reports import reading


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "no such file"),
    ("{", "not valid json"),
    ("[]", "stages"),
    ('{"stages": {"a": 1}}', "stages"),
  ],
)
def test_results_that_are_not_usable_are_refused_by_name(
  tmp_path, content, message
):
  if content is not None:
    (tmp_path / "results.json").write_text(content)
  with pytest.raises(errors.DataError, match=f"results.json: .*{message}"):
    reading.read_run(str(tmp_path))


def test_a_bad_line_is_refused_by_file_and_number(tmp_path):
  folder = small_runs.write_run(tmp_path)
  (tmp_path / "stage2" / "predictions.jsonl").write_text("{}\n[1]\n")
  with pytest.raises(
    errors.DataError, match=r"predictions.jsonl:2: not a json obj"
  ):
    reading.read_run(folder)


def test_empty_lines_are_left_out(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n\n{"step": 2}\n')
  assert reading.read_lines(str(path)) == [{"step": 1}, {"step": 2}]


def test_stages_come_first_then_the_reference_and_the_compared_run(tmp_path):
  reference = {"metrics": {"locpred.acc_iou50": 0.875}}
  run = reading.read_run(
    small_runs.write_run(tmp_path, results={"reference": reference})
  )
  shown = {"metrics": {"locpred.acc_iou50": 0.25}}
  other = {"stages": {"x": shown, "not_evaluated": {}}}
  models = reading.models_to_show(run, other)
  assert list(models) == ["base", "stage2", "reference", "compared"]
  assert models["reference"] == reference
  assert models["compared"] == shown


def test_the_last_stage_is_shown_beside_the_first_unless_stated(tmp_path):
  folder = small_runs.write_run(tmp_path)
  for stage in ("base", "stage2"):
    (tmp_path / stage).mkdir(exist_ok=True)
    (tmp_path / stage / "predictions.jsonl").write_text("{}\n")
  run = reading.read_run(folder)
  assert (run.earlier_stage, run.shown_stage) == ("base", "stage2")
  results = json.loads((tmp_path / "results.json").read_text())
  (tmp_path / "results.json").write_text(json.dumps(results | {"show": "base"}))
  run = reading.read_run(folder)
  assert (run.earlier_stage, run.shown_stage) == (None, "base")


def test_the_reference_that_is_committed_can_be_read():
  from paths import ROOT

  path = ROOT / "locvlm_jax/assets/micro_reference/results.json"
  assert reading.read_results(str(path))["show"] == "refine@reference"

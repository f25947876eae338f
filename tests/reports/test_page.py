"""The page: builds from tiny data, escapes, and shows what happened."""

import json
import math

from PIL import Image
from small_runs import EVIL, Page, listed, located, write_image, write_run
from zygote import run as run_command

from locvlm_jax.reports import page, reading


def _shown(folder: str, compare: dict | None = None) -> Page:
  return Page(page.render(reading.read_run(folder), compare))


def test_page_is_self_contained_and_escapes_everything(tmp_path):
  path = write_image(tmp_path / "a.png")
  evil = located(path, answer=EVIL) | {
    "question": EVIL,
    "history": [[EVIL, EVIL]],
  }
  evil["truth"] = evil["truth"] | {"label": EVIL}
  rows = [evil, evil | {"task": "vqa", "result": {"correct": False}}]
  stages = {"stage2": {"trained_on": EVIL, "metrics": {f"{EVIL}.{EVIL}": 1.0}}}
  results = {"commands": [EVIL], "config": {EVIL: EVIL}, "stages": stages}
  folder = write_run(tmp_path, rows, results)
  source = page.render(reading.read_run(folder))
  shown = Page(source)
  assert "<script" not in source
  assert not {"script", "link", "iframe", "object"} & set(shown.tags)
  assert "http:" not in source
  assert "https:" not in source
  assert "url(" not in source
  assert all(a.startswith("data:image/") for a in shown.addresses)
  assert len(shown.addresses) == 2
  # Two questions, each with a turn before, an answer and, for one, the truth;
  # the training, the metric's two names, the command; in json it is quoted.
  assert shown.words.count(EVIL) == 2 * 4 + 1 + 1 + 2 + 1


def test_table_has_all_stages_the_reference_and_the_compared_run(tmp_path):
  reference = {"trained_on": "more", "metrics": {"locpred.acc_iou50": 0.875}}
  folder = write_run(tmp_path, results={"reference": reference})
  other = {"stages": {"x": {"metrics": {"locpred.acc_iou50": 0.25}}}}
  words = _shown(folder, other).words
  assert "base stage2 reference compared" in words
  assert "acc_iou50 0.0 % 50.0 % 87.5 % 25.0 %" in words
  assert "mean_iou – 0.432 – –" in words
  assert "num – 1,200 – –" in words
  for trained_on in ("base captions – –", "reference more – –"):
    assert trained_on in words
  assert f"stage2 boxes {EVIL} 1,200 3.2" in words


def test_main_metrics_are_shown_with_those_of_the_stage_before(tmp_path):
  path = write_image(tmp_path / "a.png")
  folder = write_run(tmp_path, [located(path)])
  (tmp_path / "base").mkdir()
  (tmp_path / "base" / "predictions.jsonl").write_text("{}")
  assert "50.0 % boxes with IoU ≥ 0.5 before: 0.0 %" in _shown(folder).words


def test_units_that_are_not_told_by_the_number_are_named(tmp_path):
  stages = {"a": {"metrics": {"rec_refcoco_val.center_error": 0.0312}}}
  words = _shown(write_run(tmp_path, results={"stages": stages})).words
  assert "center_error in sides of the image 0.031" in words


def test_boxes_are_a_random_sample_and_wrong_ones_follow(tmp_path):
  path = write_image(tmp_path / "a.png")
  rows = [located(path, f"{i}/cup", correct=i % 2 == 0) for i in range(30)]
  run = reading.read_run(write_run(tmp_path, rows))
  written = [str(tmp_path / n) for n in ("report.html", "localizing.png")]
  assert page.write(run) == written
  with Image.open(tmp_path / "localizing.png") as picture:
    assert picture.width > 6 * 160
    assert picture.height > 4 * 160
  words = Page((tmp_path / "report.html").read_text()).words
  assert "24 of 30 held-out questions, drawn at random" in words
  assert "from the 15 wrong ones" in words


def test_lists_of_boxes_have_a_gallery_of_those_with_something_to_show(
  tmp_path,
):
  path, box = write_image(tmp_path / "a.png"), [4.0, 3.0, 20.0, 15.0]
  rows = [listed(path, f"{i}/owl", objects=0) for i in range(30)]
  rows += [
    listed(
      path, f"{i}/cup", [(box, 0.01, 0.9), ([0.0, 0.0, 9.0, 9.0], 1e-4, 0.0)]
    )
    for i in range(60)
  ]
  metrics = {"detect.ap": 0.317, "detect.ap_unscored": 0.274}
  stages = {"stage2": {"trained_on": "boxes", "metrics": metrics}}
  words = _shown(write_run(tmp_path, rows, {"stages": stages})).words
  assert "AP is 31.7 % by the model's scores, and 27.4 % with a score" in words
  assert "Find every … 12 of 90 held-out questions" in words
  assert words.count("1 of 1 found, 1 wrong") == 12 and "no cup" not in words
  assert "Of boxes in lists; where nothing is, the IoU is 0" in words


def test_too_few_boxes_to_say_how_far_they_can_be_trusted_is_said(tmp_path):
  box = [4.0, 3.0, 20.0, 15.0]
  rows = [listed(write_image(tmp_path / "a.png"), boxes=[(box, 0.01, 0.9)])]
  words = _shown(write_run(tmp_path, rows)).words
  assert "Nothing says it yet: it takes 100 boxes" in words


def test_where_all_boxes_are_right_there_are_no_wrong_answers(tmp_path):
  path = write_image(tmp_path / "a.png")
  words = _shown(write_run(tmp_path, [located(path)])).words
  assert "Wrong answers only There are none." in words


def test_before_and_after_are_joined_by_id(tmp_path):
  path = write_image(tmp_path / "a.png")
  folder = write_run(tmp_path, [located(path, answer="after")])
  (tmp_path / "base").mkdir()
  early = located(path, answer="earlier", location=None, error="no location")
  (tmp_path / "base" / "predictions.jsonl").write_text(json.dumps(early))
  assert "before: earlier no location" in _shown(folder).words


def test_a_wrong_answer_is_shown_with_the_true_one(tmp_path):
  row = located(write_image(tmp_path / "a.png"), answer="a mug")
  row |= {"task": "revloc", "result": {"correct": False}}
  words = _shown(write_run(tmp_path, [row])).words
  assert "What is in this box? 1 of 1, drawn at random (seed 0)." in words
  assert "Where is the cup? a mug wrong (true: cup)" in words


def test_every_stage_that_logged_has_a_curve_or_the_reason_why_not(tmp_path):
  rows = [{"step": i, "loss": 2.0 - i / 10} for i in range(10)]
  folder = write_run(tmp_path, curve=[*rows, {"step": 10, "loss": math.nan}])
  (tmp_path / "base").mkdir()
  (tmp_path / "base" / "metrics.jsonl").write_text('{"step": 1, "loss": 2}')
  shown = _shown(folder)
  assert shown.tags.count("polyline") == 2
  assert "base No loss curve: fewer than two logged steps." in shown.words
  assert "1 values are not finite" in shown.words


def test_a_run_without_anything_still_has_a_page(tmp_path):
  (tmp_path / "results.json").write_text('{"stages": {}}')
  assert len(page.write(reading.read_run(str(tmp_path)))) == 1
  assert "No stage was evaluated" in (tmp_path / "report.html").read_text()
  assert not (tmp_path / "localizing.png").exists()


def test_the_command_names_what_it_wrote(tmp_path):
  folder = write_run(tmp_path)
  done = run_command("report", "--workdir", folder)
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"wrote {folder}/report.html\n"
  words = Page((tmp_path / "report.html").read_text()).words
  assert f"python -m locvlm_jax.report --workdir {folder}" in words


def test_bad_data_is_code_70_and_a_missing_flag_78_each_in_one_line(tmp_path):
  for arguments, code, message in (
    ((f"--workdir={tmp_path}",), 70, "results.json: no such file"),
    ((), 78, "--workdir"),
  ):
    done = run_command("report", *arguments)
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_help_names_the_flags_and_is_no_error():
  done = run_command("report", "--help")
  assert done.returncode == 0
  for flag in ("--workdir", "--compare"):
    assert f"{flag}: " in done.stdout

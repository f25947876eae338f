"""Curves of the spatial course: one for each model that took it."""

from small_runs import Page, write_run

from locvlm_jax.reports import courses, page, reading

_METRIC = "val.spatial_trained.direct.all"


def _log(*shares) -> list[dict]:
  rows = [{"step": 20 * (i + 1), _METRIC: v} for i, v in enumerate(shares)]
  return [{"step": 20, "loss": 1.0}, *rows]


def test_each_model_that_took_the_course_has_a_curve_the_best_first():
  made = courses.make_courses(
    {"stage2": _log(0.9), "course@base": _log(0.5, 0.52),
     "course@stage2": _log(0.6, 0.97)}
  )  # fmt: skip
  assert [(c.start, c.last) for c in made.courses] == [
    ("stage2", 97.0), ("base", 52.0),
  ]  # fmt: skip
  heights = [
    [float(p.split(",")[1]) for p in c.points.split()] for c in made.courses
  ]
  # SVG counts downwards: .97 is above .6 and chance, .52 next to it.
  assert heights[0][1] < heights[0][0] < float(made.chance)
  assert heights[1][0] == float(made.chance)


def test_a_run_without_a_course_has_no_such_figure():
  assert courses.make_courses({"stage2": _log(0.9)}) is None
  assert courses.make_courses({"course@stage2": [{"step": 1}]}) is None


def test_the_page_shows_both_curves_and_names_the_wordings(tmp_path):
  folder = write_run(tmp_path, results={"stages": {"course@stage2": {}}})
  (tmp_path / "course@stage2").mkdir()
  lines = '{"step": 20, "val.spatial_trained.direct.all": 0.97}\n'
  (tmp_path / "course@stage2" / "metrics.jsonl").write_text(lines)
  words = Page(page.render(reading.read_run(folder))).words
  assert "after stage2: 97.0 %" in words
  assert "Is the cup left or right of the ball?" in words

"""The page about a run: one HTML file that needs no other, and one picture."""

import json
import os

import jinja2

from locvlm_jax import files
from locvlm_jax.evals import calibration
from locvlm_jax.reports import (
  answers,
  courses,
  curves,
  galleries,
  pictures,
  reliability,
  tables,
)
from locvlm_jax.reports.reading import Run, models_to_show

_TEMPLATE = "page.html.jinja"  # beside this file


def render(run: Run, compare: dict | None = None) -> str:
  """Renders the page.

  Args:
    run: what the page is about.
    compare: the content of another run's results.json, or None.

  Returns:
    An HTML document without scripts that loads nothing from elsewhere. All
    that comes from files is escaped.
  """
  models = models_to_show(run, compare)
  config = json.dumps(run.results.get("config"), indent=2, ensure_ascii=False)
  return _template().render(
    run=run,
    seed=answers.SEED,
    main_metrics=tables.main_metrics(run, models),
    courses=courses.make_courses(run.curves),
    models=tables.trained_models(models),
    boxes=galleries.boxes(run),
    wrong_boxes=galleries.wrong_boxes(run),
    lists=galleries.lists(run),
    scored=tables.scored(run, models),
    results=tables.results(models),
    least=calibration.LEAST,
    reliabilities=reliability.make_curves(run.answers(run.shown_stage)),
    curves={s: curves.make_curve(rows) for s, rows in run.curves.items()},
    galleries=galleries.other_tasks(run),
    commands=run.results.get("commands") or ["make demo"],
    config=config,
  )


def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template(_TEMPLATE)


def write(run: Run, compare: dict | None = None) -> list[str]:
  """Writes report.html and, where boxes were predicted, localizing.png.

  Args:
    run: what they are about; they are written into its workdir.
    compare: the content of another run's results.json, or None.

  Returns:
    The paths of what was written.
  """
  page_path = os.path.join(run.workdir, "report.html")
  files.write_lines(page_path, [render(run, compare)])
  rows = answers.draw_boxes(run.answers(run.shown_stage))
  if not rows:
    return [page_path]
  picture_path = os.path.join(run.workdir, "localizing.png")
  pictures.draw_sheet(rows).save(picture_path, optimize=True)
  return [page_path, picture_path]

"""The paper's result tables, with the cells that a run has filled in.

All of their numbers are in percent.
"""

import dataclasses
import os
from collections.abc import Mapping

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.evals import units
from locvlm_jax.evals.tasks import DESCRIBED
from locvlm_jax.text.families import LOCVLM

_SIDES = (
  "left_right.all", "left_right.left", "left_right.right",
  "above_below.all", "above_below.above", "above_below.below",
)  # fmt: skip
_POPE = ("accuracy", "precision", "recall", "f1", "yes_ratio")


@dataclasses.dataclass(frozen=True)
class Table:
  """One table.

  Attributes:
    title: what it shows.
    columns: the headings after the first.
    paper: method -> its numbers in the paper; None where it has none.
    ours: label -> the metrics of `results.json` that fill the columns; "" where
      no file has the answers.
    note: what to know when comparing.
  """

  title: str
  columns: tuple[str, ...]
  paper: Mapping[str, tuple[float | None, ...]]
  ours: Mapping[str, tuple[str, ...]]
  note: str = ""

  @property
  def metrics(self) -> list[str]:
    """Lists the metrics that fill the table."""
    return [name for names in self.ours.values() for name in names if name]


def _pope(split: str, numbers: str) -> Table:
  rows = [tuple(map(float, row.split())) for row in numbers.split("|")]
  return Table(
    f"Table 9. POPE, {split}",
    ("Acc", "Precision", "Recall", "F1", "Yes"),
    dict(zip(("BLIP-2", "Shikra", "LLaVA", "LocVLM-B"), rows, strict=True)),
    {"this run": tuple(f"pope_{split}.{m}" for m in _POPE)},
  )


_OPEN_QUESTIONS = "Accuracy by `match`; the paper's judge was a language model."
TABLES = {
  4: (Table(
    "Table 4. COCO-Spatial",
    ("All", "Left", "Right", "All", "Above", "Below"),
    {"BLIP-2, direct": (45.5, 86.1, 4.74, 49.2, 50.4, 48.6),
     "LLaVA, direct": (55.1, 84.5, 36.5, 58.9, 57.8, 59.3),
     "LocVLM-B, direct": (69.5, 79.7, 59.2, 65.4, 64.2, 65.9),
     "BLIP-2, in context": (14.7, 17.8, 11.6, 15.8, 16.5, 15.2),
     "LLaVA, in context": (55.1, 84.7, 36.4, 58.2, 57.7, 58.5),
     "LocVLM-B, in context": (76.5, 90.4, 61.5, 74.1, 73.5, 74.4)},
    {f"{who}, {label}": tuple(f"{task}{blind}.{m}" for m in _SIDES)
     for label, task in (("direct", "spatial_paper.direct"),
                         ("in context", "spatial_paper.icl"),
                         ("in context, of other objects",
                          "spatial_disjoint.icl_disjoint"))
     for who, blind in (("this run", ""), ("a blind solver", ".blind"))},
    note="The blind solver copies a keyword of the examples and never sees the"
         " image: in the paper's setting they give the answer away."),),
  5: (Table(
    "Table 5. Image VQA", ("GQA", "VQAv2 val", "VQAv2 test"),
    {"LLaVA-v1": (44.7, 49.8, 49.3), "LocVLM-B": (47.3, 50.3, 50.8),
     "LLaVA-v1.5": (48.7, 55.7, 55.3), "LocVLM-L": (50.2, 55.9, 56.2),
     "LLaVA-v1.5, trained on them": (62.0, 78.1, 78.4),
     "LocVLM-L, trained on them": (63.5, 78.2, 78.6)},
    {"this run": ("gqa.accuracy", "vqav2.evalai.accuracy", "")},
    note="The test split's answers are on its server: send --upload's file."),),
  6: (Table(
    "Table 6. Video VQA, zero-shot",
    ("ActivityNet-QA", "MSRVTT-QA", "MSVD-QA", "TGIF-QA"),
    {"Video-ChatGPT": (35.2, 49.3, 64.9, 51.4),
     "LocVLM-Vid-B": (37.4, 51.2, 66.1, 51.8)},
    {"this run": tuple(f"{name}_qa.match"
                       for name in ("activitynet", "msrvtt", "msvd", "tgif"))},
    note=_OPEN_QUESTIONS),),
  7: (Table(
    "Table 7. ActivityNet-QA", ("Acc",),
    {"LLaVA-v1": (28.7,), "LLaVA-v1.5": (31.5,), "LocVLM-B": (29.2,),
     "LocVLM-L": (32.1,), "Video-ChatGPT": (35.2,), "LocVLM-Vid-B": (37.4,),
     "LocVLM-Vid-B+": (38.2,)},
    {"this run": ("activitynet_qa.match",)}, note=_OPEN_QUESTIONS),),
  8: (Table(
    "Table 8. Hallucination", ("Hal-COCO", "Hal-ADE", "Hal-Act"),
    {"Shikra": (86.2, 58.7, None), "LLaVA": (61.9, 53.8, None),
     "LocVLM-B": (88.3, 75.2, None), "Video-ChatGPT": (None, None, 50.6),
     "LocVLM-Vid-B": (None, None, 68.7), "LocVLM-Vid-B+": (None, None, 72.4)},
    {"this run": ("hal_coco.accuracy", "hal_ade.accuracy",
                  "hal_act.accuracy")},
    note="The paper's questions are not published; these are made as it says."),
  ),
  9: (
    _pope("random", "88.6 84.1 95.1 89.3 56.6 | 86.9 94.4 79.3 86.2 43.3 |"
          "50.4 50.2 99.1 66.6 98.8 | 87.9 83.6 93.9 88.5 56.2"),
    _pope("popular", "82.8 76.3 95.1 84.7 62.4 | 84.0 87.6 79.2 83.2 45.2 |"
          "49.9 49.9 99.3 66.4 99.4 | 86.0 79.7 93.9 86.3 58.9"),
    _pope("adversarial", "72.1 65.1 95.1 77.3 73.0 | 83.1 85.6 79.6 82.5 46.5 |"
          "49.7 49.9 99.1 66.3 99.4 | 78.8 76.6 93.7 84.3 61.7"),
  ),
  10: (Table(
    "Table 10. Region description, METEOR",
    ("RefCOCO testB", "RefCOCO+ testB", "RefCOCOg val", "RefCOCOg test"),
    {"Kosmos-2": (6.34, 8.25, 12.4, 12.2), "LLaVA": (4.23, 7.26, 10.6, 10.3),
     "LocVLM-B": (11.0, 11.1, 20.6, 20.7),
     "Shikra, trained on it": (10.4, 11.1, 19.7, 19.5),
     "LocVLM-B, trained on it": (14.6, 15.2, 26.0, 26.2)},
    {"this run": tuple(f"rd_{split}.meteor" for split in DESCRIBED)}),),
}  # fmt: skip


def table(number: int, workdir: str) -> str:
  """Renders the paper's table with the numbers of a workdir, as Markdown.

  Raises:
    ValueError: no such table.
    DataError: nothing was evaluated there.
  """
  path = os.path.join(workdir, "results.json")
  if not os.path.exists(path):
    raise errors.DataError(f"{path}: no such file; evaluate --tasks makes it.")
  results = reading.read_json(path)
  metrics = reading.field(results, "metrics", path)
  text = render(number, metrics, results.get("units"))
  family = results.get("prompts", LOCVLM.name)
  asked = f"\n\nAsked in the words of {family} (eval.prompts)."
  return text if family == LOCVLM.name else text + asked


def render(
  number: int,
  metrics: Mapping[str, float],
  stated: Mapping[str, str] | None = None,
) -> str:
  """Renders the paper's rows, ours, and how many questions ours are from.

  A cell without data has a dash.

  Args:
    number: of the table.
    metrics: those of `results.json`.
    stated: its `units`, which older files lack.

  Returns:
    Markdown.

  Raises:
    ValueError: no such table here.
  """
  if number not in TABLES:
    known = ", ".join(map(str, TABLES))
    raise ValueError(f"table {number}: not one of {known}")
  in_percent = {
    name: units.percent(metrics[name], units.of(name, stated))
    for t in TABLES[number]
    for name in t.metrics
    if name in metrics
  }
  return "\n\n".join(
    "\n".join([*_cells(t, in_percent), "", *_notes(t, metrics)])
    for t in TABLES[number]
  )


def _cells(table: Table, in_percent: Mapping[str, float]) -> list[str]:
  """Draws the title and the rows."""
  rows = [("", *table.columns), ("---",) * (len(table.columns) + 1)]
  for method, values in table.paper.items():
    rows.append((method, *map(_cell, values)))
  for label, names in table.ours.items():
    rows.append((f"**{label}**", *(_cell(in_percent.get(n)) for n in names)))
  lines = [f"| {' | '.join(row)} |" for row in rows]
  return [f"**{table.title}**", "", *lines]


def _cell(value: float | None) -> str:
  if value is None:
    return "–"
  return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _notes(table: Table, metrics: Mapping[str, float]) -> list[str]:
  """Says how many questions our numbers are from, and what else to know."""
  tasks = dict.fromkeys(name.split(".")[0] for name in table.metrics)
  notes = [_size(task, metrics) for task in tasks]
  return [*notes, table.note] if table.note else notes


def _size(task: str, metrics: Mapping[str, float]) -> str:
  """Says how much of a benchmark the numbers are about."""
  if (num := metrics.get(f"{task}.num")) is None:
    return f"{task}: no data; evaluate --tasks {task}."
  missing = metrics.get(f"{task}.missing", 0)
  lacks = f", {missing:,.0f} left out without media" if missing else ""
  unread = metrics.get(f"{task}.{units.UNREADABLE}", 0)
  lacks += f", {unread:,.0f} pictures could not be used" if unread else ""
  return f"{task}: {num:,.0f} questions{lacks}."

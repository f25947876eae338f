"""One self-contained page about a run, with pictures of what it answers."""

import base64
import dataclasses
import html
import io
import json
import math
import os
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from locvlm_jax.data import geometry, images, video
from locvlm_jax.evals import units

SEED = 0  # of every random selection on the page
TILE = 176  # side of a picture on the page, in pixels
TRUE, PREDICTED = (34, 160, 74), (222, 45, 38)  # green, red
INK = (40, 40, 40)

# task -> (heading, how to read it)
TASKS = {
  "locpred": (
    "Where is the object?",
    "Questions about categories with exactly one instance in a held-out image. "
    + "An answer counts at IoU 0.5 (0.75) or more; no box means IoU 0. "
    + "center_error is in sides of the image, over the answers that parse.",
  ),
  "revloc": (
    "What is in this box?",
    "The answer has to contain the category's name.",
  ),
  "hallucination": (
    "Is there a …? Categories of the training annotations",
    "As many present as absent objects: always the same answer scores 50 %. "
    + "Every answer without “no” counts as “yes” (POPE's rule).",
  ),
  "hallucination_novel": (
    "Is there a …? Held-out categories",
    "The same for categories that no objective was trained on.",
  ),
  "spatial": (
    "Left or right, above or below?",
    "The paper's triplet rule, each pair asked both ways round: always the "
    + "same answer scores 50 %. icl: after two answered examples of the same "
    + "image.",
  ),
  "spatial_pair": (
    "Left or right, above or below? Any pair in opposite halves",
    "As above without the third object.",
  ),
  "vqa": (
    "General questions",
    "Held-out conversations: is general ability kept? Exact match, and the "
    + "annotated words contained in the answer.",
  ),
}
HEADLINE = (
  ("locpred.acc_iou50", "boxes with IoU ≥ 0.5"),
  ("hallucination.accuracy", "object presence, seen"),
  ("hallucination_novel.accuracy", "object presence, held-out"),
  ("spatial.direct.all", "spatial questions"),
)
GALLERIES = (
  "hallucination",
  "hallucination_novel",
  "spatial",
  "spatial_pair",
  "revloc",
  "vqa",
)


# --- Reading ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
  """What a workdir holds: `curves` and `predictions` by stage."""

  workdir: str
  results: dict[str, Any]
  curves: dict[str, list[dict]]
  predictions: dict[str, list[dict]]

  @property
  def show(self) -> str | None:
    """The stage whose answers are shown."""
    return _named(self, "show") or next(reversed(self.predictions), None)

  @property
  def before(self) -> str | None:
    """The stage that they are set against."""
    name = _named(self, "before") or next(iter(self.predictions), None)
    return name if name != self.show else None


def _named(run: Run, key: str) -> str | None:
  name = run.results.get(key)
  return name if name in run.predictions else None


def load(workdir: str) -> Run:
  """Reads a workdir.

  Raises:
    ValueError: results.json is missing or not as described above, or a line
      of a .jsonl file is not a json object; names file and line.
  """
  results = read_results(os.path.join(workdir, "results.json"))
  curves, predictions = {}, {}
  for name in results["stages"]:
    for into, file in ((curves, "metrics"), (predictions, "predictions")):
      path = os.path.join(workdir, name, f"{file}.jsonl")
      if os.path.exists(path):
        into[name] = read_lines(path)
  return Run(workdir, results, curves, predictions)


def read_results(path: str) -> dict[str, Any]:
  """The content of a results.json, checked."""
  try:
    with open(path, encoding="utf-8") as f:
      results = json.load(f)
  except FileNotFoundError:
    raise ValueError(
      f"{path}: no such file; run `make demo` or locvlm_jax.evaluate first."
    ) from None
  except ValueError as e:
    raise ValueError(f"{path}: not valid json ({e}).") from None
  stages = results.get("stages") if isinstance(results, dict) else None
  if not isinstance(stages, dict) or not all(
    isinstance(s, dict) for s in stages.values()
  ):
    raise ValueError(f'{path}: wants {{"stages": {{name: {{...}}}}}}.')
  return results


def read_lines(path: str) -> list[dict]:
  """The objects of a .jsonl file."""
  with open(path, encoding="utf-8") as f:
    lines = [(i, line) for i, line in enumerate(f, 1) if line.strip()]
  return [_object(line, f"{path}:{i}") for i, line in lines]


def _object(line: str, origin: str) -> dict:
  try:
    return dict(json.loads(line).items())
  except (ValueError, AttributeError) as e:
    raise ValueError(f"{origin}: not a json object ({e}).") from None


def columns(run: Run, compare: dict | None = None) -> dict[str, dict]:
  """Title -> stage for every column of the table, the reference last."""
  found = dict(run.results["stages"])
  for title, other in (
    ("reference", run.results.get("reference")),
    ("compared", compare),
  ):
    stage = _one_stage(other)
    if stage:
      found[stage.get("name") or title] = stage
  return found


def _one_stage(content: dict | None) -> dict | None:
  """A stage itself, or the shown one of a whole results.json."""
  if not content or "stages" not in content:
    return content
  stages = content["stages"]
  with_metrics = [n for n, s in stages.items() if s.get("metrics")]
  name = content.get("show") or (with_metrics[-1] if with_metrics else None)
  return stages.get(name)


def sample(rows: Sequence[dict], count: int, salt: str = "") -> list[dict]:
  """`count` rows drawn at random with a fixed seed, in random order."""
  rng = random.Random(f"{SEED}/{salt}")
  return rng.sample(list(rows), min(count, len(rows)))


def of_task(rows: Iterable[dict], task: str) -> list[dict]:
  """The rows of one task."""
  return [row for row in rows if row.get("task") == task]


# --- Pictures ---------------------------------------------------------------


def picture(row: dict, size: int = TILE, boxes: bool = True) -> Image.Image:
  """The image as the model sees it, true box green, predicted one red."""
  truth, result = row.get("truth", {}), row.get("result", {})
  image = _square(row.get("image"), truth.get("geometry", "square"), size)
  if boxes:
    draw = ImageDraw.Draw(image)
    _draw(draw, truth.get("box"), TRUE, size)
    _draw(draw, result.get("location"), PREDICTED, size)
  return image


def _square(path: str | None, kind: str, size: int) -> Image.Image:
  try:
    image = next(video.sample(path or "", 1))
  except (images.BadImage, ValueError):
    return _missing(size)
  transform = geometry.make(kind, *image.size, size)
  return Image.fromarray(np.asarray(transform.apply_image(image)))


def _missing(size: int) -> Image.Image:
  image = Image.new("RGB", (size, size), (150, 150, 150))
  ImageDraw.Draw(image).text(
    (8, 8), "image not found", fill="white", font=ImageFont.load_default(13)
  )
  return image


def _draw(draw, location, colour, size) -> None:
  """A box as a frame, a point as a ring, each with a dark edge."""
  if not location or len(location) not in (2, 4):
    return
  p = [min(max(float(v), 0.0), 1.0) * (size - 1) for v in location]
  if len(p) == 2:
    for radius, width, fill in ((7, 5, (0, 0, 0)), (6, 3, colour)):
      draw.circle(p, radius, outline=fill, width=width)
    return
  frame = [min(p[0], p[2]), min(p[1], p[3]), max(p[0], p[2]), max(p[1], p[3])]
  draw.rectangle(
    [v + d for v, d in zip(frame, (-1, -1, 1, 1), strict=True)],
    outline=(0, 0, 0),
    width=4,
  )
  draw.rectangle(frame, outline=colour, width=2)


def verdict(row: dict) -> str:
  """What the scorer said about one row, in a few words."""
  result = row.get("result", {})
  if "location" in result and result["location"] is None:
    return str(result.get("error") or "no location")
  if "iou" in result:
    return f"IoU {result['iou']:.2f}"
  return "right" if result.get("correct") else "wrong"


def grid(rows: Sequence[dict], num_columns: int = 6) -> Image.Image:
  """The rows as one picture, a caption below each and a legend on top."""
  gap, caption, top, size = 10, 40, 34, 160
  height = -(-len(rows) // num_columns) * (size + caption + gap)
  sheet = Image.new(
    "RGB", (num_columns * (size + gap) + gap, top + height + gap), "white"
  )
  draw = ImageDraw.Draw(sheet)
  _legend(draw, rows, gap)
  for i, row in enumerate(rows):
    x = gap + i % num_columns * (size + gap)
    y = top + i // num_columns * (size + caption + gap)
    sheet.paste(picture(row, size), (x, y))
    _caption(draw, row, x, y + size, size)
  return sheet


def _legend(draw, rows, x) -> None:
  font = ImageFont.load_default(14)
  right = sum(bool(row.get("result", {}).get("correct")) for row in rows)
  parts = (
    ("annotated", TRUE),
    ("   the model's answer", PREDICTED),
    (f"   {len(rows)} held-out questions drawn at random (seed {SEED}): ", INK),
    (f"{right} right", INK),
  )
  for words, colour in parts:
    draw.text((x, 9), words, fill=colour, font=font)
    x += draw.textlength(words, font=font)


def _caption(draw, row, x, y, width) -> None:
  font = ImageFont.load_default(13)
  good = bool(row.get("result", {}).get("correct"))
  name = str(row.get("truth", {}).get("category", ""))
  lines = ((name, INK), (verdict(row), TRUE if good else PREDICTED))
  for i, (words, colour) in enumerate(lines):
    while draw.textlength(words, font=font) > width:
      words = words[:-2]
    draw.text((x, y + 3 + 16 * i), words, fill=colour, font=font)


def data_uri(image: Image.Image) -> str:
  """The picture as a JPEG data URI."""
  buffer = io.BytesIO()
  image.save(buffer, "JPEG", quality=88)
  return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(
    "ascii"
  )


# --- Loss curves ------------------------------------------------------------


def curve_svg(rows: Sequence[dict], width: int = 520, height: int = 220) -> str:
  """Inline SVG of loss over steps: every point, and a running mean."""
  points = [
    (float(r["step"]), float(r["loss"]))
    for r in rows
    if _finite(r.get("step")) and _finite(r.get("loss"))
  ]
  if len(points) < 2:
    return "<p class=muted>No loss curve: fewer than two logged steps.</p>"
  lost = sum("loss" in r for r in rows) - len(points)
  x = _scale([p[0] for p in points], 46, width - 10)
  y = _scale([0.0, *(p[1] for p in points)], height - 26, 10)
  body = _axes(x, y, points, width, height)
  for name, line in (("raw", points), ("mean", running_mean(points))):
    path = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in thin(line))
    body += f'<polyline class={name} points="{path}"/>'
  note = f"<p class=muted>{lost} values are not finite.</p>" if lost else ""
  return (
    f'<svg viewBox="0 0 {width} {height}" role=img '
    f'aria-label="loss over steps">{body}</svg>{note}'
  )


def _finite(value) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)


def _scale(values, start, end):
  low, high = min(values), max(values)
  return lambda v: start + (v - low) / ((high - low) or 1.0) * (end - start)


def _axes(x, y, points, width, height) -> str:
  parts = []
  for v in ticks(0.0, max(p[1] for p in points)):
    parts.append(
      f'<line class=grid x1=46 x2={width - 10} y1="{y(v):.1f}" '
      f'y2="{y(v):.1f}"/><text x=40 y="{y(v) + 4:.1f}" '
      f"text-anchor=end>{v:g}</text>"
    )
  for v in ticks(points[0][0], points[-1][0]):
    parts.append(
      f'<text x="{x(v):.1f}" y={height - 8} text-anchor=middle>{v:g}</text>'
    )
  return "".join(parts)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
  """About `count` round numbers in [low, high].

  >>> ticks(0.0, 7.0)
  [0.0, 2.0, 4.0, 6.0]
  """
  if not high > low:
    return [low]
  rough = (high - low) / count
  unit = 10.0 ** math.floor(math.log10(rough))
  step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [i * step for i in range(first, last + 1)]


def running_mean(
  points: Sequence[tuple[float, float]],
) -> list[tuple[float, float]]:
  """The mean over the twentieth of the curve that surrounds each point."""
  half = max(1, len(points) // 40)
  sums = np.concatenate([[0.0], np.cumsum([v for _, v in points])])
  smooth = []
  for i, (step, _) in enumerate(points):
    first, end = max(0, i - half), min(len(points), i + half + 1)
    smooth.append((step, float(sums[end] - sums[first]) / (end - first)))
  return smooth


def thin(points: Sequence, most: int = 500) -> list:
  """Every k-th point, so that at most about `most` are left, and the last."""
  stride = -(-len(points) // most)
  return [*points[:-1:stride], points[-1]]


# --- Page -------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6773;
  --line: #d9dee4; --page: #fff; --card: #f6f8fa; --good: #16803c;
  --bad: #c92a2a; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #98a2af;
  --line: #333a44; --page: #14171c; --card: #1d2128; --good: #4cc27a;
  --bad: #ff7b72; --accent: #7aa8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 2.5rem 1.5rem 5rem;
  font: 16px/1.55 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { max-width: 75ch; margin: .4rem 0 .8rem; }
.muted { color: var(--soft); font-size: .9rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
.true { color: var(--good); font-weight: 600; }
.guess { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .7rem; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td.num, th.num { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
tr.task td { padding-top: 1.3rem; } tr.count td { color: var(--soft);
  font-size: .85rem; }
.heads { display: grid; gap: .9rem; margin: 1.6rem 0;
  grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); }
.head { background: var(--card); border-radius: 10px; padding: 1rem 1.1rem; }
.head b { display: block; font-size: 1.9rem; line-height: 1.2; }
.curves { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; height: auto; background: var(--card); border-radius: 10px; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); } svg polyline { fill: none; }
svg .raw { stroke: var(--accent); opacity: .35; }
svg .mean { stroke: var(--accent); stroke-width: 2; }
.tiles { display: grid; gap: .9rem; margin: .8rem 0;
  grid-template-columns: repeat(auto-fill, minmax(176px, 1fr)); }
.tile { background: var(--card); border-radius: 10px; overflow: hidden;
  font-size: .82rem; line-height: 1.4; border-top: 4px solid var(--bad); }
.tile.ok { border-top-color: var(--good); }
.tile img { display: block; width: 100%; }
.tile div { padding: .5rem .65rem .65rem; overflow-wrap: anywhere; }
.tile .muted { font-size: inherit; }
.tile .said { font: .8rem ui-monospace, monospace; }
pre { background: var(--card); border-radius: 10px; padding: 1rem;
  overflow-x: auto; font-size: .85rem; }
"""


def page(run: Run, compare: dict | None = None) -> str:
  """The whole report as one HTML document."""
  table = columns(run, compare)
  parts = [
    "<h1>LocVLM: what was trained, and how it answers</h1>",
    "<p class=muted>LocVLM is a visual language model that reads and writes "
    + "image locations as plain text. Answers and scores below are those on "
    + "the evaluation split.</p>",
    headline(run, table),
    trained_on(table),
    localization(run),
    metrics_table(table),
    curves(run),
    galleries(run),
    reproduce(run),
  ]
  return (
    "<!doctype html><html lang=en><meta charset=utf-8>"
    '<meta name=viewport content="width=device-width, initial-scale=1">'
    f"<title>LocVLM report</title><style>{STYLE}</style>"
    f"<body>{''.join(parts)}</body></html>\n"
  )


def text(value: Any) -> str:
  """Anything as escaped text."""
  return html.escape(str(value))


def number(name: str, value: Any) -> str:
  """Formats a metric in its unit, or as a dash where there is none."""
  return units.shown(float(value), units.of(name)) if _finite(value) else "–"


def headline(run: Run, table: dict[str, dict]) -> str:
  """The main numbers of the shown stage, with the stage before it."""
  shown = table.get(run.show or "", {}).get("metrics") or {}
  before = table.get(run.before or "", {}).get("metrics") or {}
  cards = []
  for name, label in HEADLINE:
    if name in shown:
      was = f"before: {number(name, before[name])}" if name in before else ""
      cards.append(
        f"<div class=head><b>{number(name, shown[name])}</b>{text(label)}"
        f"<div class=muted>{was}</div></div>"
      )
  return f"<div class=heads>{''.join(cards)}</div>" if cards else ""


def trained_on(table: dict[str, dict]) -> str:
  """Which stage saw what."""
  rows = "".join(
    f"<tr><th>{text(name)}</th><td>{text(s.get('trained_on', 'not stated'))}"
    f"</td><td class=num>{_or_dash(s.get('steps'), ',')}</td>"
    f"<td class=num>{_or_dash(s.get('minutes'), '.1f')}</td></tr>"
    for name, s in table.items()
  )
  return (
    "<h2>What was trained on what</h2><div class=wide><table><tr><th>model"
    "</th><th>trained on</th><th class=num>steps</th><th class=num>minutes"
    f"</th></tr>{rows}</table></div>"
  )


def _or_dash(value, spec: str) -> str:
  return format(value, spec) if _finite(value) else "–"


def metrics_table(table: dict[str, dict]) -> str:
  """Every metric of every model, grouped by task; counts can be unfolded."""
  table = {k: s["metrics"] for k, s in table.items() if s.get("metrics")}
  if not table:
    return "<h2>Results</h2><p>No stage was evaluated.</p>"
  names = list(dict.fromkeys(n for metrics in table.values() for n in metrics))
  counts = [n for n in names if _is_count(n)]
  main = [
    n
    for n in names
    if not _is_count(n) or n.count(".") == 1 and n.endswith(".num")
  ]
  return (
    "<h2>Results</h2><p class=muted>The same questions for every model, except "
    f"where their number (num) differs.</p>{_table(main, table)}"
    f"<details><summary>Counts</summary>{_table(counts, table)}</details>"
  )


def _table(names: list[str], table: dict[str, dict]) -> str:
  tasks = sorted({n.split(".")[0] for n in names}, key=_task_order)
  heads = "".join(f"<th class=num>{text(name)}</th>" for name in table)
  rows = "".join(_task_rows(task, names, table) for task in tasks)
  return f"<div class=wide><table><tr><th></th>{heads}</tr>{rows}</table></div>"


def _task_order(task: str) -> tuple[int, str]:
  known = list(TASKS)
  return (known.index(task) if task in known else len(known), task)


def _task_rows(task: str, names: list[str], table: dict[str, dict]) -> str:
  title, explanation = TASKS.get(task, (task, ""))
  rows = [
    f"<tr class=task><td colspan={len(table) + 1}><b>{text(title)}</b> "
    + f"<span class=muted>{text(task)}. {text(explanation)}</span></td></tr>"
  ]
  for name in (n for n in names if n.split(".")[0] == task):
    cells = "".join(
      f"<td class=num>{number(name, m.get(name))}</td>" for m in table.values()
    )
    kind = " class=count" if _is_count(name) else ""
    label = text(name.split(".", 1)[-1].replace(".", " · "))
    rows.append(f"<tr{kind}><td>{label}</td>{cells}</tr>")
  return "".join(rows)


def _is_count(name: str) -> bool:
  return units.of(name) == units.Unit.COUNT


def curves(run: Run) -> str:
  """A loss curve for each stage that logged one."""
  figures = "".join(
    f"<figure><figcaption>{text(name)}</figcaption>{curve_svg(rows)}</figure>"
    for name, rows in run.curves.items()
  )
  if not figures:
    return ""
  return (
    "<h2>Loss curves</h2><p class=muted>Cross-entropy of a supervised token "
    "over steps; the strong line is a running mean. The stages have different "
    f"data, so their losses don't compare.</p><div class=curves>{figures}</div>"
  )


def localization(run: Run) -> str:
  """A random grid of predicted boxes, then random mistakes."""
  rows = of_task(run.predictions.get(run.show or "", []), "locpred")
  if not rows:
    return ""
  wrong = [r for r in rows if not r.get("result", {}).get("correct")]
  chosen = sample(rows, 24, "locpred")
  return (
    "<h2>Where is it?</h2>"
    f"<p>{len(chosen)} of {len(rows)} held-out questions, drawn at random "
    f"with a fixed seed ({SEED}), not picked by hand: right and wrong answers "
    "appear as often as they happen. <span class=true>Green</span> is the "
    "annotation, <span class=guess>red</span> the answer of "
    f"{text(run.show)}.</p>"
    + tiles(run, chosen)
    + "<h3>Wrong answers only</h3>"
    + _mistakes(run, wrong)
  )


def _mistakes(run: Run, wrong: list[dict]) -> str:
  if not wrong:
    return "<p>There are none.</p>"
  return (
    f"<p class=muted>Drawn in the same way from the {len(wrong)} wrong "
    "ones.</p>"
  ) + tiles(run, sample(wrong, 12, "wrong"))


def galleries(run: Run) -> str:
  """Random answers of the other tasks."""
  parts = []
  for task in GALLERIES:
    rows = of_task(run.predictions.get(run.show or "", []), task)
    if rows:
      title, explanation = TASKS[task]
      chosen = sample(rows, 12, task)
      parts.append(
        f"<h2>{text(title)}</h2><p class=muted>{len(chosen)} of {len(rows)}, "
        f"drawn at random (seed {SEED}). {text(explanation)}</p>"
        + tiles(run, chosen)
      )
  return "".join(parts)


def tiles(run: Run, rows: Sequence[dict]) -> str:
  """Cards with picture, question, answer and verdict."""
  earlier = {
    (r.get("task"), r.get("id")): r
    for r in run.predictions.get(run.before or "", [])
  }
  cards = "".join(
    _tile(row, earlier.get((row.get("task"), row.get("id")))) for row in rows
  )
  return f"<div class=tiles>{cards}</div>"


def _tile(row: dict, earlier: dict | None) -> str:
  good = bool(row.get("result", {}).get("correct"))
  history = "".join(
    f"<span class=muted>{text(q)} — {text(a)}</span><br>"
    for q, a in row.get("history", [])
  )
  was = ""
  if earlier is not None:
    was = (
      f"<br><span class=muted>before: {_said(earlier)}<br>"
      f"{text(verdict(earlier))}</span>"
    )
  return (
    f'<div class="tile{" ok" if good else ""}"><img alt="" '
    f'src="{data_uri(picture(row))}"><div>{history}{text(row.get("question"))}'
    f"<br>{_said(row)}<br><b class={'good' if good else 'bad'}>"
    f"{text(verdict(row))}</b>{_wanted(row, good)}{was}</div></div>"
  )


def _said(row: dict) -> str:
  answer = str(row.get("answer", ""))
  short = answer if len(answer) <= 160 else answer[:160] + " …"
  return f"<span class=said>{text(short) or '(nothing)'}</span>"


def _wanted(row: dict, good: bool) -> str:
  truth = row.get("truth", {})
  keys = (
    ("label", "answer")
    if "location" in row.get("result", {})
    else ("label", "answer", "category")
  )
  wanted = next((truth[k] for k in keys if k in truth), None)
  return "" if good or wanted is None else f" (true: {text(wanted)})"


def reproduce(run: Run) -> str:
  """The commands, and the config as it was."""
  lines = "\n".join(map(str, run.results.get("commands") or ["make demo"]))
  config = json.dumps(run.results.get("config"), indent=2, ensure_ascii=False)
  return (
    f"<h2>How to reproduce</h2><pre>{text(lines)}</pre>"
    "<p class=muted>This page again, from the files of the run: <code>"
    f"python -m locvlm_jax.report --workdir {text(run.workdir)}</code></p>"
    f"<details><summary>Configuration</summary><pre>{text(config)}</pre>"
    "</details>"
  )


# --- Command ----------------------------------------------------------------


def write(run: Run, compare: dict | None = None) -> list[str]:
  """Writes report.html and, where boxes were predicted, localizing.png."""
  path = os.path.join(run.workdir, "report.html")
  with open(path, "w", encoding="utf-8") as f:
    f.write(page(run, compare))
  rows = of_task(run.predictions.get(run.show or "", []), "locpred")
  if not rows:
    return [path]
  picture_path = os.path.join(run.workdir, "localizing.png")
  grid(sample(rows, 24, "locpred")).save(picture_path, optimize=True)
  return [path, picture_path]

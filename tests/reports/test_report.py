"""The report: builds from tiny data, escapes, and shows what happened."""

import html.parser
import json
import math

import numpy as np
import pytest
from PIL import Image

from locvlm_jax import report
from locvlm_jax.reports import page as page_lib

EVIL = '<script>alert("x")</script>&'
BOX = [0.25, 0.25, 0.75, 0.75]


def image(path, size=(40, 30)):
  Image.new("RGB", size, (90, 120, 200)).save(path)
  return str(path)


def located(path, id="1/cup", answer="[1,2,3,4]", **result):
  return {
    "task": "locpred",
    "id": id,
    "image": path,
    "question": "Where is the cup?",
    "history": [],
    "answer": answer,
    "truth": {"category": "cup", "box": BOX, "geometry": "pad"},
    "result": {"correct": True, "iou": 0.9, "location": BOX, "error": None}
    | result,
  }


def workdir(tmp_path, predictions, results=None, curve=None):
  """A run of one stage, "stage2", after "base"."""
  metrics = {
    "locpred.acc_iou50": 0.5,
    "locpred.num": 1200,
    "locpred.mean_iou": 0.4321,
  }
  content = {
    "config": {"seed": 7},
    "stages": {
      "base": {"trained_on": "captions", "metrics": {"locpred.acc_iou50": 0.0}},
      "stage2": {
        "trained_on": f"boxes {EVIL}",
        "metrics": metrics,
        "steps": 1200,
        "minutes": 3.25,
      },
    },
    "reference": None,
  } | (results or {})
  (tmp_path / "results.json").write_text(json.dumps(content))
  folder = tmp_path / "stage2"
  folder.mkdir()
  for name, rows in (("predictions", predictions), ("metrics", curve or [])):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines)
  return str(tmp_path)


class Page(html.parser.HTMLParser):
  """Collects tags, addresses and text."""

  def __init__(self, source):
    super().__init__()
    self.tags, self.addresses, self.words = [], [], ""
    self.feed(source)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [v for k, v in attrs if k in ("src", "href")]

  def handle_data(self, data):
    self.words += data


def test_page_is_self_contained_and_escapes_everything(tmp_path):
  path = image(tmp_path / "a.png")
  evil = located(path, answer=EVIL) | {
    "question": EVIL,
    "history": [[EVIL, EVIL]],
  }
  evil["truth"] = evil["truth"] | {"label": EVIL}
  rows = [evil, evil | {"task": "vqa", "result": {"correct": False}}]
  folder = workdir(tmp_path, rows, {"commands": [EVIL], "config": {EVIL: EVIL}})
  report.main(["--workdir", folder])
  source = (tmp_path / "report.html").read_text()
  page = Page(source)
  assert "script" not in page.tags
  assert "link" not in page.tags
  assert "http:" not in source
  assert "https:" not in source
  assert all(a.startswith("data:image/") for a in page.addresses)
  assert len(page.addresses) == 2
  assert EVIL in page.words


def test_table_has_before_after_and_reference(tmp_path):
  reference = {"trained_on": "more", "metrics": {"locpred.acc_iou50": 0.875}}
  folder = workdir(tmp_path, [], {"reference": reference})
  other = {"stages": {"x": {"metrics": {"locpred.acc_iou50": 0.25}}}}
  run = page_lib.load(folder)
  assert list(page_lib.columns(run, other)) == [
    "base",
    "stage2",
    "reference",
    "compared",
  ]
  words = Page(page_lib.page(run, other)).words
  for shown in ("0.0 %", "50.0 %", "87.5 %", "25.0 %", "0.432", "1,200"):
    assert shown in words
  assert "more" in words
  assert "captions" in words


def test_boxes_are_drawn_where_they_are(tmp_path):
  row = located(image(tmp_path / "a.png", (30, 30)), location=[0, 0, 0.5, 0.5])
  pixels = np.asarray(page_lib.picture(row, 101)).astype(int)
  assert tuple(pixels[60, 25]) == page_lib.TRUE
  assert tuple(pixels[50, 10]) == page_lib.PREDICTED
  assert tuple(pixels[90, 90]) == (90, 120, 200)


@pytest.mark.parametrize("location", [None, [0.5, 0.5], [], [9, 9, -9, -9]])
def test_any_location_can_be_drawn(tmp_path, location):
  row = located(image(tmp_path / "a.png"), location=location)
  assert page_lib.picture(row, 64).size == (64, 64)


def test_a_missing_or_broken_image_becomes_a_grey_tile(tmp_path):
  broken = tmp_path / "b.png"
  broken.write_bytes(b"not an image")
  for path in (str(broken), "gone.png", None):
    assert page_lib.picture(located(path), 64, False).getpixel((60, 60)) == (
      150,
      150,
      150,
    )


def test_localizing_png_shows_a_random_sample(tmp_path):
  path = image(tmp_path / "a.png")
  rows = [located(path, f"{i}/cup", correct=i % 2 == 0) for i in range(30)]
  report.main(["--workdir", workdir(tmp_path, rows)])
  with Image.open(tmp_path / "localizing.png") as picture:
    assert picture.width > 6 * 160
    assert picture.height > 4 * 160
  words = Page((tmp_path / "report.html").read_text()).words
  assert "24 of 30 held-out questions, drawn at random" in words
  assert "from the 15 wrong ones" in words


def test_sample_is_fixed_and_not_in_order():
  rows = [{"id": i} for i in range(100)]
  drawn = [r["id"] for r in page_lib.sample(rows, 24, "x")]
  assert drawn == [r["id"] for r in page_lib.sample(rows, 24, "x")]
  assert drawn != sorted(drawn)
  assert len(set(drawn)) == 24
  assert len(page_lib.sample(rows[:3], 24)) == 3


def test_before_and_after_are_joined_by_id(tmp_path):
  path = image(tmp_path / "a.png")
  folder = workdir(tmp_path, [located(path, answer="after")])
  (tmp_path / "base").mkdir()
  early = located(path, answer="earlier", location=None, error="no location")
  (tmp_path / "base" / "predictions.jsonl").write_text(json.dumps(early))
  run = page_lib.load(folder)
  assert (run.before, run.show) == ("base", "stage2")
  words = Page(page_lib.page(run)).words
  assert "before: earlierno location" in words


def test_curve_leaves_out_what_is_not_finite():
  rows = [{"step": i, "loss": 4 / (i + 1)} for i in range(2000)]
  svg = page_lib.curve_svg([*rows, {"step": 2000, "loss": math.nan}, {"lr": 1}])
  assert "1 values are not finite" in svg
  assert "nan" not in svg
  raw = svg.split('points="')[1].split('"')[0].split()
  assert len(raw) <= 501
  assert raw[0].startswith("46.0,")
  assert "fewer than two" in page_lib.curve_svg(rows[:1])


def test_running_mean_of_a_constant_is_the_constant():
  smooth = page_lib.running_mean([(float(i), 3.0) for i in range(50)])
  assert [v for _, v in smooth] == pytest.approx([3.0] * 50)


def test_ticks_are_round_and_inside():
  assert page_lib.ticks(0.0, 1200.0) == [0, 500, 1000]
  assert page_lib.ticks(0.0, 0.7) == pytest.approx([0, 0.2, 0.4, 0.6])
  assert page_lib.ticks(5.0, 5.0) == [5]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (None, "no such file"),
    ("{", "not valid json"),
    ("[]", "stages"),
    ('{"stages": {"a": 1}}', "stages"),
  ],
)
def test_bad_results_end_in_one_line(tmp_path, capsys, content, message):
  if content is not None:
    (tmp_path / "results.json").write_text(content)
  with pytest.raises(SystemExit) as end:
    report.main(["--workdir", str(tmp_path)])
  assert end.value.code == 70
  line = capsys.readouterr().err
  assert message in line
  assert "results.json" in line
  assert line.count("\n") == 1


def test_a_bad_line_is_named(tmp_path):
  folder = workdir(tmp_path, [])
  (tmp_path / "stage2" / "predictions.jsonl").write_text("{}\n[1]\n")
  with pytest.raises(ValueError, match=r"predictions.jsonl:2: not a json obj"):
    page_lib.load(folder)


def test_a_run_without_anything_still_has_a_page(tmp_path):
  (tmp_path / "results.json").write_text('{"stages": {}}')
  report.main(["--workdir", str(tmp_path)])
  assert "No stage was evaluated" in (tmp_path / "report.html").read_text()
  assert not (tmp_path / "localizing.png").exists()


UNITS = {
  "rd_refcocog_val.meteor": (20.2, "20.2 %"),
  "rd_refcocog_val.cider": (60.25, "60.2 %"),
  "rd_refcocog_val.num_references": (2573, "2,573"),
  "gqa.accuracy": (47.31, "47.3 %"),
  "gqa.missing": (12, "12"),
  "vqav2.evalai.accuracy": (50.3, "50.3 %"),
  "counting.mean_error": (1.25, "1.250"),
  "counting.no_number": (3, "3"),
  "counting.num.std": (1.0, "1"),
  "hallucination.accuracy": (0.59, "59.0 %"),
  "hallucination.accuracy.std": (0.011, "1.1 %"),
}


@pytest.mark.parametrize("name", UNITS)
def test_every_metric_is_shown_in_its_unit(tmp_path, name):
  value, shown = UNITS[name]
  stages = {"only": {"metrics": {name: value}}}
  folder = workdir(tmp_path, [], {"stages": stages})
  source = page_lib.page(page_lib.load(folder))
  label = name.split(".", 1)[1].replace(".", " · ")
  assert f"<td>{label}</td><td class=num>{shown}</td>" in source

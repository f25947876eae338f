"""Runs of a few rows, as a workdir has them, and the page as a reader."""

import html.parser
import json

from PIL import Image

EVIL = '<script>alert("x")</script>&'
BOX = [0.25, 0.25, 0.75, 0.75]


def write_image(path, size=(40, 30)) -> str:
  Image.new("RGB", size, (90, 120, 200)).save(path)
  return str(path)


def located(image, id="1/cup", answer="[1,2,3,4]", **result) -> dict:
  """A row of predictions.jsonl: where the cup is."""
  return {
    "task": "locpred",
    "id": id,
    "image": image,
    "question": "Where is the cup?",
    "history": [],
    "answer": answer,
    "truth": {"category": "cup", "box": BOX, "geometry": "pad"},
    "result": {"correct": True, "iou": 0.9, "location": BOX, "error": None}
    | result,
  }


def listed(image, id="1/cup", boxes=(), objects=1, **result) -> dict:
  """A row of predictions.jsonl: every cup of a picture of 40 x 30 pixels."""
  found = [
    {"label": "cup", "box": box, "score": score, "iou": iou}
    for box, score, iou in boxes
  ]
  return {
    "task": "detect",
    "id": id,
    "image": image,
    "question": "Find every cup.",
    "history": [],
    "answer": "cup [1,2,3,4]." if found else "no cup.",
    "truth": {
      "size": [40, 30],
      "objects": [["cup", [4.0, 3.0, 20.0, 15.0], False, 0.0]] * objects,
      "geometry": "center_crop",
    },
    "result": {"correct": False, "boxes": found, "unreadable": 0} | result,
  }


def write_run(tmp_path, predictions=(), results=None, curve=()) -> str:
  """Writes a run of one stage, "stage2", after "base"; returns its workdir."""
  stage2 = {
    "trained_on": f"boxes {EVIL}",
    "steps": 1200,
    "minutes": 3.25,
    "metrics": {
      "locpred.acc_iou50": 0.5,
      "locpred.num": 1200,
      "locpred.mean_iou": 0.4321,
    },
  }
  base = {"trained_on": "captions", "metrics": {"locpred.acc_iou50": 0.0}}
  content = {
    "config": {"seed": 7},
    "stages": {"base": base, "stage2": stage2},
    "reference": None,
  } | (results or {})
  (tmp_path / "results.json").write_text(json.dumps(content))
  folder = tmp_path / "stage2"
  folder.mkdir()
  for name, rows in (("predictions", predictions), ("metrics", curve)):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines)
  return str(tmp_path)


class Page(html.parser.HTMLParser):
  """What a browser finds in a page.

  Attributes:
    tags: names of all elements.
    addresses: what elements load or link to.
    words: the text, with single spaces.
  """

  def __init__(self, source: str):
    super().__init__()
    self.tags, self.addresses, self.words = [], [], ""
    self.feed(source)
    self.words = " ".join(self.words.split())

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.addresses += [v for k, v in attrs if k in ("src", "href")]
    self.words += " "

  def handle_endtag(self, tag):
    self.words += " "

  def handle_data(self, data):
    self.words += data

"""A file of referring expressions."""

import json
import os

from locvlm_jax.data.sources import refer


def row(image, index, text, box, width=100):
  """One row; `box` is x, y, width, height in pixels."""
  return {
    "img_id": f"COCO_train2014_{image:012d}_{index}",
    "sents": text,
    "bbox": box,
    "width": width,
    "height": 100,
  }


def write(folder) -> str:
  """Writes refcoco_testB.json: five rows about three regions of two images."""
  rows = [
    row(1, 0, "the cup", [10, 20, 30, 40]),
    row(1, 4, "cup on a table", [50, 20, 30, 40]),
    row(1, 0, "red one", [10, 20, 30, 40]),
    row(1, 0, "the cup", [10, 20, 30, 40]),
    row(2, 0, "left edge", [0, 0, 40, 40], width=200),
  ]
  path = folder / "refcoco_testB.json"
  path.write_text(json.dumps(rows))
  return str(path)


def regions(path: str) -> refer.Regions:
  """Opens such a file."""
  return refer.Regions(path, os.path.dirname(path), "testB")

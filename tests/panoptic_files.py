"""A small panoptic segmentation of two images."""

import dataclasses
import json
import pathlib

import numpy as np
from PIL import Image

from locvlm_jax.pseudo import pseudo_boxes, segmentations

KINDS = [{"id": 1, "name": "cup", "isthing": 1},
         {"id": 2, "name": "dog", "isthing": 1},
         {"id": 3, "name": "chair", "isthing": 1},
         {"id": 9, "name": "sky", "isthing": 0}]  # fmt: skip


@dataclasses.dataclass
class Panoptic:
  """The folder of the PNGs, and the json that describes them."""

  folder: pathlib.Path
  content: dict

  def source(self) -> segmentations.Segmentations:
    """Opens the content as it is now."""
    path = self.folder / "p.json"
    path.write_text(json.dumps(self.content))
    return segmentations.Segmentations(str(path), str(self.folder))


def made(world: Panoptic, **selection) -> tuple[dict, dict]:
  """Makes pseudo-boxes: (content, summary)."""
  chosen = pseudo_boxes.Selection(**selection)
  return pseudo_boxes.pseudo_boxes(world.source(), chosen)


def segment(number: int, category: int, **more) -> dict:
  """A row of "segments_info"."""
  return {"id": number, "category_id": category, "iscrowd": 0, **more}


def write(folder: pathlib.Path) -> Panoptic:
  """One image of 20 x 10: a cup, a tiny cup, a dog, sky; then one half void."""
  ids = np.zeros((2, 10, 20), np.uint32)
  ids[0] = 70_000
  ids[0, 2:8, 3:9], ids[0, 0, 0], ids[0, 5:10, 12:20] = 300, 301, 5
  ids[1, :, :8] = 300
  segments = [
    [
      segment(300, 1),
      segment(301, 1),
      segment(5, 2, score=0.9),
      segment(70_000, 9),
      segment(8, 3),
    ],  # the chair is hidden
    [segment(300, 3)],
  ]
  (folder / "v").mkdir()
  for i in range(2):
    pixels = segmentations.segment_pixels(ids[i])
    Image.fromarray(pixels).save(folder / f"v/{i}.png")
  content = {
    "images": [
      {"id": i, "file_name": f"v/{i}.jpg", "width": 20, "height": 10}
      for i in range(2)
    ],
    "categories": [dict(kind) for kind in KINDS],
    "annotations": [
      {"image_id": i, "file_name": f"v/{i}.png", "segments_info": segments[i]}
      for i in range(2)
    ],
  }
  return Panoptic(folder, content)

"""A small COCO data set of cups and balls."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

from PIL import Image

from locvlm_jax.data.sources import coco


@dataclasses.dataclass
class Cups:
  """Six images of 40 x 30, each with one cup and, if even, two balls.

  Nothing has a star, which is a category too.
  """

  folder: pathlib.Path
  content: dict

  def source(self) -> coco.Instances:
    """Opens the annotations."""
    images = str(self.folder / "images")
    return coco.Instances(str(self.folder / "instances.json"), images)

  def changed(self, change: Callable[[dict], object]) -> coco.Instances:
    """Opens the annotations after a change to a copy of them."""
    content = json.loads(json.dumps(self.content))
    change(content)
    (self.folder / "instances.json").write_text(json.dumps(content))
    return self.source()


def write(folder: pathlib.Path) -> Cups:
  """Writes images/ and instances.json."""
  (folder / "images").mkdir()
  images, notes = [], []
  for i in range(6):
    name = f"{i:012d}.jpg"
    picture = Image.new("RGB", (40, 30), (40 * i, 9, 9))
    picture.save(folder / "images" / name)
    images.append({"id": i, "file_name": name, "width": 40, "height": 30})
    notes.append(annotation(i, 1, [2 + i, 3, 10, 12]))
    if i % 2 == 0:
      notes.append(annotation(i, 2, [20, 5, 8, 8]))
      notes.append(annotation(i, 2, [25, 15, 8, 8]))
  for k, note in enumerate(notes):
    note["id"] = k
  names = ("cup", "ball", "star")
  categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
  content = {"images": images, "annotations": notes, "categories": categories}
  (folder / "instances.json").write_text(json.dumps(content))
  return Cups(folder, content)


def annotation(image: int, category: int, bbox: list) -> dict:
  """An annotation without an id."""
  return {
    "image_id": image,
    "category_id": category,
    "bbox": bbox,
    "iscrowd": 0,
  }

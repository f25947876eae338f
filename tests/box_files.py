"""Writes pictures and their boxes in each format that is read.

A scene is (file name, (width, height), [(category, (x1, y1, x2, y2))]). Every
writer makes a folder of its own below `folder` and returns what
`config.data.instances` would name.
"""

import csv
import itertools
import json
import pathlib
from xml.etree import ElementTree

from PIL import Image

ENDS = ("x1", "y1", "x2", "y2")


def draw(folder: pathlib.Path, scenes) -> None:
  """Writes the pictures, all of one color."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, size, _ in scenes:
    Image.new("RGB", size, (9, 90, 9)).save(folder / name)


def categories(scenes) -> list[str]:
  """Lists the names that the scenes use, in order."""
  return sorted({c for _, _, things in scenes for c, _ in things})


def coco_content(scenes, as_text: bool = False) -> dict:
  """COCO's json; with ids that are texts, from 0, and without areas."""
  kind = str if as_text else int
  names = {c: i for i, c in enumerate(categories(scenes))}
  images, notes = [], []
  for i, (name, (width, height), things) in enumerate(scenes):
    images.append(
      {"id": kind(i), "file_name": name, "width": width, "height": height}
    )
    for category, (x1, y1, x2, y2) in things:
      notes.append(
        {
          "id": kind(len(notes)),
          "image_id": kind(i),
          "category_id": kind(names[category]),
          "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
      )
  kinds = [
    {"id": kind(i), "name": c, "supercategory": "none"}
    for c, i in names.items()
  ]
  return {"images": images, "annotations": notes, "categories": kinds}


def write_coco(folder: pathlib.Path, scenes, as_text: bool = False) -> str:
  """COCO json beside its pictures, as Roboflow has it."""
  draw(folder, scenes)
  path = folder / "_annotations.coco.json"
  path.write_text(json.dumps(coco_content(scenes, as_text)))
  return str(path)


def write_lvis(folder: pathlib.Path, scenes, negative=(), open_=()) -> str:
  """LVIS: annotations/lvis_v1_train.json beside the folders of COCO.

  Args:
    folder: for all of it.
    scenes: what is annotated.
    negative: categories that no picture has.
    open_: those of which more may be there than are annotated.
  """
  draw(folder / "train2017", scenes)
  (folder / "annotations").mkdir()
  content = coco_content(scenes)
  used = [kind["name"] for kind in content["categories"]]
  names = [*used, *negative, "never_said"]
  content["categories"] = [
    {"id": i, "name": name, "synset": f"{name}.n.01", "frequency": "r"}
    for i, name in enumerate(names)
  ]
  for row in content["images"]:
    name = row.pop("file_name")
    row["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
    row["neg_category_ids"] = [names.index(n) for n in negative]
    row["not_exhaustive_category_ids"] = [names.index(n) for n in open_]
  for note in content["annotations"]:
    note["area"] = note["bbox"][2] * note["bbox"][3] / 2  # of its mask
  path = folder / "annotations" / "lvis_v1_train.json"
  path.write_text(json.dumps(content))
  return str(folder)


def write_coco_of_texts(folder: pathlib.Path, scenes) -> str:
  """The same with ids that are texts."""
  return write_coco(folder, scenes, as_text=True)


def write_yolo(folder: pathlib.Path, scenes, polygons: bool = False) -> str:
  """data.yaml, images/ and labels/."""
  draw(folder / "images", scenes)
  (folder / "labels").mkdir()
  names = categories(scenes)
  (folder / "data.yaml").write_text(f"names: {json.dumps(names)}\n")
  for name, size, things in scenes:
    lines = [_yolo_line(names.index(c), b, size, polygons) for c, b in things]
    path = folder / "labels" / f"{pathlib.Path(name).stem}.txt"
    path.write_text("".join(lines))
  return str(folder)


def write_yolo_polygons(folder: pathlib.Path, scenes) -> str:
  """The same with boxes as polygons, and classes.txt for data.yaml."""
  path = write_yolo(folder, scenes, polygons=True)
  (folder / "data.yaml").unlink()
  (folder / "classes.txt").write_text("\n".join(categories(scenes)))
  return path


def _yolo_line(index: int, box, size, polygons: bool) -> str:
  x1, y1, x2, y2 = (v / s for v, s in zip(box, size * 2, strict=True))
  values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
  if polygons:
    values = (x1, y1, x2, y1, x2, y2, x1, y2)
  return " ".join(map(repr, (index, *values))) + "\n"


def write_voc(folder: pathlib.Path, scenes) -> str:
  """Annotations/*.xml and JPEGImages/, whose pixels count from 1."""
  draw(folder / "JPEGImages", scenes)
  (folder / "Annotations").mkdir()
  for name, (width, height), things in scenes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height)):
      ElementTree.SubElement(size, key).text = str(value)
    for category, (x1, y1, x2, y2) in things:
      thing = ElementTree.SubElement(root, "object")
      ElementTree.SubElement(thing, "name").text = category
      ends = ElementTree.SubElement(thing, "bndbox")
      values = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
      for key, value in values.items():
        ElementTree.SubElement(ends, key).text = str(value)
    path = folder / "Annotations" / f"{pathlib.Path(name).stem}.xml"
    ElementTree.ElementTree(root).write(path)
  return str(folder)


def write_labelme(folder: pathlib.Path, scenes) -> str:
  """A json beside each picture; rectangles and polygons in turn."""
  draw(folder, scenes)
  for name, (width, height), things in scenes:
    kinds = itertools.cycle(("rectangle", "polygon"))
    shapes = [
      {"label": c, "shape_type": kind, "points": _points(box, kind)}
      for (c, box), kind in zip(things, kinds, strict=False)
    ]
    content = {
      "version": "5.4.1",
      "imagePath": name,
      "imageData": None,
      "imageWidth": width,
      "imageHeight": height,
      "shapes": shapes,
    }
    (folder / name).with_suffix(".json").write_text(json.dumps(content))
  return str(folder)


def _points(box, kind: str) -> list:
  x1, y1, x2, y2 = box
  if kind == "rectangle":
    return [[x2, y1], [x1, y2]]  # drawn from any corner
  return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def write_cvat(folder: pathlib.Path, scenes) -> str:
  """annotations.xml and images/."""
  draw(folder / "images", scenes)
  root = ElementTree.Element("annotations")
  labels = ElementTree.SubElement(root, "meta")
  for name in ("task", "labels"):
    labels = ElementTree.SubElement(labels, name)
  for category in categories(scenes):
    label = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(label, "name").text = category
  for i, (name, (width, height), things) in enumerate(scenes):
    keys = {"id": i, "name": name, "width": width, "height": height}
    image = ElementTree.SubElement(
      root, "image", {k: str(v) for k, v in keys.items()}
    )
    for category, box in things:
      ends = dict(
        zip(("xtl", "ytl", "xbr", "ybr"), map(repr, box), strict=True)
      )
      ElementTree.SubElement(image, "box", {"label": category, **ends})
  ElementTree.ElementTree(root).write(folder / "annotations.xml")
  return str(folder)


def _table(scenes) -> list[dict]:
  """A row for each box, and one for each picture without any."""
  rows = []
  for name, _, things in scenes:
    rows += [
      {"image": name, "label": c, **dict(zip(ENDS, box, strict=True))}
      for c, box in things
    ]
    if not things:
      rows.append({"image": name, **dict.fromkeys(("label", *ENDS), "")})
  return rows


def write_csv(folder: pathlib.Path, scenes) -> str:
  """image,label,x1,y1,x2,y2."""
  draw(folder, scenes)
  with open(folder / "boxes.csv", "w", newline="") as f:
    writer = csv.DictWriter(f, ("image", "label", *ENDS))
    writer.writeheader()
    writer.writerows(_table(scenes))
  return str(folder / "boxes.csv")


def write_jsonl(folder: pathlib.Path, scenes) -> str:
  """The same, a json object a line."""
  draw(folder, scenes)
  return _lines(folder / "boxes.jsonl", _table(scenes))


def write_odvg(folder: pathlib.Path, scenes) -> str:
  """What Grounding DINO is tuned on."""
  draw(folder / "images", scenes)
  names = categories(scenes)
  rows = [
    {
      "filename": name,
      "width": width,
      "height": height,
      "detection": {
        "instances": [
          {"bbox": list(b), "label": names.index(c), "category": c}
          for c, b in things
        ]
      },
    }
    for name, (width, height), things in scenes
  ]
  return _lines(folder / "odvg.jsonl", rows)


def write_qwen(folder: pathlib.Path, scenes) -> str:
  """What Qwen's models are tuned on; pictures without boxes have no line."""
  draw(folder, scenes)
  rows = []
  for name, _, things in scenes:
    found = [{"bbox_2d": list(b), "label": c} for c, b in things]
    said = f"```json\n{json.dumps(found, indent=1)}\n```"
    talk = [
      {"from": "human", "value": "<image>\nFind everything."},
      {"from": "gpt", "value": said},
    ]
    if things:
      rows.append({"image": name, "conversations": talk})
  return _lines(folder / "qwen.jsonl", rows)


def _lines(path: pathlib.Path, rows: list) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


# All of a picture's objects; Qwen's lines don't say that they are all.
EXHAUSTIVE = (
  write_coco, write_coco_of_texts, write_yolo, write_yolo_polygons, write_voc,
  write_labelme, write_cvat, write_csv, write_jsonl, write_odvg,
)  # fmt: skip

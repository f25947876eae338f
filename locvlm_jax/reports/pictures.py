"""Pictures of answers: the image with boxes drawn, alone or as a sheet."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from locvlm_jax.data import geometry
from locvlm_jax.data.media import images, video
from locvlm_jax.reports import answers

TRUE_COLOR = (34, 160, 74)  # green: what is annotated
PREDICTED_COLOR = (222, 45, 38)  # red: what the model says
TEXT_COLOR = (40, 40, 40)
_SIZE = 176  # side of a picture on the page, in pixels

# Of the sheet, in pixels.
_SHEET_SIZE = 160  # side of a picture
_GAP = 10
_CAPTION = 40  # height below a picture
_LEGEND = 34  # height above all of them


def draw_answer(row: dict, size: int = _SIZE) -> Image.Image:
  """Draws the true box green and the predicted one red.

  Args:
    row: of predictions.jsonl.
    size: side of the picture, in pixels.

  Returns:
    The image as the model sees it, or whole where the answer lists boxes; a
    gray square if it can't be read.
  """
  truth = row.get("truth", {})
  if "boxes" in row.get("result", {}):
    return _draw_list(row["image"], truth, row["result"]["boxes"], size)
  kind = truth.get("geometry", "square")
  image = _model_input(row.get("image"), kind, size, row.get("size", (0, 0)))
  canvas = ImageDraw.Draw(image)
  _draw_location(canvas, truth.get("box"), TRUE_COLOR, size)
  predicted = row.get("result", {}).get("location")
  _draw_location(canvas, predicted, PREDICTED_COLOR, size)
  return image


def _draw_list(
  path: str | None, truth: dict, boxes: Sequence[dict], size: int
) -> Image.Image:
  """Draws boxes in pixels of the whole image, the listed ones with scores."""
  image = _model_input(path, "pad", size, truth["size"])
  canvas = ImageDraw.Draw(image)
  to_square = geometry.pad(*truth["size"], size).map_box
  for _, box, *_ in truth["objects"]:
    _draw_location(canvas, to_square(tuple(box)), TRUE_COLOR, size)
  for box in boxes:
    place = to_square(tuple(box["box"]))
    _draw_location(canvas, place, PREDICTED_COLOR, size)
    if box["score"] is not None:
      _write_score(canvas, place, f"{box['score']:.2f}", size)
  return image


def _write_score(canvas, place: Sequence[float], words: str, size: int) -> None:
  """Writes a score at the upper left corner of a box."""
  font = ImageFont.load_default(11)
  width, height = canvas.textlength(words, font=font) + 4, 14
  x = min(max(place[0], 0.0) * size, size - width)
  y = max(place[1] * size - height, 0.0)
  canvas.rectangle((x, y, x + width, y + height), fill=PREDICTED_COLOR)
  canvas.text((x + 2, y), words, fill="white", font=font)


def _model_input(
  path: str | None, kind: str, size: int, announced: Sequence[int]
) -> Image.Image:
  try:
    if video.is_video(path or ""):
      image = next(video.sample(path, 1))
    else:
      image = images.load_image(path or "", tuple(announced))
  except (images.BadImage, ValueError):
    return _gray_square(size)
  transform = geometry.make(kind, *image.size, size)
  return Image.fromarray(np.asarray(transform.apply_image(image)))


def _gray_square(size: int) -> Image.Image:
  image = Image.new("RGB", (size, size), (150, 150, 150))
  ImageDraw.Draw(image).text(
    (8, 8), "image not found", fill="white", font=ImageFont.load_default(13)
  )
  return image


def _draw_location(canvas, location, color, size) -> None:
  """Draws a box as a frame and a point as a ring, each with a dark edge."""
  if not location or len(location) not in (2, 4):
    return
  p = [min(max(float(v), 0.0), 1.0) * (size - 1) for v in location]
  if len(p) == 2:
    for radius, width, fill in ((7, 5, (0, 0, 0)), (6, 3, color)):
      canvas.circle(p, radius, outline=fill, width=width)
    return
  frame = [min(p[0], p[2]), min(p[1], p[3]), max(p[0], p[2]), max(p[1], p[3])]
  edge = [v + d for v, d in zip(frame, (-1, -1, 1, 1), strict=True)]
  canvas.rectangle(edge, outline=(0, 0, 0), width=4)
  canvas.rectangle(frame, outline=color, width=2)


def draw_sheet(rows: Sequence[dict], num_columns: int = 6) -> Image.Image:
  """Draws many answers as one picture, with captions and a legend."""
  num_rows = -(-len(rows) // num_columns)
  width = num_columns * (_SHEET_SIZE + _GAP) + _GAP
  height = _LEGEND + num_rows * (_SHEET_SIZE + _CAPTION + _GAP) + _GAP
  sheet = Image.new("RGB", (width, height), "white")
  canvas = ImageDraw.Draw(sheet)
  _write_legend(canvas, rows)
  for i, row in enumerate(rows):
    x = _GAP + i % num_columns * (_SHEET_SIZE + _GAP)
    y = _LEGEND + i // num_columns * (_SHEET_SIZE + _CAPTION + _GAP)
    sheet.paste(draw_answer(row, _SHEET_SIZE), (x, y))
    _write_caption(canvas, row, x, y + _SHEET_SIZE)
  return sheet


def _write_legend(canvas, rows) -> None:
  font = ImageFont.load_default(14)
  num_correct = sum(map(answers.is_correct, rows))
  drawn = f"{len(rows)} held-out questions drawn at random"
  x = _GAP
  for words, color in (
    ("annotated", TRUE_COLOR),
    ("   the model's answer", PREDICTED_COLOR),
    (f"   {drawn} (seed {answers.SEED}): ", TEXT_COLOR),
    (f"{num_correct} right", TEXT_COLOR),
  ):
    canvas.text((x, 9), words, fill=color, font=font)
    x += canvas.textlength(words, font=font)


def _write_caption(canvas, row, x, y) -> None:
  """Writes the category's name and the verdict below a picture."""
  font = ImageFont.load_default(13)
  color = TRUE_COLOR if answers.is_correct(row) else PREDICTED_COLOR
  name = str(row.get("truth", {}).get("category", ""))
  for i, (words, fill) in enumerate(
    ((name, TEXT_COLOR), (answers.verdict(row), color))
  ):
    while canvas.textlength(words, font=font) > _SHEET_SIZE:
      words = words[:-2]
    canvas.text((x, y + 3 + 16 * i), words, fill=fill, font=font)


def data_uri(image: Image.Image) -> str:
  """Returns the picture as an address that contains it, a JPEG in base64."""
  buffer = io.BytesIO()
  image.save(buffer, "JPEG", quality=88)
  encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
  return f"data:image/jpeg;base64,{encoded}"

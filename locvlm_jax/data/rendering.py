"""Shows rows of the training stream: their text, and what the model sees."""

import re

import numpy as np
from PIL import Image, ImageDraw

from locvlm_jax.data import rows as rows_lib
from locvlm_jax.text import coords, tokenizer

_SIDE = 512  # pixels of a picture


def header(row: dict, spec: rows_lib.RowSpec) -> str:
  """Returns the example's index and how much of the row it takes."""
  used, trained = int(row["lengths"]), int(row["loss_mask"].sum())
  visual = int((row["tokens"] == -1).sum())
  return (
    f"example {int(row['example'])}: {used} of {spec.length} positions,"
    f" {visual} visual, {trained} trained"
    + ("" if row["valid"] else "  (a record that can't be used)")
  )


def marked_text(
  row: dict, words: tokenizer.Tokenizer, color: bool = False
) -> str:
  """Returns the text of a row; marks what is trained on, stops included.

  Args:
    row: without the axis of the batch.
    words: that the row was made with.
    color: marks by a terminal's green, in place of « and ».
  """
  start, end = ("\033[32m", "\033[0m") if color else ("«", "»")
  tokens = row["tokens"][: int(row["lengths"])].tolist()
  mask = row["loss_mask"][: len(tokens)].tolist()
  parts, first = [], 0
  for i in range(1, len(tokens) + 1):
    if i < len(tokens) and _kind(tokens, mask, i) == _kind(tokens, mask, first):
      continue
    kind, run = _kind(tokens, mask, first), tokens[first:i]
    said = f"<{len(run)} visual>" if kind == "image" else _text(run, words)
    parts.append(f"{start}{said}{end}" if kind == "trained" else said)
    first = i
  return "".join(parts)


def _kind(tokens: list[int], mask: list[bool], i: int) -> str:
  return "image" if tokens[i] < 0 else "trained" if mask[i] else "given"


def _text(tokens: list[int], words: tokenizer.Tokenizer) -> str:
  """Returns the text of tokens, with EOS written out where it is."""
  ended = tokens[-1] == words.eos_id
  return words.decode(tokens) + ("</s>" if ended else "")


def picture(row: dict, text: str, form: coords.Coords) -> Image.Image:
  """Returns a row's image with every location of its text drawn in."""
  return draw(Image.fromarray(_still(row)).resize((_SIDE, _SIDE)), text, form)


def _still(row: dict) -> np.ndarray:
  """Returns a row's image, or the frame in the middle of its video."""
  image = row["images"][0]
  return image[row["frames"][0] // 2] if "frames" in row else image


def draw(image: Image.Image, text: str, form: coords.Coords) -> Image.Image:
  """Draws every location of a text on a square image, and returns the image."""
  pen, side = ImageDraw.Draw(image), image.size[0]
  for written in re.findall(r"\[[^\]]*\]", text):
    value, _ = form.parse(written)
    if value is None:
      continue
    if len(value) == 4:
      pen.rectangle([v * side for v in value], outline="red", width=3)
    else:
      pen.circle([v * side for v in value], 6, outline="red", width=3)
    pen.text([v * side + 5 for v in value[:2]], written, "red")
  return image

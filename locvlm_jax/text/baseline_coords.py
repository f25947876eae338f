"""How the paper's baselines write boxes, for questions to them alone.

The box (0.30, 0.40, 0.55, 0.80), in fractions of the square that a model sees,
reads

  llava15   [0.3, 0.4, 0.55, 0.8]    two decimals, none of them a final zero
  kosmos2   <patch_index_0393><patch_index_0817>

LLaVA-1.5's square is the padded image (haotian-liu/LLaVA issue 606), that of
Kosmos-2 the squeezed one, whose 32 x 32 cells are counted along the rows: the
first patch holds the upper left corner, the second the lower right one. Read
back, a corner is the middle of its cell; of boxes within one row or column of
cells it is the outer corner (`transformers`, processing_kosmos2.py).
"""

import math
import re

FORMS = ("llava15", "kosmos2")

Box = tuple[float, float, float, float]  # x1, y1, x2, y2

_CELLS = 32  # along each side
_PATCHES = re.compile(r"<patch_index_(\d{4})>\s*<patch_index_(\d{4})>")


def write(form: str, box: Box) -> str:
  """Writes a box in [0, 1] of the square."""
  if form == "llava15":
    return "[" + ", ".join(str(round(v, 2) + 0.0) for v in box) + "]"
  return "".join(f"<patch_index_{cell:04d}>" for cell in _cells(box))


def read_patches(text: str) -> Box | None:
  """Reads the first box that Kosmos-2 has written; None if there is none."""
  found = _PATCHES.search(text)
  cells = [int(word) for word in found.groups()] if found else []
  if not cells or max(cells) >= _CELLS**2:
    return None
  (y1, x1), (y2, x2) = (divmod(cell, _CELLS) for cell in cells)
  if x2 < x1 or y2 < y1:
    return None
  begin, end = (0.0, 1.0) if x1 == x2 or y1 == y2 else (0.5, 0.5)
  corners = x1 + begin, y1 + begin, x2 + end, y2 + end
  return tuple(v / _CELLS for v in corners)


def _cells(box: Box) -> tuple[int, int]:
  """Returns the cells of the upper left and the lower right corner."""
  x1, y1 = (min(int(v * _CELLS), _CELLS - 1) for v in box[:2])
  x2, y2 = (max(math.ceil(v * _CELLS) - 1, 0) for v in box[2:])
  return y1 * _CELLS + x1, max(y2, y1) * _CELLS + max(x2, x1)

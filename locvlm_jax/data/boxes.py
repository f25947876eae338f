"""Boxes (x1, y1, x2, y2): their overlap and their centers."""

from locvlm_jax.text.coords import Box


def iou(a: Box, b: Box) -> float:
  """Computes the intersection over union of two boxes, 0 without overlap.

  >>> iou((0.0, 0.0, 2.0, 1.0), (1.0, 0.0, 3.0, 1.0))
  0.3333333333333333
  """
  w = min(a[2], b[2]) - max(a[0], b[0])
  h = min(a[3], b[3]) - max(a[1], b[1])
  if w <= 0 or h <= 0:
    return 0.0
  areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
  return w * h / (sum(areas) - w * h)


def center(box: Box) -> tuple[float, float]:
  """Computes the center (x, y) of a box."""
  return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2

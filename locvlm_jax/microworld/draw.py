"""What the micro-world's objects look like: silhouettes, painting.

Every category is a short list of filled polygons in a unit frame (x right, y
down, about -1..1), so that rotation, aspect and mirroring are exact. A polygon
has a tone: 0 cuts a hole, BODY is the object's own color, smaller is darker
and larger is lighter. Letters: h, w of a patch; H, W of the picture.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

BODY = 160
DARK = 90
LIGHT = 225
_OVERSAMPLING = 3

COLORS = {
  "red": (214, 38, 38),
  "orange": (246, 134, 22),
  "yellow": (246, 224, 48),
  "green": (44, 158, 62),
  "blue": (40, 84, 218),
  "purple": (142, 52, 172),
  "white": (240, 240, 240),
  "black": (26, 26, 30),
}

_Number = float | int
_Point = tuple[_Number, _Number]
Shape = list[tuple[int, np.ndarray]]


def _poly(*points: _Point, tone: int = BODY):
  return tone, np.array(points, np.float64)


def _bar(x1: _Number, y1: _Number, x2: _Number, y2: _Number, tone=BODY):
  return _poly((x1, y1), (x2, y1), (x2, y2), (x1, y2), tone=tone)


def _arc(cx, cy, rx, ry, start=0, end=360) -> list[_Point]:
  """Points along an ellipse; degrees, 0 is to the right, 90 is down."""
  turns = [math.radians(start + (end - start) * i / 24) for i in range(25)]
  return [(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turns]


def _disc(cx, cy, rx, ry=None, start=0, end=360, tone: int = BODY):
  ry = rx if ry is None else ry
  return _poly(*_arc(cx, cy, rx, ry, start, end), tone=tone)


def _star() -> Shape:
  radii = [1.0, 0.42] * 5
  turns = [math.radians(36 * i - 90) for i in range(10)]
  points = [
    (r * math.cos(t), r * math.sin(t))
    for r, t in zip(radii, turns, strict=True)
  ]
  return [_poly(*points)]


def _heart() -> Shape:
  turns = [2 * math.pi * i / 36 for i in range(36)]
  return [
    _poly(
      *(
        (
          math.sin(t) ** 3,
          -(
            13 * math.cos(t)
            - 5 * math.cos(2 * t)
            - 2 * math.cos(3 * t)
            - math.cos(4 * t)
          )
          / 16,
        )
        for t in turns
      )
    )
  ]


def _moon() -> Shape:
  outer = _arc(0, 0, 1, 1, 50, 310)
  inner = _arc(0.42, 0, 0.78, 0.8, 286, 74)
  return [_poly(*outer, *inner)]


def _ladder() -> Shape:
  rails = [_bar(-0.5, -1, -0.27, 1), _bar(0.27, -1, 0.5, 1)]
  rungs = [
    _bar(-0.4, y - 0.1, 0.4, y + 0.1) for y in (-0.72, -0.24, 0.24, 0.72)
  ]
  return rails + rungs


def _umbrella() -> Shape:
  canopy = [_disc(0, 0.0, 1, 0.9, 180, 360)]
  scallops = [
    _disc(x, 0.03, 0.25, 0.2, 180, 360, tone=0)
    for x in (-0.75, -0.25, 0.25, 0.75)
  ]
  handle = [
    _bar(-0.08, -0.1, 0.08, 0.85),
    _disc(0.19, 0.8, 0.27, 0.25, 0, 180),
    _disc(0.19, 0.8, 0.11, 0.1, 0, 180, tone=0),
  ]
  ribs = [_poly((0, -0.88), (-0.28, 0.0), (0.28, 0.0), tone=DARK + 30)]
  return canopy + ribs + scallops + handle


# fmt: off
SHAPES: dict[str, Shape] = {
    "ball": [_disc(0, 0, 1), _disc(-0.35, -0.38, 0.27, tone=LIGHT),
             _disc(0.1, 0.1, 0.88, 0.88, 20, 70, tone=DARK + 35)],
    "cube": [_poly((-0.85, -0.5), (0, -0.12), (0, 1), (-0.85, 0.55)),
             _poly((0.85, -0.5), (0, -0.12), (0, 1), (0.85, 0.55), tone=DARK),
             _poly((0, -0.95), (0.85, -0.5), (0, -0.12), (-0.85, -0.5),
                   tone=LIGHT)],
    "cup": [_disc(0.5, -0.1, 0.5, 0.5), _disc(0.5, -0.1, 0.27, tone=0),
            _poly((-0.85, -0.8), (0.55, -0.8), (0.35, 0.85), (-0.65, 0.85)),
            _disc(-0.15, -0.8, 0.7, 0.17, tone=DARK)],
    "star": _star(),
    "tree": [_bar(-0.17, 0.5, 0.17, 1, tone=DARK),
             _poly((0, -1), (0.45, -0.35), (-0.45, -0.35)),
             _poly((0, -0.65), (0.62, 0.12), (-0.62, 0.12)),
             _poly((0, -0.2), (0.8, 0.62), (-0.8, 0.62))],
    "house": [_bar(-0.7, -0.15, 0.7, 0.95),
              _poly((0, -1), (1, -0.08), (-1, -0.08), tone=DARK + 20),
              _bar(-0.2, 0.3, 0.2, 0.95, tone=DARK)],
    "heart": _heart(),
    "moon": _moon(),
    "fish": [_disc(-0.22, 0, 0.78, 0.5),
             _poly((0.35, 0), (1, -0.55), (0.84, 0), (1, 0.55)),
             _disc(-0.62, -0.12, 0.13, tone=LIGHT),
             _poly((-0.15, -0.45), (0.3, -0.72), (0.3, -0.3))],
    "key": [_disc(-0.58, 0, 0.42), _disc(-0.58, 0, 0.2, tone=0),
            _bar(-0.2, -0.12, 1, 0.12), _bar(0.76, 0.1, 0.98, 0.5),
            _bar(0.4, 0.1, 0.6, 0.4)],
    "ring": [_disc(0, 0, 1), _disc(0, 0, 0.6, tone=0)],
    "arrow": [_bar(-1, -0.2, 0.2, 0.2),
              _poly((0.1, -0.68), (1, 0), (0.1, 0.68))],
    "mushroom": [_bar(-0.27, 0, 0.27, 0.9, tone=LIGHT),
                 _disc(0, 0.1, 0.95, 1.0, 180, 360),
                 _disc(-0.45, -0.3, 0.17, tone=LIGHT),
                 _disc(0.1, -0.55, 0.19, tone=LIGHT),
                 _disc(0.5, -0.2, 0.15, tone=LIGHT)],
    "bottle": [_bar(-0.15, -1, 0.15, -0.3), _bar(-0.2, -1, 0.2, -0.83,
                                                tone=DARK),
               _poly((-0.15, -0.5), (0.15, -0.5), (0.4, -0.12), (0.4, 1),
                     (-0.4, 1), (-0.4, -0.12)),
               _bar(-0.4, 0.15, 0.4, 0.65, tone=LIGHT)],
    "car": [_poly((-1, 0.35), (-1, -0.05), (-0.62, -0.12), (-0.4, -0.55),
                  (0.35, -0.55), (0.62, -0.1), (1, 0.0), (1, 0.35)),
            _poly((-0.42, -0.12), (-0.3, -0.42), (-0.02, -0.42),
                  (-0.02, -0.12), tone=LIGHT),
            _poly((0.1, -0.12), (0.1, -0.42), (0.28, -0.42), (0.45, -0.12),
                  tone=LIGHT),
            _disc(-0.52, 0.35, 0.24, tone=DARK - 40),
            _disc(0.52, 0.35, 0.24, tone=DARK - 40)],
    "boat": [_poly((-1, 0.4), (1, 0.4), (0.6, 0.9), (-0.65, 0.9), tone=DARK),
             _bar(-0.08, -1, 0.06, 0.42, tone=DARK),
             _poly((0.12, -0.95), (0.85, 0.25), (0.12, 0.25)),
             _poly((-0.16, -0.7), (-0.16, 0.25), (-0.7, 0.25), tone=LIGHT)],
    "umbrella": _umbrella(),
    "ladder": _ladder(),
    "flag": [_bar(-0.8, -1, -0.6, 1, tone=DARK),
             _poly((-0.6, -0.95), (-0.1, -0.8), (0.35, -0.95), (0.8, -0.8),
                   (0.8, 0.05), (0.35, -0.1), (-0.1, 0.05), (-0.6, -0.1))],
    "kite": [_poly((0, -1), (0.62, -0.4), (0, 0.45), (-0.62, -0.4)),
             _poly((0, -1), (0.62, -0.4), (0, -0.4), tone=LIGHT),
             _poly((0, 0.45), (-0.62, -0.4), (0, -0.4), tone=DARK + 25),
             _poly((-0.06, 0.4), (0.07, 0.4), (0.2, 0.68), (0.0, 0.98),
                   (-0.1, 0.9), (0.04, 0.68)),
             _poly((-0.12, 0.62), (0.32, 0.56), (0.3, 0.82), (-0.1, 0.76))],
    "hat": [_disc(0, 0.5, 1, 0.24), _bar(-0.52, -0.6, 0.52, 0.5),
            _disc(0, -0.6, 0.52, 0.12),
            _bar(-0.52, 0.1, 0.52, 0.4, tone=DARK)],
    "cross": [_bar(-0.3, -1, 0.3, 1), _bar(-1, -0.3, 1, 0.3)],
    "lamp": [_poly((-0.35, -0.95), (0.35, -0.95), (0.72, -0.05),
                   (-0.72, -0.05)), _bar(-0.09, -0.05, 0.09, 0.85, tone=DARK),
             _disc(0, 0.98, 0.5, 0.24, 180, 360, tone=DARK)],
    "leaf": [_poly(*_arc(0, 0.42, 1.1, 1.1, 218, 322),
                   *_arc(0, -0.94, 1.1, 1.1, 38, 142)),
             _bar(-1.0, -0.31, 0.8, -0.21, tone=DARK),
             _poly((-0.1, -0.25), (0.15, -0.6), (0.22, -0.55), (0.05, -0.25),
                   (0.22, 0.05), (0.15, 0.1), tone=DARK)],
}
# fmt: on


@dataclasses.dataclass(frozen=True, eq=False)
class Patch:
  """One drawn object, cut out: coverage 0..255 and tone (BODY = plain)."""

  alpha: UInt8[np.ndarray, "h w"]
  tone: UInt8[np.ndarray, "h w"]


def patch(
  category: str, longest: float, degrees: float, aspect: float, mirrored: bool
) -> Patch:
  """Draws a category's silhouette, antialiased.

  longest is the longer side of its bounding box in pixels; aspect stretches
  x against y before the rotation by degrees.
  """
  shape = _placed(SHAPES[category], longest, degrees, aspect, mirrored)
  solid = np.concatenate([points for tone, points in shape if tone])
  w, h = (int(x) for x in np.ceil(solid.max(0)) + 1)
  size = (w * _OVERSAMPLING, h * _OVERSAMPLING)
  alpha, shade = Image.new("L", size, 0), Image.new("L", size, BODY)
  on_alpha, on_shade = ImageDraw.Draw(alpha), ImageDraw.Draw(shade)
  for tone, points in shape:
    flat = (points * _OVERSAMPLING).ravel().tolist()
    on_alpha.polygon(flat, fill=255 if tone else 0)
    if tone:
      on_shade.polygon(flat, fill=tone)
  shade = Image.fromarray(_with_rim(np.asarray(alpha), np.asarray(shade)))
  return Patch(
    np.asarray(alpha.reduce(_OVERSAMPLING)),
    np.asarray(shade.reduce(_OVERSAMPLING)),
  )


def _with_rim(
  alpha: UInt8[np.ndarray, "h w"], tone: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w"]:
  """Darkens the outermost pixel, so that equal colors can overlap."""
  padded = np.pad(alpha > 0, _OVERSAMPLING)
  n, d = None, 2 * _OVERSAMPLING
  c = slice(_OVERSAMPLING, -_OVERSAMPLING)
  inner = padded[d:n, c] & padded[:-d, c] & padded[c, d:n] & padded[c, :-d]
  return np.where(inner, tone, np.maximum(tone, 50) - 50).astype(np.uint8)


def _placed(
  shape: Shape, longest: float, degrees: float, aspect: float, mirrored: bool
) -> Shape:
  """The polygons in pixels, their bounding box starting at (0, 0)."""
  c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
  stretch = np.diag([-aspect if mirrored else aspect, 1.0])
  matrix = stretch @ np.array([[c, s], [-s, c]])
  turned = [(tone, points @ matrix) for tone, points in shape]
  solid = np.concatenate([points for tone, points in turned if tone])
  low, high = solid.min(0), solid.max(0)
  scale = longest / (high - low).max()
  return [(tone, (points - low) * scale) for tone, points in turned]


def background(
  width: int, height: int, rng: np.random.Generator
) -> Float[np.ndarray, "H W 3"]:
  """A muted gradient with stripes or blotches, noise and small marks."""
  one, two = _muted(rng), _muted(rng)
  y, x = np.mgrid[0:height, 0:width].astype(np.float32)
  turn = rng.uniform(0, 2 * math.pi)
  along = x * math.cos(turn) + y * math.sin(turn)
  t = (along - along.min()) / max(float(np.ptp(along)), 1.0)
  picture = one + (two - one) * t[..., None]
  picture += _texture(x, y, rng)[..., None]
  noise = rng.integers(-9, 10, (height, width, 1), dtype=np.int8)
  picture += noise * np.float32(rng.uniform(0.2, 1.3))
  return _clutter(picture, rng)


def _muted(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
  color = rng.uniform(60, 200, 3)
  gray = float(np.clip(color.mean(), 85, 180))
  return (0.6 * gray + 0.4 * color).astype(np.float32)


def _texture(
  x: Float[np.ndarray, "H W"],
  y: Float[np.ndarray, "H W"],
  rng: np.random.Generator,
) -> Float[np.ndarray, "H W"]:
  """Stripes, checks or blotches, +-30 gray levels at most."""
  kind, strength = int(rng.integers(4)), float(rng.uniform(6, 28))
  if kind == 0:
    return np.zeros_like(x)
  if kind == 1:
    coarse = rng.integers(0, 256, (7, 7), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize(x.shape[::-1], Image.BICUBIC)
    return (np.asarray(soft, np.float32) / 127.5 - 1) * strength
  turn, period = rng.uniform(0, math.pi), rng.uniform(5, 26)
  u = x * math.cos(turn) + y * math.sin(turn)
  wave = np.sin(u * np.float32(2 * math.pi / period))
  if kind == 3:
    v = y * math.cos(turn) - x * math.sin(turn)
    wave = np.sign(wave * np.sin(v * np.float32(2 * math.pi / period)))
  return (wave * strength * 0.6).astype(np.float32)


def _clutter(
  picture: Float[np.ndarray, "H W 3"], rng: np.random.Generator
) -> Float[np.ndarray, "H W 3"]:
  """Unlabeled dots and strokes of 2-8 px, in any color."""
  image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
  draw = ImageDraw.Draw(image)
  height, width = picture.shape[:2]
  for _ in range(int(rng.integers(2, 10))):
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    dx, dy = rng.uniform(-6, 6, 2)
    color = tuple(int(c) for c in rng.integers(20, 240, 3))
    if rng.random() < 0.4:
      r = rng.uniform(0.8, 2.2)
      draw.ellipse([x - r, y - r, x + r, y + r], fill=color)
    else:
      draw.line(
        [x, y, x + dx, y + dy], fill=color, width=int(rng.integers(1, 3))
      )
  return np.asarray(image).astype(np.float32)


def paste(
  picture: Float[np.ndarray, "H W 3"],
  cut: Patch,
  left: int,
  top: int,
  color: tuple[float, float, float],
) -> None:
  """Blends the patch into the picture, in place; may stick out of it."""
  (height, width), (h, w) = picture.shape[:2], cut.alpha.shape
  y1, x1 = max(top, 0), max(left, 0)
  y2, x2 = min(top + h, height), min(left + w, width)
  inside = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
  alpha = cut.alpha[inside].astype(np.float32)[..., None] / 255
  tone = cut.tone[inside].astype(np.float32)[..., None] - BODY
  # Details are shifts, not factors: a factor would leave black plain.
  solid = np.clip(np.array(color, np.float32) + 0.9 * tone, 0, 255)
  region = picture[y1:y2, x1:x2]
  region += alpha * (solid - region)

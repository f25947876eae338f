"""Micro-world scenes: which objects lie where, and what hides what.

A scene is decided before anything is painted: objects are laid down one after
the other (later ones in front), and one is kept only if it and all earlier
ones stay at least 60 % visible. Boxes are of the visible pixels, exactly
tight, (x1, y1, x2, y2) in pixels with x2, y2 exclusive. H, W: the picture's.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from locvlm_jax.microworld import draw

SEEN = (
  "ball",
  "cube",
  "cup",
  "star",
  "tree",
  "house",
  "heart",
  "moon",
  "fish",
  "key",
  "ring",
  "arrow",
  "mushroom",
  "bottle",
  "car",
  "boat",
  "umbrella",
  "ladder",
)
HELD_OUT = ("flag", "kite", "hat", "cross", "lamp", "leaf")
CATEGORIES = SEEN + HELD_OUT
COLORS = tuple(draw.COLORS)
SPLITS = ("train", "val")
PORTRAITS = "portraits"  # a split of its own, with captions alone

MIN_VISIBLE = 0.6
_CROWD_SHARE = 0.02
_REPEAT_SHARE = 0.12
# Longest side of an object, in sides of the picture: a + b * u**c for even u;
# c above 1 makes small objects more frequent than large ones.
_SIZES, _PORTRAIT_SIZES = (0.18, 0.32, 1.5), (0.28, 0.30, 1.0)
_COUNT_WEIGHTS = (0.05, 0.12, 0.20, 0.23, 0.20, 0.20)  # of 1..6 objects
_STREAMS = (
  "scene", "paint", "text", "refs", "vqa", "sentences", "video", "lookups",
  "spatial",
)  # fmt: skip

PixelBox = tuple[int, int, int, int]  # x1, y1, x2, y2; x2, y2 exclusive


def stream(name: str, seed: int, split: str, index: int) -> np.random.Generator:
  """Makes the random generator of one purpose for one item.

  Each item has its own, so neither the number of workers nor a change of the
  wording changes any picture.
  """
  return np.random.default_rng(
    [seed, (*SPLITS, PORTRAITS).index(split), index, _STREAMS.index(name)]
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
  """One object: what it is, its cut-out and where it lies.

  Attributes:
    category: of CATEGORIES.
    color: of COLORS.
    rgb: the color with its brightness jitter, from 0 to 255.
    patch: the cut-out.
    left: where the patch starts in the picture, in pixels; may be negative.
    top: likewise.
    box: of the visible pixels, exactly tight.
    area: the visible pixels.
  """

  category: str
  color: str
  rgb: tuple[float, float, float]
  patch: draw.Patch
  left: int
  top: int
  box: PixelBox = (0, 0, 0, 0)
  area: int = 0

  @property
  def center(self) -> tuple[float, float]:
    """The center (x, y) of the visible box, in pixels."""
    x1, y1, x2, y2 = self.box
    return (x1 + x2) / 2, (y1 + y2) / 2

  @property
  def extent(self) -> int:
    """The area of the visible box; what "bigger" means in the texts."""
    x1, y1, x2, y2 = self.box
    return (x2 - x1) * (y2 - y1)


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
  """A picture before painting.

  Attributes:
    width: in pixels.
    height: in pixels.
    things: in drawing order.
    labels: [H, W], 0 for the background, k + 1 for things[k].
    covers: pairs (front, back) of indices where front hides a part of back.
    crowds: categories whose several instances are annotated as one crowd.
  """

  width: int
  height: int
  things: tuple[Thing, ...]
  labels: UInt8[np.ndarray, "H W"]
  covers: frozenset[tuple[int, int]]
  crowds: frozenset[str]


def make_scene(seed: int, split: str, index: int) -> Scene:
  """Makes the scene of one image; the same arguments give the same scene.

  A portrait shows a single, larger object, as most pictures on the web do.
  """
  rng = stream("scene", seed, split, index)
  width, height = (int(x) for x in rng.integers(96, 129, 2))
  portrait = split == PORTRAITS
  weights = (1.0,) if portrait else _COUNT_WEIGHTS
  wanted = 1 + int(np.searchsorted(np.cumsum(weights), rng.random()))
  layout = _Layout(width, height)
  for _ in range(min(wanted, len(weights))):
    category = _category(rng, layout.categories)
    sizes = _PORTRAIT_SIZES if portrait else _SIZES
    thing = _new_thing(rng, category, min(width, height), sizes)
    for _ in range(12):
      placed = _at_random(thing, width, height, rng)
      if layout.add(placed):
        break
  return layout.scene(rng)


def _category(rng: np.random.Generator, present: list[str]) -> str:
  if present and rng.random() < _REPEAT_SHARE:
    return present[int(rng.integers(len(present)))]
  return CATEGORIES[int(rng.integers(len(CATEGORIES)))]


def _new_thing(
  rng: np.random.Generator,
  category: str,
  side: int,
  sizes: tuple[float, float, float] = _SIZES,
) -> Thing:
  color = COLORS[int(rng.integers(len(COLORS)))]
  gain = rng.uniform(0.86, 1.08)
  rgb = tuple(
    float(min(255, c * gain + d))
    for c, d in zip(draw.COLORS[color], rng.uniform(-8, 8, 3), strict=True)
  )
  low, span, power = sizes
  longest = side * (low + span * rng.random() ** power)
  cut = draw.patch(
    category,
    longest,
    float(rng.uniform(-14, 14)),
    float(rng.uniform(0.85, 1.18)),
    bool(rng.random() < 0.5),
  )
  return Thing(category, color, rgb, cut, 0, 0)


def _at_random(
  thing: Thing, width: int, height: int, rng: np.random.Generator
) -> Thing:
  """Puts it anywhere; an eighth of it may stick out of the picture."""
  h, w = thing.patch.alpha.shape
  left = int(rng.integers(-(w // 8), width - w + w // 8 + 1))
  top = int(rng.integers(-(h // 8), height - h + h // 8 + 1))
  return dataclasses.replace(thing, left=left, top=top)


class _Layout:
  """The objects placed so far, and who owns each pixel."""

  def __init__(self, width: int, height: int):
    self.things: list[Thing] = []
    self.labels = np.zeros((height, width), np.uint8)
    self.full: list[int] = []
    self.visible: list[int] = []
    self.covers: set[tuple[int, int]] = set()

  @property
  def categories(self) -> list[str]:
    """The category of each thing."""
    return [thing.category for thing in self.things]

  def add(self, thing: Thing, min_visible: float = MIN_VISIBLE) -> bool:
    """Lays the thing on top of those that are there.

    Returns:
      Whether it was added: not if it would leave too little of a thing.
    """
    height, width = self.labels.shape
    h, w = thing.patch.alpha.shape
    y1, x1 = max(thing.top, 0), max(thing.left, 0)
    y2, x2 = min(thing.top + h, height), min(thing.left + w, width)
    mask = thing.patch.alpha >= 128
    part = mask[
      y1 - thing.top : y2 - thing.top, x1 - thing.left : x2 - thing.left
    ]
    region = self.labels[y1:y2, x1:x2]
    full, shown = int(mask.sum()), int(part.sum())
    hidden = np.bincount(region[part], minlength=len(self.things) + 1)[1:]
    left_over = [v - int(n) for v, n in zip(self.visible, hidden, strict=True)]
    if shown < min_visible * full or any(
      v < min_visible * f for v, f in zip(left_over, self.full, strict=True)
    ):
      return False
    self.covers |= {
      (len(self.things), k)
      for k, n in enumerate(hidden)
      if n >= max(6, 0.04 * self.full[k])
    }
    self.things.append(thing)
    region[part] = len(self.things)
    self.full.append(full)
    self.visible = left_over + [shown]
    return True

  def scene(self, rng: np.random.Generator) -> Scene:
    """Finishes the scene; some repeated categories become crowds."""
    height, width = self.labels.shape
    things = tuple(self.located())
    repeated = sorted(
      {t for t in self.categories if self.categories.count(t) > 1}
    )
    crowds = frozenset(t for t in repeated if rng.random() < _CROWD_SHARE)
    return Scene(
      width, height, things, self.labels, frozenset(self.covers), crowds
    )

  def located(self) -> list[Thing]:
    """Lists the things with the tight boxes and areas of what is visible."""
    return [
      dataclasses.replace(thing, box=tight_box(self.labels == k + 1), area=area)
      for k, (thing, area) in enumerate(
        zip(self.things, self.visible, strict=True)
      )
    ]


def tight_box(mask: np.ndarray) -> PixelBox:
  """Finds the box of the True pixels of a [H, W] mask.

  (0, 0, 0, 0) if there is none.
  """
  columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
  if not len(columns):
    return 0, 0, 0, 0
  return (
    int(columns[0]),
    int(rows[0]),
    int(columns[-1]) + 1,
    int(rows[-1]) + 1,
  )


def paint(scene: Scene, rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
  """Paints the scene."""
  picture = draw.background(scene.width, scene.height, rng)
  for thing in scene.things:
    draw.paste(picture, thing.patch, thing.left, thing.top, thing.rgb)
  return np.clip(picture, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A short video: one scene per frame, the same things in each.

  Attributes:
    frames: in their order; boxes are of each frame.
    moving: whether things[k] moves.
  """

  frames: tuple[Scene, ...]
  moving: tuple[bool, ...]


def make_clip(seed: int, split: str, index: int) -> Clip:
  """Makes 8-16 frames of 1-4 things of different categories.

  Some of them move, in straight lines.
  """
  rng = stream("video", seed, split, index)
  while True:  # Crossing paths can hide too much: draw again, a few times.
    clip = _try_clip(rng)
    if clip is not None:
      return clip


def _try_clip(rng: np.random.Generator) -> Clip | None:
  width, height = (int(x) for x in rng.integers(96, 129, 2))
  count, num_frames = int(rng.integers(1, 5)), int(rng.integers(8, 17))
  things, ends = [], []
  for k in rng.permutation(len(CATEGORIES))[:count]:
    thing = _new_thing(rng, CATEGORIES[k], min(width, height))
    things.append(_at_random(thing, width, height, rng))
    ends.append(
      _away(things[-1], width, height, rng)
      if rng.random() < 0.5
      else things[-1]
    )
  frames = [
    _frame(things, ends, t / (num_frames - 1), width, height)
    for t in range(num_frames)
  ]
  moving = tuple(a is not b for a, b in zip(things, ends, strict=True))
  return None if None in frames else Clip(tuple(frames), moving)


def _away(
  thing: Thing, width: int, height: int, rng: np.random.Generator
) -> Thing:
  """Moves it at least 0.25 widths away; leaves it where that fails."""
  for _ in range(20):
    end = _at_random(thing, width, height, rng)
    if np.hypot(end.left - thing.left, end.top - thing.top) > 0.25 * width:
      return end
  return thing


def _frame(
  starts: list[Thing], ends: list[Thing], t: float, width: int, height: int
) -> Scene | None:
  """Makes the scene at time t of 0..1; None if something hides too much."""
  layout = _Layout(width, height)
  for a, b in zip(starts, ends, strict=True):
    left = round(a.left + (b.left - a.left) * t)
    top = round(a.top + (b.top - a.top) * t)
    if not layout.add(dataclasses.replace(a, left=left, top=top)):
      return None
  return Scene(
    width,
    height,
    tuple(layout.located()),
    layout.labels,
    frozenset(layout.covers),
    frozenset(),
  )

"""Says what is in a data set, and which square of its pictures suits it."""

import collections
import dataclasses
import statistics
from collections.abc import Iterator

from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.records import Record, Records

# Of the objects that the model could see: more that the center crop cuts away
# are a reason to show the whole picture.
MOST_CUT = 0.01
# Of the pictures: more whose objects all have others of their category are a
# reason to see each picture, and not only those with a single object.
MOST_REPEATED = 0.1
_SHOWN = 8  # categories that are named
_SMALL, _LARGE = 32**2, 96**2  # COCO's, in square pixels of the picture


@dataclasses.dataclass(frozen=True)
class Survey:
  """What the pictures of a data set hold.

  Attributes:
    images: how many pictures there are.
    bare: of them, those without an object.
    categories: how many objects each category has.
    sizes: (width, height) of each picture.
    areas: of each box with an area, in square pixels of its picture.
    unique: objects that are the only one of their category in a picture.
    repeated: pictures with objects, none of which is such a one.
    tiny: boxes that no square shows, being below a pixel of it.
    cut: of the others, those that the center crop cuts away.
  """

  images: int
  bare: int
  categories: collections.Counter
  sizes: tuple[tuple[int, int], ...]
  areas: tuple[float, ...]
  unique: int
  repeated: int
  tiny: int
  cut: int

  @property
  def cut_share(self) -> float:
    """The share of objects that the center crop cuts away."""
    return self.cut / max(1, len(self.areas) - self.tiny)


def survey(records: Records, side: int) -> Survey:
  """Counts what a data set holds; opens no picture.

  Args:
    records: all of it.
    side: of the square that the model sees, in pixels.
  """
  found = [records[i] for i in range(len(records))]
  things = [thing for record in found for thing in record.objects]
  seen = collections.Counter(v for r in found for v in _visibility(r, side))
  unique = [len(objectives.unique_objects(r.objects)) for r in found]
  bare = sum(not r.objects for r in found)
  return Survey(
    images=len(found),
    bare=bare,
    categories=collections.Counter(t.category for t in things),
    sizes=tuple((r.width, r.height) for r in found),
    areas=tuple(a for t in things if (a := _area(t.box)) > 0),
    unique=sum(unique),
    repeated=unique.count(0) - bare,
    tiny=seen["tiny"],
    cut=seen["cut"],
  )


def _area(box) -> float:
  return (box[2] - box[0]) * (box[3] - box[1])


def _visibility(record: Record, side: int) -> Iterator[str]:
  """Yields for each box whether the crop shows it: "seen", "cut", "tiny"."""
  size = record.width, record.height, side
  crop, pad = geometry.center_crop(*size), geometry.pad(*size)
  for thing in record.objects:
    if _area(thing.box) > 0:
      if crop.apply_box(thing.box):
        yield "seen"
      else:
        yield "cut" if pad.apply_box(thing.box) else "tiny"


def describe(found: Survey) -> list[str]:
  """Writes a survey in a few lines."""
  boxes = sum(found.categories.values())
  widths, heights = zip(*found.sizes, strict=True)
  named = found.categories.most_common(_SHOWN)
  shown = ", ".join(f"{name} {count:,}" for name, count in named)
  more = len(found.categories) - len(named)
  small = sum(a < _SMALL for a in found.areas) / max(1, len(found.areas))
  large = sum(a >= _LARGE for a in found.areas) / max(1, len(found.areas))
  return [
    f"pictures: {found.images:,}, {found.bare:,} of them without an object;"
    f" from {min(widths)} x {min(heights)} to {max(widths)} x {max(heights)}"
    f" pixels, median {statistics.median(widths):g} x"
    f" {statistics.median(heights):g}",
    f"boxes: {boxes:,}; {small:.0%} small, {1 - small - large:.0%} medium,"
    f" {large:.0%} large (32 and 96 pixels squared);"
    f" {found.unique:,} the only one of their category in their picture",
    f"categories: {len(found.categories):,}: {shown}"
    + (f" and {more:,} more" if more > 0 else ""),
    f"the center crop would cut away {found.cut:,} boxes"
    f" ({found.cut_share:.1%}); {found.tiny:,} are below a pixel of the"
    " model's square",
  ]


def choose_rows(found: Survey) -> tuple[bool, str]:
  """Chooses between an image for each unique object, and each image once.

  Returns:
    (whether `data.per_object` holds, why).
  """
  there = found.images - found.bare
  said = (
    f"{found.repeated:,} of {there:,} pictures with objects have several of"
    " every category that they show"
  )
  if found.repeated > MOST_REPEATED * there:
    return False, f"each picture is seen once an epoch: {said}"
  return True, f"a picture is seen once for each single object: {said}"


def choose_geometry(found: Survey, own: str) -> tuple[str, str]:
  """Chooses how pictures become squares.

  Args:
    found: what is trained on.
    own: the geometry that the model was trained with.

  Returns:
    (the geometry, why).
  """
  if own != "center_crop":
    return own, f"geometry={own}, the model's own, shows whole pictures"
  if found.cut_share <= MOST_CUT:
    return own, f"geometry={own}, the model's own: it cuts hardly any box away"
  why = f"geometry=pad in place of {own}, which would cut boxes away"
  return "pad", why

"""Writes the pseudo-boxes of panoptic segmentations as a file.

The file has COCO's instances or, of frames, the boxes of videos; `info` says
what it was made by, and of which segmentations.
"""

import dataclasses
import hashlib
import json
import os

from locvlm_jax import files
from locvlm_jax.data.sources import coco
from locvlm_jax.pseudo import comparison, pseudo_boxes, segmentations


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is read, and what becomes of it.

  Attributes:
    panoptic: COCO's panoptic json.
    masks: the folder of its PNGs.
    selection: what becomes of segments.
    videos: whether the images are frames of videos.
    compare: an instances json of the same images, to count disagreements
      with; None for no comparison.
    threads: how many read masks.
  """

  panoptic: str
  masks: str
  selection: pseudo_boxes.Selection
  videos: bool = False
  compare: str | None = None
  threads: int = 2

  def recorded(self) -> dict:
    """Returns what the boxes depend on, as the file says it."""
    selection = dataclasses.asdict(self.selection)
    return {
      "mode": "panoptic",
      "panoptic": self.panoptic,
      "masks": self.masks,
      **selection,
      "categories": list(self.selection.categories),
      "videos": self.videos,
    }


def write(settings: Settings, out: str) -> dict:
  """Writes pseudo-boxes, and returns the summary.

  The summary has the settings, the counts of what was left out and why and, if
  it is asked for, the comparison.

  Raises:
    ValueError: videos are to be compared, or `pseudo_boxes` refuses.
  """
  if settings.compare and settings.videos:
    raise ValueError("--compare is of images; leave it out with --videos.")
  source = segmentations.Segmentations(settings.panoptic, settings.masks)
  content, counts = pseudo_boxes.pseudo_boxes(
    source, settings.selection, settings.threads
  )
  made = pseudo_boxes.by_video(content) if settings.videos else content
  sha256 = _sha256(settings.panoptic)
  info = {"settings": settings.recorded(), "sha256": sha256}
  encoder = json.JSONEncoder(ensure_ascii=False)
  files.write_lines(out, encoder.iterencode({"info": info, **made}))
  if settings.compare:
    counts["compared"] = _compared(out, settings.compare)
  return {**info, **counts}


def _compared(mine: str, real: str) -> dict:
  """Counts the disagreements with the annotations of the same images."""
  folder = os.path.dirname(os.path.abspath(real))  # no image is opened
  return comparison.compare(
    coco.Instances(mine, folder), coco.Instances(real, folder)
  )


def _sha256(path: str) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()

"""Lists of what is in videos, or in images, as a source.

A line each: {"video": "v_abc.mp4", "objects": ["dog", "ball"]}. Where the
objects are is not known. A json file has boxes over frames instead, as
`data/sources/tracks.py` reads them: whatever has one is in the video.
"""

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.records import Object, Record, Source
from locvlm_jax.data.sources import tracks

_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class ObjectLists(Source):
  """Gives one record a video; its objects have no box.

  Args:
    path: the jsonl file, or json of boxes over frames.
    media: the folder that the names of the videos are relative to.

  Raises:
    DataError: a missing or malformed file; names the line.
  """

  def __init__(self, path: str, media: str):
    self.path, self.folder = path, media
    rows = _tracked(path, media)
    if rows is None:
      rows = reading.read_jsonl(path)
    self._records = [self._record(i, row) for i, row in enumerate(rows, 1)]
    self.categories = tuple(
      sorted({o.category for r in self._records for o in r.objects})
    )

  def _record(self, line: int, row: object) -> Record:
    origin = f"{self.path}: line {line}"
    try:
      name, objects = row["video"], row["objects"]
      things = tuple(Object(o.strip().lower(), _NO_BOX) for o in objects)
      if not all(thing.category for thing in things):
        raise KeyError("a name is blank")
    except (KeyError, TypeError, AttributeError):
      raise errors.DataError(
        f'{origin}: wants {{"video": name, "objects": [names]}}.'
      ) from None
    return Record(
      name, reading.image_path(self.folder, name, origin), objects=things
    )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Record:
    return self._records[index]

  def __repr__(self) -> str:
    return f"ObjectLists({self.path!r}, {len(self)} videos)"


def _tracked(path: str, media: str) -> list[dict] | None:
  """Lists what a file of boxes over frames has; None of any other file."""
  if not path.endswith(".json"):
    return None
  found = tracks.Tracks(path, media)
  names = found.files()
  return [
    {"video": name, "objects": [o.category for o in record.objects]}
    for name, record in zip(names, found, strict=True)
  ]

"""Leaves the images of evaluation sets out of what is trained on.

A record is left out where a file of an evaluation set names its image, by an id
(`leakage`), or where the picture itself is one of the tested ones: the same
bytes, whatever its name. The latter needs the pictures of the set.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence

from locvlm_jax import errors
from locvlm_jax.data.exclude import content, leakage
from locvlm_jax.data.formats import recognize
from locvlm_jax.data.records import ImageId, Record, Source


@dataclasses.dataclass(frozen=True)
class TestSet:
  """A file of an evaluation set.

  Attributes:
    path: of the file; or a folder of pictures.
    media: the folder of its pictures; "": not known.
  """

  __test__ = False  # pytest takes the name for one of its own

  path: str
  media: str = ""

  def ids(self, genome: Mapping[str, int | None]) -> frozenset[int | str]:
    """Lists what its images and videos are known by, in every way."""
    if _is_pictures(self.path):
      return frozenset()
    ids = leakage.image_ids(self.path)
    coco = {i for k in ids if (i := genome.get(k)) is not None}
    return ids | coco | {k for k, i in genome.items() if i in ids}

  def pictures(self) -> dict[str, ImageId]:
    """Lists the paths that its pictures and videos may have, with their ids."""
    if _is_pictures(self.path):
      return _listed(self.path)
    media = self.media or leakage.named(self.path).folder
    if not media or not os.path.isdir(media):
      return {}
    known = leakage.named(self.path)
    paths = {os.path.join(media, n): n for n in known.names}
    found = {p: leakage.image_id(n, media) for p, n in paths.items()}
    listed = _listed(media).items()
    return found | {path: i for path, i in listed if i in known.ids}


def _is_pictures(path: str) -> bool:
  """Says whether a path is a folder of pictures, and not one of boxes."""
  return os.path.isdir(path) and not recognize.is_data_set(path)


def _listed(folder: str) -> dict[str, ImageId]:
  """Lists the files of a folder, with what they are known by."""
  found = {}
  for name in (n for n in os.listdir(folder) if not n.startswith(".")):
    known = leakage.image_id(name, folder)
    known = leakage.video_name(name) if known is None else known
    found[os.path.join(folder, name)] = known
  return found


class Tests:
  """Knows the images of all evaluation sets.

  Args:
    tests: the sets.
    genome: Visual Genome's image_data.json; "": not at hand.

  Attributes:
    has_genome: whether it is.
    num_genome: how many tested images may be COCO's as well: those of Visual
      Genome, where it is not.
    absent: the files of the sets whose pictures are not at hand.

  Raises:
    DataError: a file is missing or malformed.
  """

  __test__ = False

  def __init__(self, tests: Sequence[TestSet], genome: str = ""):
    self.has_genome = bool(genome)
    self.absent = ()
    mapping = leakage.genome_in_coco(genome) if genome else {}
    self._ids = {}  # of an image -> the file that has it
    self._files, self._pictures = {}, {}  # path of a picture -> file, id
    for test in tests:
      pictures, ids = test.pictures(), test.ids(mapping)
      self._pictures |= pictures
      self.absent += () if pictures else (test.path,)
      self._ids = dict.fromkeys(ids, test.path) | self._ids
      self._files = dict.fromkeys(pictures, test.path) | self._files
    numbers = () if genome else filter(_is_genome, self._ids)
    self.num_genome = len(list(numbers))

  def __len__(self) -> int:
    return len(self._files)

  def file_with(self, known: ImageId) -> str | None:
    """Names the file that has an image of this id."""
    return self._ids.get(known)

  def files_with(self, paths: Sequence[str], of_coco: bool) -> list[str | None]:
    """Names the file that has a picture of the same bytes, for each path.

    Args:
      paths: of pictures.
      of_coco: they have ids of COCO: a tested picture with another one differs.
    """
    contents = self._nameless if of_coco else self._all
    if not len(contents):
      return [None] * len(paths)
    return [p and self._files[p] for p in contents.find(paths)]

  @functools.cached_property
  def _all(self) -> content.Contents:
    return content.Contents(self._files)

  @functools.cached_property
  def _nameless(self) -> content.Contents:
    """Those of the pictures that no id of COCO is known of."""
    some = [p for p, i in self._pictures.items() if not isinstance(i, int)]
    return content.Contents(some)


@dataclasses.dataclass(frozen=True)
class Found:
  """What is to be left out of a source.

  Attributes:
    by_file: index of the record -> the file that its image is tested by.
    genome: how many others show an image of Visual Genome that may be COCO's.
    tested_genome: how many tested images may be COCO's, where COCO's are
      trained on.
    unknown: how many others show an image that nothing is known of.
    absent: the files whose pictures are not at hand to compare these with.
  """

  by_file: Mapping[int, str]
  genome: int = 0
  tested_genome: int = 0
  unknown: int = 0
  absent: tuple[str, ...] = ()


def find(source: Source, tests: Tests) -> Found:
  """Finds the records of a source about images of evaluation sets."""
  ids = source.image_ids()
  by_file = {i: f for i, k in enumerate(ids) if (f := tests.file_with(k))}
  if len(tests):
    for of_coco in (False, True):
      some = [i for i, k in enumerate(ids) if isinstance(k, int) == of_coco]
      by_file |= _by_content(source, some, tests, of_coco, by_file)
  left = [i for i in range(len(ids)) if i not in by_file]
  known = [ids[i] for i in left]
  shown = source.image_paths([i for i in left if ids[i] is None])
  has_coco = any(isinstance(k, int) for k in known)
  return Found(
    by_file,
    genome=0 if tests.has_genome else sum(map(_is_genome, known)),
    tested_genome=tests.num_genome if has_coco else 0,
    unknown=sum(path is not None for path in shown),
    absent=tests.absent,
  )


def _by_content(
  source: Source, some: Sequence[int], tests: Tests, of_coco: bool, found
) -> dict[int, str]:
  """Finds the records whose picture is a tested one, under another name."""
  some = [i for i in some if i not in found]
  paths = source.image_paths(some)
  shown = [(i, p) for i, p in zip(some, paths, strict=True) if p]
  files = tests.files_with([path for _, path in shown], of_coco)
  return {i: f for (i, _), f in zip(shown, files, strict=True) if f}


def _is_genome(known: ImageId) -> bool:
  return isinstance(known, str) and known.startswith(leakage.GENOME)


class WithoutExcluded(Source):
  """The records of a source that are not about images of evaluation sets."""

  def __init__(self, source: Source, found: Found):
    self._source, self.found = source, found
    self._kept = [i for i in range(len(source)) if i not in found.by_file]
    self.folder, self.categories = source.folder, source.categories
    self.box_counts = source.box_counts
    self.caption_counts = source.caption_counts
    self.broader, self.missing = source.broader, source.missing

  def __len__(self) -> int:
    return len(self._kept)

  def __getitem__(self, index: int) -> Record:
    return self._source[self._kept[index]]

  def image_ids(self) -> list[ImageId]:
    """Lists what the image or video of each record is known by."""
    ids = self._source.image_ids()
    return [ids[i] for i in self._kept]

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' images."""
    return self._source.image_paths([self._kept[i] for i in indices])

  def object_captions(
    self, without: Collection[str] = ()
  ) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Collects the captions of objects in the images that are left."""
    if not self.caption_counts:
      return {}
    excluded = {self._source[i].id for i in self.found.by_file}
    return self._source.object_captions(excluded.union(without))

  def __repr__(self) -> str:
    if not (left_out := len(self.found.by_file)):
      return repr(self._source)
    return (
      f"{self._source!r} less {left_out} records about images of"
      " evaluation sets"
    )


def exclude(
  sources: Mapping[str, Source], tests: Sequence[TestSet], genome: str = ""
) -> dict[str, Source]:
  """Takes the records about images of evaluation sets out of sources.

  Args:
    sources: what is trained on.
    tests: the evaluation sets.
    genome: Visual Genome's image_data.json; "": not at hand.

  Raises:
    DataError: a file is missing or malformed, or nothing of a source is left.
  """
  kept = dict(sources)
  if tests:
    tested = Tests(tests, genome)
    kept = {n: WithoutExcluded(s, find(s, tested)) for n, s in kept.items()}
  if empty := [name for name, source in kept.items() if not len(source)]:
    raise errors.DataError(
      f"data.{empty[0]}: every record is about an image of an evaluation set:"
      " name other files in data.exclude, or set data.exclude_eval to False."
    )
  return kept


def describe(
  sources: Mapping[str, Source], tests: Sequence[TestSet]
) -> list[str]:
  """Says in lines what `exclude` left out, by which file, and what it can't."""
  if not tests:
    return [
      "nothing is left out of training: no evaluation set is named. Name their"
      " files in data.exclude or eval.NAME.questions, or by --exclude."
    ]
  found = {
    name: source
    for name, source in sources.items()
    if isinstance(source, WithoutExcluded)
  }
  lines = [_left_out(*item) for item in found.items() if item[1].found.by_file]
  if not lines:
    paths = ", ".join(test.path for test in tests)
    lines = [f"nothing is left out of training: no image of {paths} is in it"]
  for name, source in found.items():
    lines += _not_checked(name, source.found)
  return lines


def _left_out(name: str, source: WithoutExcluded) -> str:
  by_file = source.found.by_file
  counts = collections.Counter(by_file.values())
  files = ", ".join(f"{n:,} in {path}" for path, n in counts.items())
  return (
    f"left out of training: {len(by_file):,} of {len(source) + len(by_file):,}"
    f" records of {name}, whose images are tested: {files}"
  )


def _not_checked(name: str, found: Found) -> Iterator[str]:
  if found.genome:
    yield (
      f"not checked: {found.genome:,} records of {name} are about images of"
      " Visual Genome, half of which are COCO's; set data.visual_genome to its"
      " image_data.json, which says which"
    )
  if found.tested_genome:
    yield (
      f"not checked: {found.tested_genome:,} tested images are Visual Genome's,"
      f" and may be among COCO's in {name}; data.visual_genome says which"
    )
  if found.unknown and found.absent:
    yield (
      f"not checked: {found.unknown:,} records of {name} show images of unknown"
      " names; to compare them by content the pictures of"
      f" {', '.join(found.absent)} are not at hand (eval.NAME.media, or a"
      " folder in data.exclude)"
    )

"""What a run reads, known by its content, since folders may move.

A checkpoint keeps these hashes. Annotations and the tokenizer count as a whole,
and so do the records that are left out because their images are tested. Of the
pictures and videos, of which there may be millions, a few of each source stand
for all.
"""

import hashlib
import json
import os
from collections.abc import Mapping

from locvlm_jax.config import Config
from locvlm_jax.data import catalog
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.records import Source

_SAMPLES = 4  # records of a source whose pictures are hashed
_BYTES = 1 << 20  # of each
_ABSENT = "-"
# Fields with a path -> the hash that stands for what is there.
FIELDS = {
  **{f"data/{name}": name for name in catalog.SOURCES},
  "data/object_captions": "object_captions",
  "data/exclude": "excluded",
  "data/visual_genome": "excluded",
  "tokenizer": "tokenizer",
  # Last: which pictures are looked at depends on all above.
  **{f"data/{name}": name for _, name in catalog.SOURCES.values()},
}


def of(
  config: Config, sources: Mapping[str, Source], tokenizer: str
) -> dict[str, str]:
  """Hashes what a run trains on.

  Args:
    config: all of it.
    sources: those that it trains on.
    tokenizer: the fingerprint of its tokenizer.

  Returns:
    {one of the values of `FIELDS`: its hash}.
  """
  found = {**catalog.hashes(config.data), "tokenizer": tokenizer}
  if config.data.object_captions and "instances" in sources:
    found["object_captions"] = catalog.file_hash(config.data.object_captions)
  return found | {"excluded": _of_left_out(sources)} | _of_media(sources)


def differ(found: str, stored: str) -> bool:
  """Says whether two hashes are of different contents.

  A picture that was missing then, or is now, tells nothing.
  """
  pairs = list(zip(found.split(), stored.split(), strict=False))
  count = len(found.split()) != len(stored.split())
  return count or any(a != b and _ABSENT not in (a, b) for a, b in pairs)


def _of_left_out(sources: Mapping[str, Source]) -> str:
  """Hashes which records of each source are left out; "": none."""
  left_out = {
    name: sorted(source.found.by_file)
    for name, source in sources.items()
    if isinstance(source, exclusion.WithoutExcluded)
  }
  if not any(left_out.values()):
    return ""
  return _digest(json.dumps(left_out, sort_keys=True).encode())


def _of_media(sources: Mapping[str, Source]) -> dict[str, str]:
  """Hashes some pictures and videos below each folder."""
  found = {}
  for name, source in sources.items():
    folder, last = catalog.SOURCES[name][1], len(source) - 1
    shares = (i / (_SAMPLES - 1) for i in range(_SAMPLES))
    marks = [_of_file(source[round(last * x)].image) for x in shares]
    found.setdefault(folder, []).extend(marks)
  return {folder: " ".join(marks) for folder, marks in found.items()}


def _of_file(path: str | None) -> str:
  """Hashes a file's size and beginning; of a folder of frames, their names."""
  if path and os.path.isdir(path):
    return _digest("\n".join(sorted(os.listdir(path))).encode())
  if not path or not os.path.isfile(path):
    return _ABSENT
  with open(path, "rb") as f:
    return _digest(str(os.path.getsize(path)).encode() + f.read(_BYTES))


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()[:16]

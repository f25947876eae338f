"""LLaVA's and Video-ChatGPT's conversation files as sources.

Format: [{"id", "image", "conversations": [{"from": "human" | "gpt",
"value"}]}], as in `LLaVA:docs/Finetune_Custom_Data.md`; without "image" the
conversation is about text alone. With "video" in its place, before or after
the question: Video-ChatGPT's (`mbzuai-oryx/Video-ChatGPT:scripts/
convert_instruction_json_to_training_format.py`), which is also read as its
authors publish it, [{"video_id", "q", "a"}].
"""

import collections
import json
import os
from collections.abc import Iterator, Sequence

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.cache import rows
from locvlm_jax.data.cache import texts as cached
from locvlm_jax.data.exclude import leakage
from locvlm_jax.data.media import video
from locvlm_jax.data.records import ImageId, Record, Source
from locvlm_jax.data.sources import conversation_boxes, turns


class Conversations(Source):
  """Gives one record a conversation.

  Two of them may have the same "id", as in LLaVA's own files, since nothing
  depends on it. What is left out of them is counted; see `turns`.

  Args:
    path: the json file, or jsonl, as `build_data` writes it.
    images: the folder that "image" is relative to; unused for text alone.

  Attributes:
    left_out: how many messages, turns and records are not used, by reason.
    first_malformed: what is wrong with the first record that is left out as
      malformed; "": none is.

  Raises:
    DataError: a missing or malformed file, a record that is no conversation of
      pairs, or a file name that leads out of the folder; names the record. Or
      no record is left.
  """

  _key = "image"

  def __init__(self, path: str, images: str):
    self.path, self.folder = path, images
    self._rows = rows.read_once(path, type(self).__name__, self._read)
    facts = self._rows.facts
    self.left_out = collections.Counter(facts["left out"])
    # These name a record; the file may have had another path.
    self.boxed, self.first_malformed = (
      facts[key] and f"{path}: {facts[key]}" for key in ("boxed", "malformed")
    )
    if not len(self) and self.left_out["records without a turn"]:
      raise errors.DataError(
        f"{path}: no record has a turn that can be used ({self._told()})."
      )

  def _read(self) -> rows.Rows:
    """Reads the file, checks its records, and keeps those that have a turn."""
    self.left_out, self.boxed, self.first_malformed = (
      collections.Counter(), "", "",
    )  # fmt: skip
    names = []
    texts = cached.Texts.of(self._used(names))
    facts = {
      "left out": dict(self.left_out),
      "boxed": self.boxed.removeprefix(f"{self.path}: "),
      "malformed": self.first_malformed.removeprefix(f"{self.path}: "),
    }
    return rows.Rows(texts, cached.Texts.of(names), facts)

  def _used(self, names: list[str]) -> Iterator[str]:
    """Yields the records that have a turn, as json; adds to `names`."""
    found = reading.each(self.path, "conversations", self._list_key)
    for i, row in enumerate(map(self._conversation, found)):
      if self._use(row, f"{self.path}: record {i}"):
        names.append(row.get(self._key) or "")
        yield _JSON.encode(row)

  _list_key = ""  # under which an object may keep the list

  def _conversation(self, row: object) -> object:
    """Makes a conversation of what the list holds."""
    return row

  def _use(self, row: object, origin: str) -> bool:
    """Checks a record, and says whether it has a turn to train on."""
    reading.field(row, "conversations", origin)
    self._check_name(row, origin)
    found = self._pair(row, origin, self.left_out)
    if not found:
      self.left_out["records without a turn"] += 1
    elif not self.boxed and row.get(self._key) is not None:
      texts = (text for turn in found for text in turn if "[" in text)
      self.boxed = origin if any(map(_has_box, texts)) else ""
    return bool(found)

  def _check_name(self, row: dict, origin: str) -> None:
    name = row.get(self._key)
    if not isinstance(name, str | None):
      raise errors.DataError(
        f"{origin}: {self._key} {name!r:.50} is no file name."
      )
    if name is not None and not reading.stays_inside(name):
      reading.image_path(self.folder, name, origin)

  def _pair(self, row: dict, origin: str, left_out: collections.Counter):
    turns.check_shown(row, self._key, origin)
    return turns.pair(row, origin, left_out)

  def _turns(self, row: dict, index: int):
    return self._pair(
      row, f"{self.path}: record {index}", collections.Counter()
    )

  def __len__(self) -> int:
    return len(self._rows)

  def image_ids(self) -> list[ImageId]:
    """Lists what the image of each record is known by; None: by nothing."""
    names = self._rows.names
    return [leakage.image_id(name or None, self.folder) for name in names]

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' images; None: text alone."""
    names = [self._rows.names[i] for i in indices]
    return [os.path.join(self.folder, n) if n else None for n in names]

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    image = row.get("image")
    if image is not None:
      origin = f"{self.path}: record {row.get('id', index)}"
      image = reading.image_path(self.folder, image, origin)
    return Record(
      id=str(row.get("id", index)), image=image, turns=self._turns(row, index)
    )

  def __repr__(self) -> str:
    told = self._told()
    return (
      f"{type(self).__name__}({self.path!r}, {len(self)} conversations"
      f"{told and f', left out: {told}'})"
    )

  def _told(self) -> str:
    """Lists what was left out."""
    return ", ".join(f"{n} {why}" for why, n in self.left_out.items() if n)


_JSON = json.JSONEncoder(ensure_ascii=False)


def _has_box(text: str) -> bool:
  return bool(conversation_boxes.find_boxes(text))


class Text(Conversations):
  """Gives one record a conversation without an image, as ShareGPT has them.

  Takes the further names of speakers there. A record that is no conversation of
  pairs is left out and counted, since ShareGPT's own files have thousands.
  """

  def _pair(self, row: dict, origin: str, left_out: collections.Counter):
    try:
      turns.check_shown(row, self._key, origin)
      return turns.pair(row, origin, left_out, turns.SHAREGPT)
    except errors.DataError as e:
      left_out["malformed conversations"] += 1
      self.first_malformed = self.first_malformed or str(e)
      return ()

  def _told(self) -> str:
    first = self.first_malformed
    return super()._told() + (first and f", the first: {first}")


class Videos(Conversations):
  """Gives one record a conversation about a video.

  Args:
    path: the json file; a list, or a dict that keeps it under "conversations".
    videos: the folder that "video" is relative to. v_1.pkl, or v_1 alone, is
      the file of that name that is there, as v_1.mkv.

  Raises:
    DataError: as `Conversations`; also a record without a video.
  """

  _key, _list_key = "video", "conversations"

  def __init__(self, path: str, videos: str):
    reading.check_directory(videos, "videos")
    self._files = collections.defaultdict(list)
    for name in sorted(video.listed(videos)):
      if name.lower().endswith(video.FILMS):
        self._files[os.path.splitext(name)[0]].append(name)
    super().__init__(path, videos)

  def _conversation(self, row: object) -> object:
    return _as_conversation(row)

  def _check_name(self, row: dict, origin: str) -> None:
    reading.field(row, "video", origin)
    super()._check_name(row, origin)
    reading.text(row, "video", origin)

  def image_ids(self) -> list[ImageId]:
    """Lists the name of the video that each record is about."""
    return [leakage.video_name(name) for name in self._rows.names]

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' videos."""
    names = [self._file(self._rows.names[i]) for i in indices]
    return [os.path.join(self.folder, name) for name in names]

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    origin = f"{self.path}: record {row.get('id', index)}"
    return Record(
      id=str(row.get("id", index)),
      image=reading.image_path(self.folder, self._file(row["video"]), origin),
      turns=self._turns(row, index),
      is_video=True,
    )

  def _file(self, name: str) -> str:
    stem, suffix = os.path.splitext(name)
    if suffix not in ("", ".pkl") or stem not in self._files:
      return name
    if len(found := self._files[stem]) > 1:
      raise errors.DataError(
        f"{self.path}: video {name!r} can be {' or '.join(found)}. Leave one of"
        f" them in {self.folder}."
      )
    return found[0]


def _as_conversation(row):
  """Turns {"video_id", "q", "a"} into a conversation; others stay."""
  if not isinstance(row, dict) or "video_id" not in row:
    return row
  return {
    "id": row["video_id"],
    "video": row["video_id"],
    "conversations": [
      {"from": "human", "value": row.get("q")},
      {"from": "gpt", "value": row.get("a")},
    ],
  }

"""LLaVA's and Video-ChatGPT's conversation files as sources.

Format: [{"id", "image", "conversations": [{"from": "human" | "gpt",
"value"}]}], as in `LLaVA:docs/Finetune_Custom_Data.md`; without "image" the
conversation is about text alone. With "video" in its place, before or after
the question: Video-ChatGPT's (`mbzuai-oryx/Video-ChatGPT:scripts/
convert_instruction_json_to_training_format.py`), which is also read as its
authors publish it, [{"video_id", "q", "a"}].
"""

import collections
import os
import re
from collections.abc import Sequence

from locvlm_jax import errors
from locvlm_jax.data import leakage, reading
from locvlm_jax.data.media import video
from locvlm_jax.data.records import ImageId, Record, Source, Turn

_PLACEHOLDER = re.compile("<(image|video)>")


def _turns(row: dict, origin: str) -> tuple[Turn, ...]:
  """Pairs the messages of human and gpt, without the placeholder.

  Raises:
    DataError: they do not alternate, or one is no text.
  """
  messages = row["conversations"]
  if not isinstance(messages, list) or len(messages) % 2 or not messages:
    raise errors.DataError(f"{origin}: wants pairs of human and gpt messages.")
  values = []
  for i, message in enumerate(messages):
    speaker = ("human", "gpt")[i % 2]
    if reading.field(message, "from", f"{origin}: message {i}") != speaker:
      raise errors.DataError(f"{origin}: message {i} is not from {speaker!r}.")
    value = reading.field(message, "value", f"{origin}: message {i}")
    if not isinstance(value, str):
      raise errors.DataError(
        f"{origin}: message {i}: {value!r:.50} is no text."
      )
    values.append(_PLACEHOLDER.sub("", value).strip())
  return tuple(zip(values[::2], values[1::2], strict=True))


class Conversations(Source):
  """Gives one record a conversation.

  Two of them may have the same "id", as in LLaVA's own files, since nothing
  depends on it.

  Args:
    path: the json file, or jsonl, as `build_data` writes it.
    images: the folder that "image" is relative to; unused for text alone.

  Raises:
    DataError: a missing or malformed file, a record that is no conversation of
      pairs, or a file name that leads out of the folder; names the record.
  """

  _key = "image"

  def __init__(self, path: str, images: str):
    self.path, self.folder = path, images
    read = reading.read_jsonl if path.endswith(".jsonl") else reading.read_json
    self._rows = self._conversations(read(path))
    if not isinstance(self._rows, list):
      raise errors.DataError(f"{path}: not a list of conversations.")
    for i, row in enumerate(self._rows):
      origin = f"{path}: record {i}"
      reading.field(row, "conversations", origin)
      if self._key == "video":
        reading.field(row, "video", origin)
      name = row.get(self._key)
      if not isinstance(name, str | None):
        raise errors.DataError(
          f"{origin}: {self._key} {name!r:.50} is no file name."
        )
      if name is not None and not reading.stays_inside(name):
        reading.image_path(images, name, origin)
      _turns(row, origin)

  def _conversations(self, content):
    """Finds the list of conversations in what the file holds."""
    return content

  def __len__(self) -> int:
    return len(self._rows)

  def image_ids(self) -> list[ImageId]:
    """Lists what the image of each record is known by; None: by nothing."""
    names = [row.get("image") for row in self._rows]
    return [leakage.image_id(name, self.folder) for name in names]

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' images; None: text alone."""
    names = [self._rows[i].get("image") for i in indices]
    return [name and os.path.join(self.folder, name) for name in names]

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    origin = f"{self.path}: record {row.get('id', index)}"
    image = row.get("image")
    if image is not None:
      image = reading.image_path(self.folder, image, origin)
    return Record(
      id=str(row.get("id", index)), image=image, turns=_turns(row, origin)
    )

  def __repr__(self) -> str:
    return f"Conversations({self.path!r}, {len(self)} conversations)"


class Videos(Conversations):
  """Gives one record a conversation about a video.

  Args:
    path: the json file; a list, or a dict that keeps it under "conversations".
    videos: the folder that "video" is relative to. v_1.pkl, or v_1 alone, is
      the file of that name that is there, as v_1.mkv.

  Raises:
    DataError: as `Conversations`; also a record without a video.
  """

  _key = "video"

  def __init__(self, path: str, videos: str):
    reading.check_directory(videos, "videos")
    self._files = collections.defaultdict(list)
    for name in sorted(video.listed(videos)):
      if name.lower().endswith(video.FILMS):
        self._files[os.path.splitext(name)[0]].append(name)
    super().__init__(path, videos)

  def _conversations(self, content):
    if isinstance(content, dict):
      content = reading.section(content, "conversations", self.path)
    return list(map(_as_conversation, content))

  def image_ids(self) -> list[ImageId]:
    """Lists the name of the video that each record is about."""
    return [leakage.video_name(row["video"]) for row in self._rows]

  def image_paths(self, indices: Sequence[int]) -> list[str | None]:
    """Lists the files of these records' videos."""
    names = [self._file(self._rows[i]["video"]) for i in indices]
    return [os.path.join(self.folder, name) for name in names]

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    origin = f"{self.path}: record {row.get('id', index)}"
    return Record(
      id=str(row.get("id", index)),
      image=reading.image_path(self.folder, self._file(row["video"]), origin),
      turns=_turns(row, origin),
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

  def __repr__(self) -> str:
    return f"Videos({self.path!r}, {len(self)} conversations)"


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

"""LLaVA's conversation files as a source.

Format: [{"id", "image", "conversations": [{"from": "human" | "gpt",
"value"}]}], as in `LLaVA:docs/Finetune_Custom_Data.md`; without "image" the
conversation is about text alone.
"""

from locvlm_jax.data import batch, coco, leakage

_PLACEHOLDER = "<image>"


def _turns(row: dict, origin: str) -> tuple[batch.Turn, ...]:
  """Pairs of human and gpt messages, without the image placeholder."""
  messages = row["conversations"]
  if not isinstance(messages, list) or len(messages) % 2:
    raise batch.DataError(f"{origin}: wants pairs of human and gpt messages.")
  values = []
  for i, message in enumerate(messages):
    speaker = ("human", "gpt")[i % 2]
    if coco.field(message, "from", f"{origin}: message {i}") != speaker:
      raise batch.DataError(f"{origin}: message {i} is not from {speaker!r}.")
    value = coco.field(message, "value", f"{origin}: message {i}")
    if not isinstance(value, str):
      raise batch.DataError(f"{origin}: message {i}: {value!r:.50} is no text.")
    values.append(value.replace(_PLACEHOLDER, "").strip())
  return tuple(zip(values[::2], values[1::2], strict=True))


class Conversations:
  """One record a conversation.

  Args:
    path: the json file, or jsonl, as `build_data` writes it.
    images: the folder that "image" is relative to; unused for text alone.
  """

  def __init__(self, path: str, images: str):
    self.path, self.images = path, images
    read = coco.read_jsonl if path.endswith(".jsonl") else coco.read_json
    self._rows = read(path)
    if not isinstance(self._rows, list):
      raise batch.DataError(f"{path}: not a list of conversations.")
    for i, row in enumerate(self._rows):
      coco.field(row, "conversations", f"{path}: record {i}")
      if not isinstance(row.get("image"), str | None):
        raise batch.DataError(
          f"{path}: record {i}: image {row['image']!r:.50} is no file name."
        )

  def __len__(self) -> int:
    return len(self._rows)

  def image_ids(self) -> list[int | None]:
    """The COCO image that each record is about, if it is about one."""
    return [leakage.coco_id(row.get("image") or "") for row in self._rows]

  def __getitem__(self, index: int) -> batch.Record:
    row = self._rows[index]
    origin = f"{self.path}: record {row.get('id', index)}"
    image = row.get("image")
    if image is not None:
      image = coco.image_path(self.images, image, origin)
    return batch.Record(
      id=str(row.get("id", index)), image=image, turns=_turns(row, origin)
    )

  def __repr__(self) -> str:
    return f"Conversations({self.path!r}, {len(self)} conversations)"

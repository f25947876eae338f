"""Pairs the messages of a conversation file: questions with their answers.

A file has [{"from": "human" | "gpt", "value"}] of each conversation. What real
files have that is odd and yet not wrong is left out, and counted:

  an answer of no words      with its question; "<image>" alone is no word
  a first message of gpt     what it answers is not there
  a last message of human    nobody answers it

as LLaVA's own reader does (`LLaVA:llava/train/train.py`), but for the first,
which it trains on.
"""

import collections
import re
from collections.abc import Mapping

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.records import Turn

_PLACEHOLDER = re.compile("<(image|video)>")
_PLACE = re.compile(r"^<(image|video)>|<(image|video)>$")
_SPEAKERS = {"human": "human", "gpt": "gpt"}
# Further names of both in ShareGPT's files; "system" is left out.
SHAREGPT = _SPEAKERS | {
  "user": "human", "assistant": "gpt", "chatgpt": "gpt", "bard": "gpt",
  "bing": "gpt", "system": "",
}  # fmt: skip


def pair(
  row: Mapping,
  origin: str,
  left_out: collections.Counter,
  speakers: Mapping[str, str] = _SPEAKERS,
) -> tuple[Turn, ...]:
  """Pairs the messages of human and gpt, without the image's placeholder.

  Args:
    row: a record with "conversations".
    origin: file and record, for messages.
    left_out: receives how many of what was left out.
    speakers: "human", "gpt" or "" for each name of a speaker; messages of ""
      are left out.

  Returns:
    The turns; none where every answer is empty.

  Raises:
    DataError: they do not alternate, or one is no text.
  """
  messages = row["conversations"]
  if not isinstance(messages, list) or not messages:
    raise errors.DataError(f"{origin}: wants pairs of human and gpt messages.")
  said = [
    _message(m, f"{origin}: message {i}", speakers)
    for i, m in enumerate(messages)
  ]
  said = [m for m in said if m[0]]
  first = int(len(said) > 2 and said[0][0] == "gpt")
  last = len(said) - (len(said) - first) % 2
  for i, (speaker, _) in enumerate(said[first:last]):
    if speaker != ("human", "gpt")[i % 2]:
      want = ("human", "gpt")[i % 2]
      raise errors.DataError(f"{origin}: message {i} is not from {want!r}.")
  if last <= first:
    raise errors.DataError(f"{origin}: wants pairs of human and gpt messages.")
  values = [value for _, value in said[first:last]]
  found = tuple(zip(values[::2], values[1::2], strict=True))
  kept = tuple(turn for turn in found if turn[1])
  left_out["messages without a partner"] += len(said) - (last - first)
  left_out["turns with an empty answer"] += len(found) - len(kept)
  return kept


def check_shown(row: Mapping, key: str, origin: str) -> None:
  """Refuses a picture that the text has a place for and the record lacks.

  The place is a placeholder that begins or ends a message of the human;
  elsewhere "<image>" may be a word of the text.

  Args:
    row: a record with "conversations".
    key: "image" or "video", where the name of its file has to be.
    origin: file and record, for messages.

  Raises:
    DataError: there is such a place, and no file.
  """
  messages = row["conversations"]
  if row.get(key) is not None or not isinstance(messages, list):
    return
  for message in messages:
    if not isinstance(message, dict) or message.get("from") == "gpt":
      continue
    text = message.get("value")
    if isinstance(text, str) and (found := _PLACE.search(text.strip())):
      others = ", ".join(repr(k) for k in row if k != "conversations")
      raise errors.DataError(
        f"{origin}: its text has {found[0].strip()}, and the record names no"
        f" file under {key!r}: it has {others}. It would be trained on unseen."
      )


def _message(
  message: object, origin: str, speakers: Mapping[str, str]
) -> tuple[str, str]:
  """Reads (speaker, text) of a message."""
  name = reading.field(message, "from", origin)
  value = reading.field(message, "value", origin)
  if not isinstance(value, str):
    raise errors.DataError(f"{origin}: {value!r:.50} is no text.")
  if not isinstance(name, str) or name not in speakers:
    raise errors.DataError(
      f"{origin}: from {name!r:.50} is none of {', '.join(speakers)}."
    )
  value = _PLACEHOLDER.sub("", value) if "<" in value else value
  return speakers[name], value.strip()

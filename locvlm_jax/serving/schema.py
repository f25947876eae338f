"""Reads the body of a chat completion, and describes it.

What would change an answer and is not done here is refused by name; what says
nothing about the answer (a user's name, metadata) is let pass.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from locvlm_jax.serving.limits import Limits, Refused, invalid

LOCATIONS = ("native", "pixels", "0-1", "0-999")
FORMS = ("text", "json")
MOST_STOPS, MOST_LIKELY = 4, 20
_TEXT = 100_000  # characters of one text, far beyond any prompt_tokens

# What may be sent as long as it asks for nothing.
NEUTRAL = {
  "frequency_penalty": (0,),
  "presence_penalty": (0,),
  "logit_bias": ({},),
  "tools": ([],),
  "functions": ([],),
  "tool_choice": ("none", "auto"),
  "parallel_tool_calls": (True, False),
  "response_format": ({"type": "text"},),
  "modalities": (["text"],),
}
IGNORED = (
  "user", "metadata", "store", "service_tier", "safety_identifier",
  "prompt_cache_key",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chat:
  """A chat completion that is asked for.

  Attributes:
    model: its name.
    turns: (question, answer) of the turns before.
    question: the one to be answered.
    pictures: data URIs, in their order.
    max_tokens: of an answer; None: as many as there may be.
    temperature, top_p, seed, n, stop, stream: OpenAI's; temperature 0 unless
      another is given.
    usage: whether a stream ends with its counts.
    logprobs: whether tokens come with their log-probabilities.
    top_logprobs: likeliest tokens at each place.
    locations: what boxes in the texts are counted in, one of LOCATIONS.
    form: one of FORMS.
    constrained: whether the answer has to be one legal location.
  """

  model: str
  turns: tuple[tuple[str, str], ...]
  question: str
  pictures: tuple[str, ...]
  max_tokens: int | None = None
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int | None = None
  n: int = 1
  stop: tuple[str, ...] = ()
  stream: bool = False
  usage: bool = False
  logprobs: bool = False
  top_logprobs: int = 0
  locations: str = "native"
  form: str = "text"
  constrained: bool = False


def parse(body: bytes, limits: Limits) -> Chat:
  """Reads a body.

  Raises:
    Refused: names the field that is wrong.
  """
  found = _object(body)
  _check_names(found)
  turns, question, pictures = _conversation(found.get("messages"), limits)
  given = {k: v for k, v in found.items() if v is not None}
  if not isinstance(model := given.get("model"), str):
    raise invalid("model", "name the model, as /v1/models does")
  chat = Chat(
    model,
    turns,
    question,
    pictures,
    max_tokens=_max_tokens(given, limits),
    temperature=_number(given, "temperature", 0.0, 0.0, 2.0),
    top_p=_number(given, "top_p", 1.0, 1e-6, 1.0),
    seed=_integer(given, "seed", None, -(2**63), 2**63 - 1),
    n=_integer(given, "n", 1, 1, limits.choices),
    stop=_stop(given.get("stop")),
    stream=_boolean(given, "stream"),
    usage=_usage(given),
    logprobs=_boolean(given, "logprobs"),
    top_logprobs=_integer(given, "top_logprobs", 0, 0, MOST_LIKELY),
    locations=_word(given, "locations", LOCATIONS),
    form=_word(given, "as", FORMS),
    constrained=_boolean(given, "constrained"),
  )
  _check_together(chat)
  return chat


def _check_together(chat: Chat) -> None:
  if chat.top_logprobs and not chat.logprobs:
    raise invalid("top_logprobs", "needs logprobs: true")
  if not chat.constrained:
    return
  if chat.temperature or chat.n > 1 or chat.logprobs or chat.stop:
    raise invalid(
      "constrained", "goes with temperature 0, n 1, no logprobs and no stop"
    )


def _object(body: bytes) -> dict[str, Any]:
  def refuse(word: str):
    raise ValueError(f"{word} is no json")

  try:
    found = json.loads(body, parse_constant=refuse)
  except (ValueError, RecursionError) as error:
    reason = str(error)[:200] or "nested too deep"
    raise Refused(400, "invalid_json", f"the body is no json: {reason}") from (
      None
    )
  if not isinstance(found, dict):
    raise Refused(400, "invalid_json", "the body is no json object")
  return found


_KNOWN = (
  "model", "messages", "max_tokens", "max_completion_tokens", "temperature",
  "top_p", "seed", "n", "stop", "stream", "stream_options", "logprobs",
  "top_logprobs", "locations", "as", "constrained",
)  # fmt: skip


def _check_names(found: Mapping[str, Any]) -> None:
  """Refuses what is not known, or asks for what is not done."""
  for name, value in found.items():
    if name in _KNOWN or name in IGNORED or value is None:
      continue
    if name not in NEUTRAL:
      message = f"{name[:60]!r}: no such field"
      raise Refused(400, "unknown_parameter", message, name[:60])
    if value not in NEUTRAL[name]:
      message = f"{name} is not supported; leave it out"
      raise Refused(400, "unsupported_parameter", message, name)


# ------------------------------------------------------------------- fields


def _is_number(value: Any) -> bool:
  if isinstance(value, float):
    return math.isfinite(value)  # a whole number may have too many digits
  return isinstance(value, int) and not isinstance(value, bool)


def _number(given, name: str, default: float, low: float, high: float) -> float:
  value = given.get(name, default)
  if not _is_number(value) or not low <= value <= high:
    raise invalid(name, f"give a number from {low:g} to {high:g}")
  return float(value)


def _integer(given, name: str, default: int | None, low: int, high: int):
  value = given.get(name, default)
  if value is default:
    return value
  if not _is_number(value) or int(value) != value or not low <= value <= high:
    raise invalid(name, f"give a whole number from {low} to {high}")
  return int(value)


def _boolean(given, name: str) -> bool:
  value = given.get(name, False)
  if not isinstance(value, bool):
    raise invalid(name, "give true or false")
  return value


def _word(given, name: str, allowed: tuple[str, ...]) -> str:
  value = given.get(name, allowed[0])
  if value not in allowed:
    raise invalid(name, f"give one of {', '.join(allowed)}")
  return value


def _max_tokens(given, limits: Limits) -> int | None:
  """The newer name counts where both are given."""
  found = None
  for name in ("max_tokens", "max_completion_tokens"):
    found = _integer(given, name, found, 1, limits.new_tokens)
  return found


def _stop(value: Any) -> tuple[str, ...]:
  texts = [value] if isinstance(value, str) else value or []
  is_list = isinstance(texts, list) and len(texts) <= MOST_STOPS
  if not is_list or not all(isinstance(t, str) and t for t in texts):
    raise invalid("stop", f"give a text, or at most {MOST_STOPS}, none empty")
  return tuple(_text(t, "stop") for t in texts)


def _usage(given) -> bool:
  options = given.get("stream_options", {})
  if not isinstance(options, dict):
    raise invalid("stream_options", "give an object")
  if options and not given.get("stream"):
    raise invalid("stream_options", "needs stream: true")
  if unknown := options.keys() - {"include_usage", "include_obfuscation"}:
    raise invalid("stream_options", f"no such option: {sorted(unknown)[0]!r}")
  given_ = {k: v for k, v in options.items() if v is not None}
  return _boolean(given_, "include_usage")


# ------------------------------------------------------------- conversation


def _conversation(messages: Any, limits: Limits):
  """(turns before, question, pictures) of the messages."""
  if not isinstance(messages, list) or not messages:
    raise invalid("messages", "give a list that ends with a user's message")
  talk = _Talk()
  for i, message in enumerate(messages):
    where = f"messages[{i}]"
    role, content = _message(message, where)
    talk.add(role, content, where)
  if role != "user" or not talk.has_text:
    raise invalid(where, "the last message is a user's, with a question")
  if len(talk.pictures) > limits.pictures:
    raise Refused(
      400,
      "too_many_pictures",
      f"{len(talk.pictures)} pictures: a conversation has {limits.pictures} at"
      " most",
      "messages",
    )
  return tuple(talk.turns), "\n".join(talk.waiting), tuple(talk.pictures)


class _Talk:
  """The messages so far.

  A system's text goes before the first question: the models know no other
  place for it. Questions that follow one another are one.
  """

  def __init__(self):
    self.turns: list[tuple[str, str]] = []
    self.waiting: list[str] = []  # for an answer
    self.pictures: list[str] = []
    self.has_text = False  # the last message

  def add(self, role: str, content: Any, where: str) -> None:
    """Adds a message."""
    if role == "assistant":
      self._answer(_joined(content, where, None), where)
      return
    is_system = role in ("system", "developer")
    if is_system and (self.turns or self.waiting):
      raise invalid(where, "a system's message comes first")
    text = _joined(content, where, None if is_system else self.pictures).strip()
    self.has_text = bool(text)
    self.waiting += [text] if text else []

  def _answer(self, text: str, where: str) -> None:
    if not self.waiting or not text.strip():
      raise invalid(where, "an answer needs a text, and a question before it")
    self.turns.append(("\n".join(self.waiting), text))
    self.waiting = []


def _message(message: Any, where: str) -> tuple[str, Any]:
  roles = ("system", "developer", "user", "assistant")
  if not isinstance(message, dict):
    raise invalid(where, "give an object with role and content")
  role = message.get("role")
  if not isinstance(role, str) or role not in roles:
    raise invalid(f"{where}.role", f"give one of {', '.join(roles)}")
  for name in ("tool_calls", "function_call", "audio"):
    if message.get(name):
      raise invalid(f"{where}.{name}", "is not supported")
  return role, message.get("content")


def _joined(content: Any, where: str, pictures: list[str] | None) -> str:
  """The text of a message; its pictures are added to `pictures`."""
  if isinstance(content, str):
    return _text(content, where)
  if not isinstance(content, list):
    raise invalid(f"{where}.content", "give a text, or a list of parts")
  texts = []
  for k, part in enumerate(content):
    place = f"{where}.content[{k}]"
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
      texts.append(_text(part["text"], place))
    elif kind == "image_url" and pictures is not None:
      pictures.append(_uri(part.get("image_url"), place))
    else:
      raise invalid(place, "give a text, or a user's image_url")
  return "\n".join(t.strip() for t in texts if t.strip())


def _uri(value: Any, where: str) -> str:
  uri = value.get("url") if isinstance(value, dict) else value
  if not isinstance(uri, str):
    raise invalid(where, 'give {"url": "data:image/png;base64,..."}')
  if not re.match(r"data:", uri[:5], re.I):
    raise Refused(
      400,
      "url_not_allowed",
      f"{where}: only data: URIs are read, no address and no file",
      "messages",
    )
  return uri


def _text(text: str, where: str) -> str:
  if len(text) > _TEXT:
    message = f"{where}: a text of {len(text)} characters"
    raise Refused(400, "context_length_exceeded", message, "messages")
  try:
    text.encode()
  except UnicodeEncodeError:
    raise invalid(where, "half of a character's surrogates stands alone") from (
      None
    )
  return text


# -------------------------------------------------------------- description


def json_schema(limits: Limits, models: list[str]) -> dict[str, Any]:
  """Describes a body by the same bounds, for OpenAPI."""
  text = {"type": "string", "minLength": 1, "maxLength": 1000}
  url = {"type": "string", "pattern": r"^data:image/[a-z]+;base64,"}
  picture = _closed({"type": {"enum": ["image_url"]}, "image_url": None})
  picture["properties"]["image_url"] = _closed({"url": url})
  part = {"oneOf": [_closed({"type": {"enum": ["text"]}, "text": text})]}
  part["oneOf"].append(picture)
  content = {"oneOf": [text, {"type": "array", "items": part, "minItems": 1}]}
  roles = {"enum": ["system", "user", "assistant"]}
  message = _closed({"role": roles, "content": content})
  tokens = {"type": "integer", "minimum": 1, "maximum": limits.new_tokens}
  properties = {
    "model": {"enum": models},
    "messages": {"type": "array", "minItems": 1, "items": message},
    "max_tokens": tokens,
    "max_completion_tokens": tokens,
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 1e-6, "maximum": 1},
    "seed": {"type": "integer"},
    "n": {"type": "integer", "minimum": 1, "maximum": limits.choices},
    "stop": {"type": "array", "items": text, "maxItems": MOST_STOPS},
    "stream": {"type": "boolean"},
    "logprobs": {"type": "boolean"},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": MOST_LIKELY},
    "locations": {"enum": list(LOCATIONS)},
    "as": {"enum": list(FORMS)},
    "constrained": {"type": "boolean"},
  }
  found = _closed(properties)
  found["required"] = ["model", "messages"]
  return found


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
  """An object that has these properties and no other."""
  return {
    "type": "object",
    "properties": dict(properties),
    "required": list(properties),
    "additionalProperties": False,
  }

"""Server-sent events: an answer in pieces, in OpenAI's form.

What is sent can't be taken back, so a piece waits until it is sure: a box until
its bracket is closed, since it may have to be counted in other units, and what
could be the beginning of a stop until it is or is none.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from locvlm_jax.serving import chat as chat_lib
from locvlm_jax.serving import locations
from locvlm_jax.serving.chat import Asked, Served
from locvlm_jax.serving.limits import Refused, error_body
from locvlm_jax.serving.rows import Part


async def events(
  served: Served, asked: Asked, gone: asyncio.Event
) -> AsyncIterator[bytes]:
  """Yields the events of a stream, the last one "[DONE]".

  What goes wrong after the first one is an event too.

  Raises:
    Refused: before the first one.
  """
  pieces = [_Pieces(served, asked) for _ in asked.rows]
  last: list[Part] = [Part("", 0, "")] * len(asked.rows)

  def event(i: int, delta: dict, part: Part | None = None, tokens=()) -> bytes:
    choice = {
      "index": i,
      "delta": delta,
      "finish_reason": part.finish if part else None,
      "logprobs": chat_lib.logprobs(asked, tokens) if tokens else None,
    }
    return _event(_with_usage(asked, chat_lib.chunk(served, asked, [choice])))

  is_begun = False
  try:
    async for i, part in chat_lib.answers(served, asked, gone):
      for k in () if is_begun else range(len(asked.rows)):
        yield event(k, {"role": "assistant", "content": ""})
      is_begun, last[i] = True, part
      text, tokens = pieces[i].new(part)
      if text:
        yield event(i, {"content": text}, tokens=tokens)
      if part.finish:
        boxes = chat_lib.boxes_of(served, asked, part)
        yield event(i, {"boxes": boxes}, part)
  except Exception as error:
    if not is_begun:
      raise
    yield _event(_body(error))
    return
  if asked.chat.usage:
    end = chat_lib.chunk(served, asked, [])
    yield _event({**end, "usage": chat_lib.usage(asked, last)})
  yield b"data: [DONE]\n\n"


def _body(error: Exception) -> dict[str, Any]:
  if isinstance(error, Refused):
    return error.body
  return error_body(500, "internal_error", "the answer failed")


def _with_usage(asked: Asked, chunk: dict[str, Any]) -> dict[str, Any]:
  """Every chunk has the field where the last one has counts."""
  return {**chunk, "usage": None} if asked.chat.usage else chunk


def _event(value: dict[str, Any]) -> bytes:
  return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


class _Pieces:
  """Cuts one growing answer into pieces that stay."""

  def __init__(self, served: Served, asked: Asked):
    self._served, self._asked = served, asked
    self._sent, self._tokens = "", 0

  def new(self, part: Part) -> tuple[str, Sequence]:
    """Returns what can be sent by now, and the tokens that came with it."""
    text = self._sure(part)
    if not text.startswith(self._sent) or text == self._sent:
      return "", ()
    piece = text[len(self._sent) :]
    tokens = part.tokens[self._tokens :]
    self._sent, self._tokens = text, len(part.tokens)
    return piece, tokens

  def _sure(self, part: Part) -> str:
    if self._asked.chat.form == "json":
      if not part.finish:
        return ""
      return chat_lib.message(self._served, self._asked, part)["content"]
    text = part.text
    if not part.finish:
      text = locations.complete(text.rstrip("\ufffd"))
      for stop in self._asked.chat.stop:
        text = _without_beginning(text, stop)
      text = text.rstrip()
    return self._asked.view.to_client(text)


def _without_beginning(text: str, stop: str) -> str:
  """Cuts off an end that could become a stop."""
  for length in range(min(len(stop) - 1, len(text)), 0, -1):
    if text.endswith(stop[:length]):
      return text[:-length]
  return text

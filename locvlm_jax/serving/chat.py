"""From a chat that is asked for to OpenAI's objects, by way of the batcher."""

import asyncio
import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from PIL import Image

from locvlm_jax.data import geometry
from locvlm_jax.inference.question import Question
from locvlm_jax.serving import data_uris, locations
from locvlm_jax.serving.batching import Batcher, Job
from locvlm_jax.serving.limits import Limits, Refused, invalid
from locvlm_jax.serving.rows import DETAILED, GREEDY, LISTED, LOCATED, Part, Row
from locvlm_jax.serving.schema import Chat


@dataclasses.dataclass(frozen=True)
class Served:
  """What is served, and what answers.

  Attributes:
    name: of the model.
    created: when it was loaded, in seconds of Unix time.
    spec: how the model is asked: a `data.rows.RowSpec`.
    writer: counts prompts; see `writer.Writer`.
    batcher: answers.
    limits: of requests.
    lists: whether it lists all objects of a category.
    calibrations: what the probability of a box is worth, by the kind of its
      row; None: not known.
  """

  name: str
  created: int
  spec: Any
  writer: Any
  batcher: Batcher
  limits: Limits
  lists: bool = False
  calibrations: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Asked:
  """A chat that is ready to be answered.

  Attributes:
    chat: what was asked for.
    id: of the completion.
    rows: one for each choice.
    view: of its locations.
    prompt_tokens: of the prompt.
    created: when, in seconds of Unix time.
  """

  chat: Chat
  id: str
  rows: tuple[Row, ...]
  view: locations.View
  prompt_tokens: int
  created: int


def prepare(served: Served, chat: Chat) -> Asked:
  """Reads the pictures of a chat and puts it as the model is asked.

  Raises:
    Refused: a limit is exceeded, or a picture or location can't be used.
  """
  if chat.model != served.name:
    message = f"model {chat.model[:80]!r}: {served.name!r} is served"
    raise Refused(404, "model_not_found", message, "model")
  pictures = [data_uris.read(uri, served.limits) for uri in chat.pictures]
  view = view_of(served, chat.locations, pictures)
  question = Question(
    "0",
    tuple(square(served, picture) for picture in pictures) or None,
    view.to_model(chat.question),
    tuple((view.to_model(q), view.to_model(a, True)) for q, a in chat.turns),
    listed=_listed(served, chat),
  )
  rows = tuple(_row(served, chat, question, i) for i in range(chat.n))
  text, most = served.writer.text_tokens(rows[0]), served.limits.prompt_tokens
  if text > most:
    message = f"the conversation has {text} tokens besides its pictures; {most}"
    raise Refused(
      400, "context_length_exceeded", f"{message} are allowed", "messages"
    )
  id_ = f"chatcmpl-{secrets.token_hex(12)}"
  tokens = served.writer.count(question)
  return Asked(chat, id_, rows, view, tokens, int(time.time()))


def view_of(
  served: Served, kind: str, pictures: Sequence[Image.Image]
) -> locations.View:
  """Makes the view of a conversation's locations.

  Raises:
    Refused: it is to count in a picture, and there is not just one.
  """
  if kind != "native" and len(pictures) != 1:
    raise invalid(
      "locations", f"{kind} needs one picture to count in, not {len(pictures)}"
    )
  transform = None
  if len(pictures) == 1:
    spec = served.spec
    transform = geometry.make(spec.geometry, *pictures[0].size, spec.image_size)
  return locations.View(served.spec.coords, transform, kind)


def square(served: Served, picture: Image.Image) -> Image.Image:
  """Makes of a picture what the model sees; of that, it makes the same."""
  spec = served.spec
  how = geometry.make(spec.geometry, *picture.size, spec.image_size)
  return Image.fromarray(how.apply_image(picture))


def _row(served: Served, chat: Chat, question: Question, i: int) -> Row:
  """The row of one choice; each draws by a key of its own."""
  kind = DETAILED if chat.temperature > 0 or chat.logprobs else GREEDY
  if chat.constrained:
    kind = LISTED if question.listed else LOCATED
  seed = secrets.randbits(31) if chat.seed is None else chat.seed % 2**31
  return Row(
    dataclasses.replace(question, id=str(i)),
    kind,
    temperature=chat.temperature,
    top_p=chat.top_p,
    seed=seed,
    limit=chat.max_tokens or served.limits.new_tokens,
    stop=chat.stop,
  )


def _listed(served: Served, chat: Chat) -> tuple[str, ...]:
  """The categories of which every object is asked for, in legal lists.

  Raises:
    Refused: there are too many, or the model does not list.
  """
  names = locations.listed(chat.question) if chat.constrained else ()
  if names and not served.lists:
    raise Refused(
      400,
      "lists_not_served",
      "constrained: this model was not trained to list all objects"
      " (data.objectives.detect); ask without constrained, or for one object",
      "constrained",
    )
  if len(names) > (most := served.limits.categories):
    message = f"{len(names)} categories: {most} at most are listed in an answer"
    raise Refused(400, "too_many_categories", message, "messages")
  return names


async def answers(
  served: Served, asked: Asked, gone: asyncio.Event
) -> AsyncIterator[tuple[int, Part]]:
  """Yields the number of a choice and what there is of it, as they grow.

  Args:
    served: what answers.
    asked: what is asked.
    gone: is set when nobody waits any more; then it ends early.

  Raises:
    Refused: the queue is full, or it takes too long.
  """
  loop, parts = asyncio.get_running_loop(), asyncio.Queue()

  def teller(i: int):
    def tell(part: Part | Exception) -> None:
      with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(parts.put_nowait, (i, part))

    return tell

  row = asked.rows[0]
  jobs = [
    Job(row_, served.writer.is_long(row), asked.prompt_tokens, teller(i))
    for i, row_ in enumerate(asked.rows)
  ]
  served.batcher.add(jobs)
  left, until = len(jobs), loop.time() + served.limits.seconds
  try:
    while left and not gone.is_set():
      i, part = await _next(parts, gone, until - loop.time(), served.limits)
      if isinstance(part, Exception):
        raise part
      if part is not None:
        left -= bool(part.finish)
        yield i, part
  finally:
    for job in jobs:
      job.is_left = True


async def _next(
  parts: asyncio.Queue, gone: asyncio.Event, seconds: float, limits: Limits
):
  """The next part, or (0, None) when the client is gone."""
  waits = [
    asyncio.ensure_future(parts.get()),
    asyncio.ensure_future(gone.wait()),
  ]
  try:
    done, _ = await asyncio.wait(
      waits, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED
    )
  finally:
    for wait in waits:
      wait.cancel()
  if waits[0] in done:
    return waits[0].result()
  if waits[1] in done:
    return 0, None
  message = f"not answered within {limits.seconds:g} s"
  raise Refused(408, "request_timeout", message)


# ------------------------------------------------------------------ objects


def message(served: Served, asked: Asked, part: Part) -> dict[str, Any]:
  """Makes the message of a complete answer, with its boxes."""
  boxes = boxes_of(served, asked, part)
  text = asked.view.to_client(part.text)
  if asked.chat.form == "json":
    text = json.dumps({"answer": text, "boxes": boxes}, ensure_ascii=False)
  return {
    "role": "assistant", "content": text, "refusal": None, "boxes": boxes
  }  # fmt: skip


def boxes_of(served: Served, asked: Asked, part: Part) -> list[dict[str, Any]]:
  """Lists the boxes of an answer, with the IoU to expect where it is known."""
  known, scores = served.calibrations.get(asked.rows[0].kind), []
  if known:
    scores = [round(known.expected(p), 3) for p in part.probabilities]
  return asked.view.boxes(asked.chat.question, part.text, scores)


def completion(
  served: Served, asked: Asked, parts: Sequence[Part]
) -> dict[str, Any]:
  """Makes the object that answers a request that is not streamed."""
  choices = [
    {
      "index": i,
      "message": message(served, asked, part),
      "finish_reason": part.finish,
      "logprobs": logprobs(asked, part.tokens),
    }
    for i, part in enumerate(parts)
  ]
  return {
    **_frame(served, asked, "chat.completion"),
    "choices": choices,
    "usage": usage(asked, parts),
  }


def usage(asked: Asked, parts: Sequence[Part]) -> dict[str, int]:
  """Counts tokens: those of pictures too, and those of all choices."""
  written = sum(part.num_tokens for part in parts)
  return {
    "prompt_tokens": asked.prompt_tokens,
    "completion_tokens": written,
    "total_tokens": asked.prompt_tokens + written,
  }


def logprobs(asked: Asked, tokens: Sequence) -> dict[str, Any] | None:
  """Describes tokens, if their probabilities were asked for."""
  if not asked.chat.logprobs:
    return None
  most = asked.chat.top_logprobs

  def one(text: str, value: float) -> dict[str, Any]:
    return {
      "token": text, "logprob": value, "bytes": list(text.encode())
    }  # fmt: skip

  content = [
    {
      **one(token.text, token.log_probability),
      "top_logprobs": [one(*pair) for pair in token.likely[:most]],
    }
    for token in tokens
  ]
  return {"content": content, "refusal": None}


def _frame(served: Served, asked: Asked, kind: str) -> dict[str, Any]:
  return {
    "id": asked.id,
    "object": kind,
    "created": asked.created,
    "model": served.name,
    "system_fingerprint": None,
  }


def chunk(
  served: Served, asked: Asked, choices: list[dict[str, Any]]
) -> dict[str, Any]:
  """Makes the object of one piece of a stream."""
  return {
    **_frame(served, asked, "chat.completion.chunk"), "choices": choices
  }  # fmt: skip

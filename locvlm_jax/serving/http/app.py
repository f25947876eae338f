"""The routes of the server."""

import asyncio
import functools
import io
import json
import mimetypes
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

from locvlm_jax.serving import chat as chat_lib
from locvlm_jax.serving import data_uris, schema
from locvlm_jax.serving.chat import Served
from locvlm_jax.serving.http import description, requests, streams
from locvlm_jax.serving.limits import Refused, error_body

PAGE = pathlib.Path(__file__).parents[1] / "page"
# Decoding of pictures: more at once would only fill the memory.
_DECODERS = 4


class Chat:
  """Answers POST /v1/chat/completions.

  Args:
    served: what answers.
    bodies: reads requests.
    decoders: lets so many decode pictures at once.
    log_texts: whether questions and answers are logged.
  """

  def __init__(
    self,
    served: Served,
    bodies: requests.Bodies,
    decoders: asyncio.Semaphore,
    log_texts: bool,
  ):
    self._served, self._bodies, self._decoders = served, bodies, decoders
    self._log_texts = log_texts

  async def __call__(self, scope, receive, send) -> None:
    """Reads the request and sends its answer, whole or as a stream."""
    async with self._bodies.read(scope, receive) as body, self._decoders:
      asked = await run_in_threadpool(_prepare, self._served, body)
    async with requests.watched(receive) as gone:
      if self._log_texts:
        requests.LOG.info("asked: %r", asked.rows[0].question.question)
      if asked.chat.stream:
        events = streams.events(self._served, asked, gone)
        await requests.respond_events(send, events)
      elif (parts := await self._parts(asked, gone)) is not None:
        found = chat_lib.completion(self._served, asked, parts)
        if self._log_texts:
          requests.LOG.info("answered: %r", [part.text for part in parts])
        await requests.respond_json(send, 200, found)

  async def _parts(self, asked: chat_lib.Asked, gone: asyncio.Event):
    """The complete answers; None if the client is gone."""
    found: dict[int, Any] = {}
    async for i, part in chat_lib.answers(self._served, asked, gone):
      found[i] = part
    if gone.is_set():
      return None
    return [found[i] for i in range(len(asked.rows))]


def _prepare(served: Served, body: bytes) -> chat_lib.Asked:
  return chat_lib.prepare(served, schema.parse(body, served.limits))


class View:
  """Answers POST /view: a picture as the model sees it, as PNG."""

  def __init__(
    self, served: Served, bodies: requests.Bodies, decoders: asyncio.Semaphore
  ):
    self._served, self._bodies, self._decoders = served, bodies, decoders

  async def __call__(self, scope, receive, send) -> None:
    """Reads {"url": data URI} and sends the square."""
    async with self._bodies.read(scope, receive) as body, self._decoders:
      png = await run_in_threadpool(self._png, body)
    await requests.respond(send, 200, png, b"image/png")

  def _png(self, body: bytes) -> bytes:
    try:
      uri = json.loads(body)["url"]
      assert isinstance(uri, str)
    except Exception:
      message = 'send {"url": "data:image/png;base64,..."}'
      raise Refused(400, "invalid_json", message, "url") from None
    picture = data_uris.read(uri, self._served.limits)
    out = io.BytesIO()
    chat_lib.square(self._served, picture).save(out, "PNG")
    return out.getvalue()


class Fixed:
  """Answers with what does not change."""

  def __init__(self, content: bytes | Any, kind: str = "application/json"):
    if not isinstance(content, bytes):
      content = json.dumps(content).encode()
    self._content, self._kind = content, kind.encode()

  async def __call__(self, scope, receive, send) -> None:
    """Sends it; a browser runs nothing in it that is not from here."""
    policy = (
      b"default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'"
    )
    extra = (
      (b"content-security-policy", policy),
      (b"x-content-type-options", b"nosniff"),
      (b"cache-control", b"no-cache"),
    )
    await requests.respond(send, 200, self._content, self._kind, *extra)


class Health:
  """Answers GET /health."""

  def __init__(self, served: Served):
    self._served = served

  async def __call__(self, scope, receive, send) -> None:
    """Says that it is well, and how many answers wait."""
    waiting = self._served.batcher.waiting
    await requests.respond_json(send, 200, {"status": "ok", "waiting": waiting})


def make(
  served: Served,
  examples: Sequence[tuple[str, bytes]] = (),
  log_texts: bool = False,
) -> Starlette:
  """Makes the application.

  Args:
    served: what answers.
    examples: (name, PNG) of pictures that the page offers.
    log_texts: whether questions and answers are logged.
  """
  model, bodies = model_object(served), requests.Bodies(served.limits)
  decoders = asyncio.Semaphore(_DECODERS)
  listed = {"object": "list", "data": [model]}
  pictures = {name: Fixed(png, "image/png") for name, png in examples}
  routes = [
    _post("/v1/chat/completions", Chat(served, bodies, decoders, log_texts)),
    _post("/view", View(served, bodies, decoders)),
    _get("/v1/models", Fixed(listed)),
    _get(f"/v1/models/{served.name}", Fixed(model)),
    _get("/health", Health(served)),
    _get("/openapi.json", Fixed(description.openapi(served))),
    _get("/examples", Fixed(list(pictures))),
    *(_get(f"/examples/{name}", picture) for name, picture in pictures.items()),
    *(_get(path, file) for path, file in _page().items()),
  ]
  made = Starlette(
    routes=routes, exception_handlers={HTTPException: _not_found}
  )  # fmt: skip
  made.router.redirect_slashes = False  # to whatever the Host header names
  return made


def model_object(served: Served) -> dict[str, Any]:
  """Describes the model, with what the page and a client want to know of it."""
  spec = served.spec
  return {
    "id": served.name,
    "object": "model",
    "created": served.created,
    "owned_by": "locvlm_jax",
    "geometry": spec.geometry,
    "image_size": spec.image_size,
    "coords": spec.coords.form,
    "location": spec.coords.location,
    "lists": served.lists,
    "pictures": served.limits.pictures,
    "max_tokens": served.limits.new_tokens,
  }


def is_open(path: str) -> bool:
  """Says whether a path needs no token: the page itself, and health."""
  return path == "/health" or path in _page() or path.startswith("/examples")


@functools.cache
def _page() -> Mapping[str, Fixed]:
  found = {}
  for path in sorted(PAGE.iterdir()):
    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    name = "/" if path.name == "index.html" else f"/page/{path.name}"
    found[name] = Fixed(path.read_bytes(), f"{kind}; charset=utf-8")
  return found


def _post(path: str, endpoint: Any) -> Route:
  return Route(path, requests.Safe(endpoint), methods=["POST"])


def _get(path: str, endpoint: Any) -> Route:
  return Route(path, requests.Safe(endpoint), methods=["GET", "HEAD"])


async def _not_found(request, error: HTTPException):
  """What Starlette refuses itself: a path or method that there is not."""
  code = {404: "not_found", 405: "method_not_allowed"}
  word = code.get(error.status_code, "invalid_request")
  message = f"{request.method} is not done here: {error.detail}"
  body = error_body(error.status_code, word, message)
  return JSONResponse(body, error.status_code, headers=error.headers)

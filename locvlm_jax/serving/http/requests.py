"""Reads requests and writes responses, below Starlette's own classes.

Those wait for a body of any size for any time, and notice late that a client is
gone.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from locvlm_jax.serving.limits import Limits, Refused, error_body

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

LOG = logging.getLogger("locvlm_jax.serving")
_JSON = b"application/json"


class Gone(Exception):
  """The client closed its connection."""


def header(scope: dict[str, Any], name: bytes) -> bytes:
  """Returns a header of a request, empty where it has none."""
  return dict(scope["headers"]).get(name, b"")


class Bodies:
  """Reads the bodies of requests, and no more at a time than there is room for.

  Args:
    limits: of requests.
  """

  def __init__(self, limits: Limits):
    self._limits, self._held = limits, 0

  @contextlib.asynccontextmanager
  async def read(
    self, scope: dict[str, Any], receive: Receive
  ) -> AsyncIterator[bytes]:
    """Reads a body, as json is sent, and makes room again at the end.

    Raises:
      Refused: it is no json by its header, too large, arrives too slowly, or
        too many others are there.
      Gone: the client is gone.
    """
    limits, body = self._limits, bytearray()
    kind = header(scope, b"content-type").split(b";")[0].strip().lower()
    if kind != _JSON:
      message = "send json, with the header Content-Type: application/json"
      raise Refused(415, "unsupported_media_type", message)
    announced = header(scope, b"content-length")
    if announced.isdigit() and int(announced) > limits.body_bytes:
      raise _too_large(limits)
    try:
      async with asyncio.timeout(limits.read_seconds):
        await self._fill(body, receive)
      yield bytes(body)
    except TimeoutError:
      message = f"the request did not arrive in {limits.read_seconds:g} s"
      raise Refused(408, "request_timeout", message) from None
    finally:
      self._held -= len(body)

  async def _fill(self, body: bytearray, receive: Receive) -> None:
    more, limits = True, self._limits
    while more:
      message = await receive()
      if message["type"] == "http.disconnect":
        raise Gone
      part = message.get("body", b"")
      body += part
      self._held += len(part)
      more = message.get("more_body", False)
      if len(body) > limits.body_bytes:
        raise _too_large(limits)
      if self._held > limits.held_bytes:
        message = "too many large requests at once; ask again later"
        raise Refused(429, "too_busy", message)


def _too_large(limits: Limits) -> Refused:
  message = f"a request has at most {limits.body_bytes} bytes"
  return Refused(413, "request_too_large", message)


@contextlib.asynccontextmanager
async def watched(receive: Receive) -> AsyncIterator[asyncio.Event]:
  """Gives an event that is set as soon as the client is gone."""
  gone = asyncio.Event()

  async def watch() -> None:
    while (await receive())["type"] != "http.disconnect":
      pass
    gone.set()

  task = asyncio.create_task(watch())
  try:
    yield gone
  finally:
    task.cancel()


async def respond(
  send: Send, status: int, content: bytes, kind: bytes = _JSON, *extra
) -> None:
  """Sends a whole response; after a refusal the connection is closed.

  The rest of what the client sends then need not be read.
  """
  headers = [(b"content-type", kind), *extra]
  headers += [(b"content-length", str(len(content)).encode())]
  headers += [(b"connection", b"close")] if status in (408, 413) else []
  start = {"type": "http.response.start", "status": status, "headers": headers}
  await send(start)
  await send({"type": "http.response.body", "body": content})


async def respond_json(send: Send, status: int, value: Any) -> None:
  """Sends a value as json."""
  text = json.dumps(value, ensure_ascii=False)
  # Half a surrogate, as in the name of a field, is an escape in json.
  await respond(send, status, text.encode(errors="backslashreplace"))


async def respond_events(send: Send, events: AsyncIterator[bytes]) -> None:
  """Sends server-sent events, each as soon as it is there."""
  headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
  ]
  start = {"type": "http.response.start", "status": 200, "headers": headers}
  async for event in events:
    if start:  # what is wrong before the first event has a status of its own
      await send(start)
      start = None
    body = {"type": "http.response.body", "body": event, "more_body": True}
    await send(body)
  await send({"type": "http.response.body", "body": b""})


def hosts_of(host: str) -> frozenset[str]:
  """Lists the names that a server of this machine alone is asked by."""
  names = frozenset({"127.0.0.1", "localhost", "[::1]"})
  return names if host in ("127.0.0.1", "localhost", "::1") else frozenset()


class Safe:
  """Answers what goes wrong in an application in the shape of all errors.

  Args:
    app: what may raise.
  """

  def __init__(self, app: ASGI):
    self._app = app

  async def __call__(self, scope, receive: Receive, send: Send) -> None:
    """Runs the application."""
    started = []

    async def noticing(message: dict[str, Any]) -> None:
      started.append(message["type"])
      await send(message)

    try:
      await self._app(scope, receive, noticing)
    except Gone:
      pass
    except Refused as error:
      await respond_json(send, error.status, error.body)
    except Exception:
      LOG.exception("a request failed")
      if not started:
        body = error_body(500, "internal_error", "the server made a mistake")
        await respond_json(send, 500, body)


class Guard:
  """Stands before all that is served: who may ask, errors, one line each.

  Args:
    app: what is guarded.
    token: that has to be sent as a bearer's; empty: none is wanted.
    hosts: names that the server is asked by, without ports; empty: any. A page
      of elsewhere whose name was made to lead here is refused so.
    open_paths: that need no token.
  """

  def __init__(
    self,
    app: ASGI,
    token: str = "",
    hosts: frozenset[str] = frozenset(),
    open_paths: Callable[[str], bool] = lambda path: False,
  ):
    self._app, self._token = app, token.encode()
    self._hosts, self._is_open = hosts, open_paths

  async def __call__(self, scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it."""
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    start, seen = time.monotonic(), {"status": 0, "bytes": 0}

    async def counting(message: dict[str, Any]) -> None:
      seen["status"] = message.get("status", seen["status"])
      seen["bytes"] += len(message.get("body", b""))
      await send(message)

    await Safe(self._checked)(scope, receive, counting)
    length = header(scope, b"content-length").decode("latin-1")[:20] or "-"
    seconds = time.monotonic() - start
    LOG.info(
      "%s %s  %s bytes in, %d out, %.3f s",
      scope["method"],
      seen["status"] or "gone",
      length,
      seen["bytes"],
      seconds,
    )

  async def _checked(self, scope, receive: Receive, send: Send) -> None:
    self._check(scope)
    await self._app(scope, receive, send)

  def _check(self, scope: dict[str, Any]) -> None:
    host = header(scope, b"host").decode("latin-1").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if self._hosts and name not in self._hosts:
      message = "the Host header names another server"
      raise Refused(421, "unknown_host", message)
    if not self._token or self._is_open(scope["path"]):
      return
    scheme, _, given = header(scope, b"authorization").partition(b" ")
    is_right = hmac.compare_digest(given.strip(), self._token)
    if scheme.lower() != b"bearer" or not is_right:
      message = "send the header Authorization: Bearer TOKEN"
      raise Refused(401, "invalid_api_key", message)

"""The process around the application: sockets, signals, idle connections."""

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from locvlm_jax.serving.http.requests import ASGI
from locvlm_jax.serving.limits import Limits, error_body

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
  """Opens the port.

  Raises:
    ValueError: it is taken, or no such address is here.
  """
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=256)
  except OSError as error:
    raise ValueError(
      f"--host={host} --port={port}: {error.strerror}; give another --port, or"
      " 0 for any that is free"
    ) from None


def protocol(limits: Limits) -> type[H11Protocol]:
  """Makes the class of a connection that does not wait for ever.

  A client has `read_seconds` to send the head of its next request, and as long
  to take some of what is sent to it. It is not taken at all where `connections`
  are open already.
  """

  class Connection(H11Protocol):
    """One connection."""

    _timer, _is_full = None, False

    def connection_made(self, transport) -> None:
      """Takes it, or closes it."""
      super().connection_made(transport)
      if len(self.connections) > limits.connections:
        transport.close()
      self._wait()

    def on_response_complete(self) -> None:
      """Waits for the next request."""
      super().on_response_complete()
      self._wait()

    def connection_lost(self, exc) -> None:
      """Waits for nothing more."""
      super().connection_lost(exc)
      self._timer.cancel()

    def pause_writing(self) -> None:
      """Waits for the client to take what was sent."""
      super().pause_writing()
      self._is_full = True
      self._wait()

    def resume_writing(self) -> None:
      """Notices that it did."""
      super().resume_writing()
      self._is_full = False
      self._wait()

    def _wait(self) -> None:
      """Looks after a while whether anything has happened since."""
      if self._timer:
        self._timer.cancel()
      self._timer = self.loop.call_later(limits.read_seconds, self._look)

    def _look(self) -> None:
      """Closes a connection that takes nothing, or asks nothing."""
      if self._is_full:
        self.transport.abort()
      elif self.cycle is None or self.cycle.response_complete:
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
      """Answers what is no HTTP, in the shape of all errors."""
      body = json.dumps(error_body(400, "invalid_http", msg)).encode()
      head = (
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
      )
      self.transport.write(head.encode() + body)
      self.transport.close()

  return Connection


class Server(uvicorn.Server):
  """Ends with code 0 when it is asked to end, after what is under way."""

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    """Notices signals, and passes none of them on."""
    try:
      before = {s: signal.signal(s, self.handle_exit) for s in _SIGNALS}
    except ValueError:  # not in the main thread: a test's
      before = {}
    try:
      yield
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)


def run(
  app: ASGI,
  listener: socket.socket,
  limits: Limits,
  started: Callable[[Server], None] = lambda server: None,
) -> None:
  """Serves until the process is asked to end.

  Args:
    app: what answers.
    listener: of `listen`.
    limits: of requests.
    started: is told of the server before it serves.
  """
  config = uvicorn.Config(
    app,
    http=protocol(limits),
    ws="none",
    lifespan="off",
    access_log=False,
    log_config=None,
    log_level="error",
    server_header=False,
    date_header=False,
    timeout_keep_alive=5,
    timeout_graceful_shutdown=limits.seconds,
  )
  server = Server(config)
  started(server)
  asyncio.run(server.serve([listener]))

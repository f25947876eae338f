"""What a request may ask for, and how it is refused what it may not."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server takes; beyond it a request is refused by its own code.

  Attributes:
    body_bytes: of a request.
    pixels: of a picture, by its header, before any of it is decoded.
    pictures: of a conversation.
    prompt_tokens: of a conversation's text; those of pictures come on top.
    new_tokens: of an answer.
    boxes: of a category, in a list.
    categories: that are listed in an answer.
    choices: answers to a request (n).
    queue: answers that wait for a model that is busy.
    seconds: from a request's arrival to the end of its answer.
    read_seconds: for the request itself to arrive.
    connections: that are open at once.
  """

  body_bytes: int = 20 << 20
  pixels: int = 40_000_000
  pictures: int = 4
  prompt_tokens: int = 256
  new_tokens: int = 128
  boxes: int = 20
  categories: int = 8
  choices: int = 8
  queue: int = 256
  seconds: float = 120.0
  read_seconds: float = 20.0
  connections: int = 512

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      if (value := getattr(self, field.name)) <= 0:
        raise ValueError(f"{field.name} {value}: give more than 0")

  @property
  def held_bytes(self) -> int:
    """Bytes of all requests that are being read, at most."""
    return 10 * self.body_bytes


class Refused(Exception):
  """A request that is not answered, as OpenAI's clients understand it.

  Args:
    status: of HTTP, 4xx.
    code: a word that a program can compare.
    message: for the person who asked.
    param: the field that is wrong, if it is one.
  """

  def __init__(
    self, status: int, code: str, message: str, param: str | None = None
  ):
    super().__init__(message)
    self.status, self.code, self.param = status, code, param

  @property
  def body(self) -> dict[str, Any]:
    """The error object."""
    return error_body(self.status, self.code, str(self), self.param)


def error_body(
  status: int, code: str, message: str, param: str | None = None
) -> dict[str, Any]:
  """Makes the body of an answer that is an error."""
  kinds = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
  }
  kind = kinds.get(status, "invalid_request_error")
  kind = "server_error" if status >= 500 else kind
  found = {"message": message, "type": kind, "param": param, "code": code}
  return {"error": found}


def invalid(param: str, message: str) -> Refused:
  """Refuses the value of a field."""
  return Refused(400, "invalid_value", f"{param}: {message}", param)

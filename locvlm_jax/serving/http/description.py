"""The server's own description, in OpenAPI's form."""

from typing import Any

from locvlm_jax.serving import schema
from locvlm_jax.serving.chat import Served

_STATUSES = {
  "400": "a field is wrong, or a limit on pictures or tokens is exceeded",
  "401": "a token is wanted",
  "404": "no such model",
  "408": "the request arrived too slowly, or the answer took too long",
  "413": "too many bytes",
  "415": "no json",
  "421": "the Host header names another server",
  "422": "a picture has too many pixels",
  "429": "too many answers wait",
}


def openapi(served: Served) -> dict[str, Any]:
  """Describes what is served, by the bounds that it is checked by."""
  body = schema.json_schema(served.limits, [served.name])
  listed = _answer("the models", {"type": "object"})
  answer = _answer("the answer", {"type": "object"})
  answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
  return {
    "openapi": "3.1.0",
    "info": {"title": f"locvlm_jax: {served.name}", "version": "1"},
    "paths": {
      "/v1/chat/completions": {
        "post": {
          "requestBody": {"required": True, "content": _content(body)},
          "responses": {"200": answer, **_refusals()},
        }
      },
      "/v1/models": {"get": {"responses": {"200": listed, **_refusals()}}},
      "/health": {"get": {"responses": {"200": listed, **_refusals()}}},
    },
  }


def _refusals() -> dict[str, Any]:
  text = {"type": "string"}
  maybe = {"type": ["string", "null"]}
  error = {
    "type": "object",
    "properties": {
      "message": text, "type": text, "param": maybe, "code": text
    },
    "required": ["message", "type", "param", "code"],
  }  # fmt: skip
  body = {
    "type": "object",
    "properties": {"error": error},
    "required": ["error"],
  }
  return {status: _answer(text, body) for status, text in _STATUSES.items()}


def _answer(description: str, body: dict[str, Any]) -> dict[str, Any]:
  return {"description": description, "content": _content(body)}


def _content(body: dict[str, Any]) -> dict[str, Any]:
  return {"application/json": {"schema": body}}

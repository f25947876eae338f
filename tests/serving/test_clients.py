"""Clients that others wrote: OpenAI's own, and one that sends nonsense."""

import json

import pytest
import served
from served import CHAT, uri

pytest.importorskip("starlette", reason="the extra [serve] is not installed")


@pytest.fixture(scope="module")
def client():
  with served.running(token="a-token") as client:
    yield client


def _content(*parts):
  return [
    {"type": "image_url", "image_url": {"url": part}}
    if part.startswith("data:") else {"type": "text", "text": part}
    for part in parts
  ]  # fmt: skip


@pytest.fixture
def official(client):
  openai = pytest.importorskip("openai", reason="openai is not installed")
  base = f"http://127.0.0.1:{client.port}/v1"
  with openai.OpenAI(base_url=base, api_key="a-token", max_retries=0) as made:
    yield made


def test_openais_client_asks_about_several_pictures(official):
  content = _content(uri(), uri(color="blue"), "one two")
  found = official.chat.completions.create(
    model="rules",
    messages=[{"role": "user", "content": content}],
    n=2,
    seed=1,
    logprobs=True,
    top_logprobs=1,
    extra_body={"locations": "native"},
  )
  assert [c.message.content for c in found.choices] == ["one two <1>"] * 2
  assert found.choices[0].logprobs.content[0].token == "one"
  assert found.usage.prompt_tokens == 2 + 2 * 64
  assert official.models.list().data[0].id == "rules"


def test_openais_client_reads_the_stream(official):
  pieces = official.chat.completions.create(
    model="rules",
    messages=[{"role": "user", "content": "one two three"}],
    stream=True,
    stream_options={"include_usage": True},
  )
  pieces = list(pieces)
  texts = [p.choices[0].delta.content or "" for p in pieces if p.choices]
  assert "".join(texts) == "one two three"
  assert pieces[-1].usage.completion_tokens == 3


def test_openais_client_raises_its_own_errors(official):
  import importlib

  openai = importlib.import_module("openai")
  ask = official.chat.completions.create
  with pytest.raises(openai.NotFoundError, match="'rules' is served"):
    ask(model="other", messages=[{"role": "user", "content": "x"}])
  with pytest.raises(openai.BadRequestError, match="max_tokens"):
    ask(model="rules", messages=[{"role": "user", "content": "x"}],
        max_tokens=10**6)  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_thousand_bodies_of_the_description_and_beside_it(client):
  """Each gets an answer or an error in the right shape."""
  schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed"
  )
  import hypothesis

  head = {"Authorization": "Bearer a-token"}
  described = json.loads(client.send("GET", "/openapi.json", None, head)[2])
  schema = schemathesis.openapi.from_dict(described)
  modes = schemathesis.GenerationMode
  seen = []

  for mode in (modes.POSITIVE, modes.NEGATIVE):
    cases = schema[CHAT]["POST"].as_strategy(generation_mode=mode)

    @hypothesis.settings(
      max_examples=500,
      database=None,
      deadline=None,
      suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def send(case):
      try:
        sent = json.dumps(case.body).encode()
      except (TypeError, ValueError):
        return
      status, _, found = client.send("POST", CHAT, sent, head)
      seen.append(status)
      assert status < 500
      if status == 200 and not found.startswith(b"data:"):
        assert json.loads(found)["choices"]
      elif status != 200:
        error = json.loads(found)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "Traceback" not in error["message"]

    send()
  assert len(seen) > 500 and {200, 400} <= set(seen)
  assert client.send("GET", "/health")[0] == 200

"""Every limit has an error of its own, and no client can hold the server up."""

import base64
import contextlib
import dataclasses
import json
import socket
import struct
import threading
import time
import zlib

import pytest
import served
from served import CHAT, uri

from locvlm_jax.serving.http import web

pytest.importorskip("starlette", reason="the extra [serve] is not installed")


@pytest.fixture(scope="module")
def client():
  with served.running() as client:
    yield client


def body(**fields):
  message = {"role": "user", "content": "what"}
  return {"model": "rules", "messages": [message]} | fields


def bomb(width, height):
  """A PNG of a few bytes that says it is huge."""
  head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  chunk = b"IHDR" + head
  png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
  png += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 9) + b"IDAT"
  return "data:image/png;base64," + base64.b64encode(png).decode()


def say(text):
  return [{"role": "user", "content": text}]


def picture(url):
  return [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": url}},
    {"type": "text", "text": "what"}]}]  # fmt: skip


REFUSED = {
  "no json": (b"{", 400, "invalid_json"),
  "nested": (b"[" * 50_000, 400, "invalid_json"),
  "NaN": (b'{"temperature": NaN}', 400, "invalid_json"),
  "a list": (b"[]", 400, "invalid_json"),
  "not text": (b"\xff\xfe\x00", 400, "invalid_json"),
  "too many bytes": (b" " * 60_001, 413, "request_too_large"),
  "no messages": (body(messages=[]), 400, "invalid_value"),
  "another model": (body(model="gpt-4"), 404, "model_not_found"),
  "unknown field": (body(nosuch=1), 400, "unknown_parameter"),
  "half a character as a field": (
    b'{"model":"rules","messages":[{"role":"user","content":"x"}],'
    b'"\\ud800":1}', 400, "unknown_parameter"),
  "many digits": (body(seed=10**400), 400, "invalid_value"),
  "hot without end": (body(temperature=10**400), 400, "invalid_value"),
  "tools": (body(tools=[{"type": "f"}]), 400, "unsupported_parameter"),
  "hot": (body(temperature=3), 400, "invalid_value"),
  "a flag": (body(temperature=True), 400, "invalid_value"),
  "many tokens": (body(max_tokens=13), 400, "invalid_value"),
  "many choices": (body(n=4), 400, "invalid_value"),
  "lone surrogate": (
    b'{"model":"rules","messages":[{"role":"user","content":"\\ud800"}]}',
    400, "invalid_value"),
  "long": (body(messages=say("a " * 21)), 400, "context_length_exceeded"),
  "http": (body(messages=picture("http://127.0.0.1:1/x.png")), 400,
           "url_not_allowed"),
  "file": (body(messages=picture("file:///etc/passwd")), 400,
           "url_not_allowed"),
  "a path": (body(messages=picture("/etc/passwd")), 400, "url_not_allowed"),
  "bomb": (body(messages=picture(bomb(50_000, 50_000))), 422,
           "picture_too_large"),
  "pixels": (body(messages=picture(uri(101, 100))), 422, "picture_too_large"),
  "no picture": (body(messages=picture("data:image/png;base64,AAAA")), 400,
                 "invalid_image"),
  "svg": (body(messages=picture("data:image/svg+xml;base64,PHN2Zy8+")), 400,
          "invalid_image"),
  "cut off": (body(messages=picture(uri()[:90])), 400, "invalid_image"),
  "three pictures": (body(messages=picture(uri()) * 3), 400,
                     "too_many_pictures"),
  "pixels of none": (body(locations="pixels"), 400, "invalid_value"),
  "sampled box": (body(constrained=True, temperature=1), 400, "invalid_value"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_answered_is_refused_by_name(client, name):
  sent, status, code = REFUSED[name]
  sent = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
  got, _, found = client.send("POST", CHAT, sent)
  error = json.loads(found)["error"]
  assert (got, error["code"]) == (status, code), error
  assert error["message"] and set(error) == {"message", "type", "param", "code"}
  assert "Traceback" not in error["message"]


def test_boxes_that_the_picture_has_not_are_refused(client):
  endless = 400 * "9"
  for box in ("[1,2,300,4]", "[5,5,1,1]", "[1,2]", f"[1,2,{endless},4]"):
    status, found = client.ask(uri(), f"what at {box}", locations="pixels")
    expected = 200 if box == "[1,2,300,4]" else 400
    if expected == 400:
      assert status == 400 and box in found["error"]["message"]


@pytest.mark.parametrize(
  "method, path, headers, status",
  [
    ("GET", "/nosuch", {}, 404),
    ("GET", CHAT, {}, 405),
    ("GET", "/page/../app.py", {}, 404),
    ("GET", "/health/", {}, 404),
    ("GET", "/page/%2e%2e/limits.py", {}, 404),
    ("POST", CHAT, {"Content-Type": "text/plain"}, 415),
    ("GET", "/health", {"Host": "elsewhere.example"}, 421),
  ],
)
def test_other_paths_methods_and_hosts_are_refused_alike(
  client, method, path, headers, status
):
  got, _, found = client.send(method, path, "{}", headers)
  assert got == status and json.loads(found)["error"]["message"]


def raw(port, data, wait=3.0):
  """Sends bytes as they are; what comes until the server closes."""
  with socket.create_connection(("127.0.0.1", port), timeout=wait) as s:
    s.sendall(data)
    found = b""
    while part := s.recv(65536):
      found += part
  return found


HEAD = (
  f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"
  "Content-Type: application/json\r\n"
)


@pytest.mark.parametrize(
  "sent, status",
  [
    (b"no http at all\r\n\r\n", b"400"),
    (HEAD.encode() + b"Content-Length: -5\r\n\r\n", b"400"),
    (HEAD.encode() + b"Content-Length: 99999999999\r\n\r\n{}", b"413"),
    (HEAD.encode() + b"Content-Length: 500\r\n\r\n{}", b"408"),
    (HEAD.encode(), b""),  # half a head
    (b"", b""),
  ],
)
def test_a_lying_or_silent_client_is_let_go(client, sent, status):
  found = raw(client.port, sent)
  if status:
    head, _, content = found.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert json.loads(content)["error"]["code"]
  else:
    assert found == b""
  assert client.ask("still here")[0] == 200


def test_half_a_second_request_is_waited_for_no_longer_than_a_first(client):
  one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
  start = time.monotonic()
  found = raw(client.port, one + b"\r\n" + one)
  assert found.startswith(b"HTTP/1.1 200") and time.monotonic() - start < 2


def test_a_client_that_takes_nothing_of_its_answer_is_let_go():
  with served.running() as client, socket.socket() as s:
    client.rules.answers = {"big": "x" * 16_000_000}
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", client.port))
    content = json.dumps(body(messages=say("big"))).encode()
    s.sendall(HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(content))
    s.sendall(content)
    time.sleep(1.2)
    s.settimeout(5)
    taken = 0
    with contextlib.suppress(ConnectionResetError):
      while part := s.recv(1 << 20):
        taken += len(part)
    assert taken < 16_000_000


def test_only_so_many_bytes_of_requests_are_held_at_once(client):
  """Twelve that are not yet complete are two more than there is room for."""
  head = HEAD.encode() + b"Content-Length: 60000\r\n\r\n"
  found = []

  def send():
    found.append(raw(client.port, head + b" " * 59_000))

  threads = [threading.Thread(target=send) for _ in range(12)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  statuses = [answer.split()[1] for answer in found]
  assert set(statuses) == {b"408", b"429"}
  assert client.ask("still here")[0] == 200


def test_a_full_queue_is_told_at_once_and_empties_again():
  with served.running() as client:
    client.rules.delay = 0.05
    statuses = []

    def ask(i):
      statuses.append(client.ask(f"{i} a b c")[0])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert set(statuses) == {200, 429} and statuses.count(200) >= 4
    client.rules.delay = 0
    assert client.ask("again")[0] == 200


def test_a_stream_that_there_is_no_room_for_is_refused_by_its_status():
  limits = dataclasses.replace(served.SMALL, queue=2)
  with served.running(limits) as client:
    for stream in (True, False):
      status, found = client.ask("a", n=3, stream=stream)
      assert (status, found["error"]["code"]) == (429, "queue_full")


def test_lists_are_bounded_and_refused_of_a_model_that_has_not_learned_them(
  client,
):
  status, found = client.ask("Find every a, b, c, d.", constrained=True)
  assert (status, found["error"]["code"]) == (400, "too_many_categories")
  with served.running(lists=False) as other:
    status, found = other.ask("Find every cup.", constrained=True)
    assert (status, found["error"]["code"]) == (400, "lists_not_served")
    assert "not trained" in found["error"]["message"]
    assert other.ask("Find every cup.")[0] == 200
    assert other.ask("Find the cup.", constrained=True)[0] == 200


def test_an_answer_that_takes_too_long_is_given_up():
  limits = dataclasses.replace(served.SMALL, seconds=0.3)
  with served.running(limits) as client:
    client.rules.delay = 0.2
    status, found = client.ask("a b c d e f")
    assert (status, found["error"]["code"]) == (408, "request_timeout")


def test_nothing_is_computed_for_a_client_that_is_gone(client):
  client.rules.delay, before = 0.1, len(client.rules.batches)
  content = json.dumps(body(messages=say("a b c d e f g h i j"))).encode()
  with socket.create_connection(("127.0.0.1", client.port)) as s:
    s.sendall(HEAD.encode() + b"Content-Length: %d\r\n\r\n" % len(content))
    s.sendall(content)
    time.sleep(0.15)
  start = time.monotonic()
  assert client.ask("x")[0] == 200  # has waited for no more than a word or two
  client.rules.delay = 0
  assert time.monotonic() - start < 0.8
  assert len(client.rules.batches) == before + 2


def test_a_token_is_wanted_where_one_is_set():
  with served.running(token="sésame") as client:
    for given in ({}, {"Authorization": "Bearer no"}, {"Authorization": "x"}):
      status, _, found = client.send("POST", CHAT, json.dumps(body()), given)
      assert status == 401
      assert json.loads(found)["error"]["code"] == "invalid_api_key"
    right = {"Authorization": "Bearer sésame".encode()}
    assert client.send("POST", CHAT, json.dumps(body()), right)[0] == 200
    assert client.send("GET", "/")[0] == client.send("GET", "/health")[0] == 200
    assert client.send("GET", "/v1/models")[0] == 401


def test_what_is_under_way_is_finished_when_the_server_ends():
  found = []
  with served.running() as client:
    client.rules.delay = 0.1
    thread = threading.Thread(
      target=lambda: found.append(client.ask("a b c d e f"))
    )
    thread.start()
    time.sleep(0.2)
  thread.join()
  assert found[0][0] == 200
  assert found[0][1]["choices"][0]["message"]["content"] == "a b c d e f"


def test_nothing_of_a_request_is_logged_but_its_size_and_time(client, caplog):
  with caplog.at_level("INFO", logger="locvlm_jax.serving"):
    client.ask("secret words", uri())
    until = time.monotonic() + 5  # the line is written after the answer
    while not caplog.text and time.monotonic() < until:
      time.sleep(0.01)
  assert "200" in caplog.text and "secret" not in caplog.text


def test_those_of_one_length_are_answered_together(client):
  client.rules.delay, before = 0.05, len(client.rules.batches)
  threads = [
    threading.Thread(target=client.ask, args=(f"q{i}",)) for i in range(6)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  client.rules.delay = 0
  sizes = list(map(len, client.rules.batches[before:]))
  assert sum(sizes) == 6 and max(sizes) > 1


def test_a_port_that_is_taken_is_named_with_the_next_step(client):
  with pytest.raises(ValueError, match=f"--port={client.port}: .*give another"):
    web.listen("127.0.0.1", client.port)

"""Asks a server of this machine by many clients at once, and one by one.

  python -m locvlm_jax.serve &
  python -m benchmarks.serving --clients 64 --seconds 60

Prints requests a second and latencies, whether every answer is the one that the
same question gets when it is asked alone, and the memory of the server before
and after. It sends to 127.0.0.1 and to nothing else, for so many seconds.
"""

import argparse
import base64
import http.client
import json
import pathlib
import statistics
import threading
import time

WORDS = ("ball", "cube", "cup", "star", "tree", "house", "heart", "moon")
TEXTS = (
  "Where is the {}?", "What color is the {}?", "Is there a {} in the image?",
)  # fmt: skip


def main() -> None:
  """Measures."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--port", type=int, default=8000)
  parser.add_argument("--clients", type=int, default=64)
  parser.add_argument("--seconds", type=float, default=60)
  parser.add_argument("--pid", type=int, default=0, help="of the server")
  given = parser.parse_args()
  questions = _questions(given.port)
  start, alone = time.monotonic(), {}
  for key, body in questions.items():
    alone[key] = _ask(given.port, body)
  took = time.monotonic() - start
  print(f"one by one: {len(alone) / took:.1f} requests/s, every question once")
  memory = [_megabytes(given.pid)]
  found = _many(given, questions, memory)
  seconds = sorted(s for _, s, _ in found)
  wrong = sum(alone[key] != answer for key, _, answer in found)
  cuts = statistics.quantiles(seconds, n=20)
  print(
    f"{given.clients} clients for {given.seconds:g} s: {len(found)} requests,"
    f" {len(found) / given.seconds:.1f} a second, p50 {cuts[9]:.2f} s,"
    f" p95 {cuts[18]:.2f} s, {wrong} answers other than alone"
  )
  print(f"memory in MB, before and every half a minute: {', '.join(memory)}")


def _questions(port: int) -> dict[tuple, bytes]:
  """{key: body} of each question about each example."""
  names = json.loads(_send(port, "GET", "/examples")[1])
  model = json.loads(_send(port, "GET", "/v1/models")[1])["data"][0]["id"]
  found = {}
  for name in names:
    png = base64.b64encode(_send(port, "GET", f"/examples/{name}")[1]).decode()
    url = {"url": f"data:image/png;base64,{png}"}
    for word in WORDS:
      for text in TEXTS:
        content = [{"type": "image_url", "image_url": url},
                   {"type": "text", "text": text.format(word)}]  # fmt: skip
        message = {"role": "user", "content": content}
        body = {"model": model, "messages": [message]}
        found[name, word, text] = json.dumps(body).encode()
  return found


def _many(given, questions: dict[tuple, bytes], memory: list) -> list[tuple]:
  """(key, seconds, answer) of all that clients asked at once; logs memory."""
  found, until = [], time.monotonic() + given.seconds

  def client(number: int) -> None:
    keys = list(questions)
    for i in range(10**6):
      if time.monotonic() > until:
        return
      key = keys[(number * 7 + i) % len(keys)]
      start = time.monotonic()
      answer = _ask(given.port, questions[key])
      found.append((key, time.monotonic() - start, answer))

  threads = [
    threading.Thread(target=client, args=(n,)) for n in range(given.clients)
  ]
  for thread in threads:
    thread.start()
  while (left := until - time.monotonic()) > 0:
    time.sleep(min(30.0, left))
    memory.append(_megabytes(given.pid))
  for thread in threads:
    thread.join()
  return found


def _ask(port: int, body: bytes) -> str:
  status, found = _send(port, "POST", "/v1/chat/completions", body)
  if status != 200:
    return f"{status}: {found[:200]!r}"
  return json.loads(found)["choices"][0]["message"]["content"]


def _send(port: int, method: str, path: str, body: bytes | None = None):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=150)
  try:
    kind = {"Content-Type": "application/json"}
    connection.request(method, path, body, kind)
    response = connection.getresponse()
    return response.status, response.read()
  finally:
    connection.close()


def _megabytes(pid: int) -> str:
  """The resident memory of a process."""
  path = pathlib.Path(f"/proc/{pid}/status")
  if not pid or not path.exists():
    return "?"
  line = next(x for x in path.read_text().splitlines() if "VmRSS" in x)
  return f"{int(line.split()[1]) / 1024:.0f}"


if __name__ == "__main__":
  main()

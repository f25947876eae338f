"""Measures one GPU: `bash benchmarks/gpu.sh`, which says how.

Each part runs in a process of its own with a time limit, so that one that fails
or hangs costs itself alone. Results are written after each part.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.gpu import parts, table

NEEDED = ("jax", "flax", "optax", "orbax", "einops", "jaxtyping", "absl")
PEERS = ("torch", "transformers")
_PLANNED_SECONDS = 600
_LEAST_SECONDS = 20  # in which a part could not even start


def missing(packages: Sequence[str]) -> list[str]:
  """Lists those packages that are not installed."""
  return [p for p in packages if importlib.util.find_spec(p) is None]


def command(number: int, tiny: bool) -> Callable[[str], list[str]]:
  """Returns the command line of a part, given the file of its results."""
  words = ["tiny"] if tiny else []
  run = [sys.executable, "-m", "benchmarks.gpu.run_part", str(number)]
  return lambda file: [*run, file, *words]


def run_limited(
  line: Sequence[str], seconds: float, log: str, env: Mapping[str, str]
) -> str:
  """Runs a command; returns "" or why it has no whole result.

  Args:
    line: the command.
    seconds: after which it and all that it started are killed.
    log: file that its output is added to.
    env: of the process.
  """
  with open(log, "a", encoding="utf-8") as f:
    child = subprocess.Popen(
      line, stdout=f, stderr=f, env=dict(env), start_new_session=True
    )
    try:
      code = child.wait(seconds)
    except subprocess.TimeoutExpired:
      os.killpg(child.pid, signal.SIGKILL)
      child.wait()
      return f"stopped after {seconds:.0f} s"
  return f"failed with status {code}, see {log}" if code else ""


def environment(part: parts.Part) -> dict[str, str]:
  """Returns a part's environment; beside PyTorch jax takes no GPU memory."""
  own = {"JAX_PLATFORMS": "cpu"} if part.kind.endswith("peer") else {}
  return {**os.environ, **own}


def entries(file: pathlib.Path) -> list[dict]:
  """Reads the lines of results; a line that was cut off is left out."""
  found = []
  for line in file.read_text().splitlines() if file.exists() else ():
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


def summary(folder: pathlib.Path, without: Mapping, seconds: float) -> dict:
  """Writes gpu.json and gpu.md of all that was measured so far."""
  found = entries(folder / "lines.jsonl")
  results = [e["result"] for e in found if "result" in e]
  versions = {k: v for r in results for k, v in r.get("versions", {}).items()}
  results = {
    "device": next((r["device"] for r in results if "device" in r), None),
    "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    "seconds": seconds,
    "entries": found,
    "without": dict(without),
  }
  (folder / "gpu.json").write_text(json.dumps(results, indent=1))
  (folder / "gpu.md").write_text(table.markdown(results))
  return results


def measure(
  chosen: Sequence[tuple[parts.Part, Callable[[str], list[str]]]],
  folder: pathlib.Path,
  seconds: float,
) -> dict:
  """Runs the parts that have no results yet, until the time is over.

  Args:
    chosen: parts, each with what gives its command line.
    folder: of the results.
    seconds: in all.
  """
  file, began = folder / "lines.jsonl", time.monotonic()
  # Of more time than the parts are sized for, each gets its share.
  longer = max(1.0, seconds / _PLANNED_SECONDS)
  done = {entry["part"] for entry in entries(file) if "result" in entry}
  without: dict[str, str] = {}
  for part, line in chosen:
    left = seconds - (time.monotonic() - began)
    if part.name in done:
      continue
    if part.kind.endswith("peer") and (absent := missing(PEERS)):
      without[part.name] = f"needs {', '.join(absent)}"
    elif left < _LEAST_SECONDS:
      without[part.name] = "no time left: run again with the same --out"
    else:
      limit = min(longer * part.seconds, left)
      log, env = str(folder / "log.txt"), environment(part)
      if why := run_limited(line(str(file)), limit, log, env):
        without[part.name] = why
    summary(folder, without, time.monotonic() - began)
    print(
      f"{time.monotonic() - began:6.0f} s  {part.name}:"
      f" {without.get(part.name, 'done')}",
      flush=True,
    )
  return summary(folder, without, time.monotonic() - began)


def main() -> int:
  """Measures what the flags say; 1 if something failed."""
  parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh")
  parser.add_argument("--out", default="runs/gpu", help="folder of the results")
  parser.add_argument("--minutes", type=float, default=10, help="in all")
  parser.add_argument("--tiny", action="store_true", help="on a small model")
  flags = parser.parse_args()
  if absent := missing(NEEDED):
    print(f"error: not installed: {', '.join(absent)}", file=sys.stderr)
    return 78
  folder = pathlib.Path(flags.out)
  folder.mkdir(parents=True, exist_ok=True)
  chosen = [(p, command(i, flags.tiny)) for i, p in enumerate(parts.PARTS)]
  results = measure(chosen, folder, 60 * flags.minutes)
  print((folder / "gpu.md").read_text())
  failed = [why for why in results["without"].values() if "needs" not in why]
  errors = [e for e in results["entries"] if "error" in e]
  return int(bool(failed or errors))


if __name__ == "__main__":
  sys.exit(main())

"""The paper's recipe in one command: train, evaluate, train, evaluate, report.

  python -m locvlm_jax.reproduce --config configs/micro.py:demo --workdir DIR

runs, for each stage, `locvlm_jax.train` and `locvlm_jax.evaluate` with
`--config FILE:STAGE,WORDS`; every stage after the first starts from the first
one's checkpoint. Each command is printed before it runs, and what is finished
is not repeated when the same line is run again. Further `--config.x=y` go to
all of them. The workdir receives one folder a stage, the compiled programs,
results.json and report.html.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time


def main() -> None:
  """The stages in order, then the page."""
  flags, overrides = _parser().parse_known_args()
  for word in overrides:
    if not word.startswith("--config."):
      _parser().error(f"{word!r}: no flag of this command, no --config.x")
  # As it was given: an absolute path would stay in every config below it.
  workdir = flags.workdir
  os.makedirs(workdir, exist_ok=True)
  # What one command has compiled, the next ones need not.
  cache = os.path.abspath(os.path.join(workdir, "compiled"))
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
  stages, first = {}, None
  for stage in flags.stages.split(","):
    path = os.path.join(workdir, stage)
    common = _common(flags.config, stage, path, overrides)
    start = [f"--config.init.checkpoint={first}"] if first else []
    _run("train", common + start, path)
    _run("evaluate", common, path)
    stages[stage] = _result(path)
    first = first or path
    _write(workdir, flags, stages)
  subprocess.run(
    [sys.executable, "-m", "locvlm_jax.report", "--workdir", workdir],
    check=True,
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m locvlm_jax.reproduce",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--config",
    required=True,
    metavar="FILE[:WORDS]",
    help="e.g. configs/micro.py:demo",
  )
  parser.add_argument("--workdir", required=True, help="where all of it goes")
  parser.add_argument(
    "--stages", default="stage1,stage2", help="in order; default: %(default)s"
  )
  parser.add_argument(
    "--reference",
    default="",
    metavar="RESULTS.json",
    help="numbers to show beside this run's",
  )
  return parser


def _common(config: str, stage: str, path: str, overrides: list[str]) -> list:
  file, _, words = config.partition(":")
  variant = ",".join(filter(None, (stage, words)))
  return [f"--config={file}:{variant}", f"--workdir={path}", *overrides]


def _run(command: str, arguments: list[str], path: str) -> None:
  """Runs one command unless it has finished with these same arguments."""
  os.makedirs(path, exist_ok=True)
  line = [sys.executable, "-m", f"locvlm_jax.{command}", *arguments]
  print(f"\n$ {shlex.join(['python', *line[1:]])}", flush=True)
  digest = hashlib.sha256(json.dumps(arguments).encode()).hexdigest()
  done = os.path.join(path, f"{command}.done.json")
  if os.path.exists(done) and _read(done)["arguments"] == digest:
    print("finished before; delete the folder to repeat it", flush=True)
    return
  began = time.monotonic()
  code = subprocess.run(line).returncode
  if code:
    sys.exit(code)  # the command has said why
  minutes = (time.monotonic() - began) / 60
  with open(done, "w", encoding="utf-8") as f:
    json.dump({"arguments": digest, "minutes": minutes}, f)


def _read(path: str):
  with open(path, encoding="utf-8") as f:
    return json.load(f)


def _result(path: str) -> dict:
  """What the report says of one stage."""
  evaluation = _read(os.path.join(path, "results.json"))
  config = evaluation["config"]
  minutes = _read(os.path.join(path, "train.done.json"))["minutes"]
  return {
    "trained_on": describe(config),
    "metrics": evaluation["metrics"],
    "steps": config["steps"],
    "minutes": round(minutes, 2),
    "versions": evaluation["versions"],
  }


def describe(config: dict) -> str:
  """One sentence: what was trained, on how much of what."""
  data = config["data"]
  weights = {n: w for n, w in data["mixture"].items() if w > 0}
  total = sum(weights.values())
  shares = ", ".join(
    f"{w / total:.0%} {n} ({os.path.basename(data[n])})"
    for n, w in weights.items()
  )
  objectives = ""
  if "instances" in weights:
    active = [o for o, w in data["objectives"].items() if w > 0]
    objectives = f"; objectives: {', '.join(active)}"
  return (
    f"{' + '.join(config['trainable'])} trained for {config['steps']} steps of "
    f"{config['batch_size']} rows: {shares}{objectives}."
  )


def _write(workdir: str, flags, stages: dict) -> None:
  shown = [name for name in stages if name != "baseline"]
  results = {
    "config": flags.config,
    "before": shown[0],
    "show": shown[-1],
    "stages": stages,
    "reference": _read(flags.reference) if flags.reference else None,
    "commands": [
      shlex.join(["python", "-m", "locvlm_jax.reproduce", *sys.argv[1:]])
    ],
  }
  with open(os.path.join(workdir, "results.json"), "w", encoding="utf-8") as f:
    json.dump(results, f, indent=2)


if __name__ == "__main__":
  main()

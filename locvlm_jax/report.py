"""One self-contained page about a run: what was trained, and how it answers.

  python -m locvlm_jax.report --workdir DIR [--compare OTHER/results.json]

reads

  DIR/results.json             {"config", "stages": {name: stage},
                                "reference": stage or null, ...}
                               stage: {"trained_on", "steps", "minutes",
                                "metrics": {"task.metric": value}}, or a part
  DIR/STAGE/metrics.jsonl      {"step", "loss", ...} a line
  DIR/STAGE/predictions.jsonl  rows of `evals/predictions.py`

and writes DIR/report.html (no scripts, no outside requests) and
DIR/localizing.png (the picture of boxes, for a README). Optional keys of
results.json: "show" and "before", the stages whose answers are shown and set
against each other (by default the last and the first that have predictions),
and "commands", the lines that reproduce the run.
"""

import argparse
import sys
from collections.abc import Sequence

from locvlm_jax.reports import page


def main(argv: Sequence[str] | None = None) -> None:
  """The command; a user's mistake ends in one line and exit code 70."""
  parser = argparse.ArgumentParser(
    prog="python -m locvlm_jax.report",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument("--compare", help="results.json of another run")
  args = parser.parse_args(argv)
  try:
    compare = page.read_results(args.compare) if args.compare else None
    paths = page.write(page.load(args.workdir), compare)
  except ValueError as e:
    print(f"error: {e}", file=sys.stderr)
    sys.exit(70)
  print("\n".join(f"wrote {path}" for path in paths))


if __name__ == "__main__":
  main()

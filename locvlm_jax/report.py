"""Writes a page about a run: `python -m locvlm_jax.report --workdir DIR`.

It reads

  DIR/results.json             {"config", "stages": {name: stage},
                                "reference": stage or null, ...}
                               stage: {"trained_on", "steps", "minutes",
                                "metrics": {"task.metric": value},
                                "units": {"task.metric": unit}}, or a part
  DIR/STAGE/metrics.jsonl      {"step", "loss", ...} a line
  DIR/STAGE/predictions.jsonl  rows of `evals/predictions.py`

and writes DIR/report.html, which has no scripts and loads nothing from
elsewhere, and DIR/localizing.png, the picture of boxes. Optional keys of
results.json: "show" and "before", the stages whose answers are shown and set
against each other (by default the last and the first that have predictions),
and "commands", the lines that reproduce the run. A file without "units" is
read by the units that the tasks have today.
"""

from absl import flags

from locvlm_jax import command

_WORKDIR = command.define_workdir("The folder of the run; it gets the page.")
_COMPARE = flags.DEFINE_string(
  "compare", None, "results.json of another run, to show beside this one's."
)


def main(argv: list[str]) -> None:
  """Reads the run in --workdir and writes its page."""
  del argv
  from locvlm_jax.reports import page, reading

  # As it was given: the page shows it.
  run = reading.read_run(_WORKDIR.value)
  compare = reading.read_results(_COMPARE.value) if _COMPARE.value else None
  for path in page.write(run, compare):
    print(f"wrote {path}")


if __name__ == "__main__":
  command.run(main, required=["workdir"])

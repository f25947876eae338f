"""One measurement, printed as json: `python -m locvlm_jax.bench NAME`."""

# By argparse, not by the flags of the other commands. Measurements have to run
# where ml_collections is not installed, which locvlm_jax.command imports. And
# absl's flags belong to the whole process, while the measurements have flags of
# the same name (--model, --rounds) with different defaults.
import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from locvlm_jax import errors

# Each is a module beside this one, with `add_arguments` and `measure`. Only the
# one that is asked for is imported: the others may lack their packages.
NAMES = {
  "decode": "tokens a second of greedy generation",
  "input": "samples a second of the input pipeline",
  "train": "milliseconds, samples a second and MFU of a training step",
}


class _Parser(argparse.ArgumentParser):
  """Ends with the exit code of a wrong config, as the other commands do."""

  def error(self, message: str) -> NoReturn:
    self.exit(errors.BAD_CONFIG, f"error: {message}\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command line; the result's `measure` is what to call."""
  parser = _Parser(prog="python -m locvlm_jax.bench", description=__doc__)
  commands = parser.add_subparsers(dest="name", required=True)
  for name, summary in NAMES.items():
    command = commands.add_parser(
      name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if name in argv[:1]:
      module = importlib.import_module(f"locvlm_jax.bench.{name}")
      command.description = module.__doc__
      command.set_defaults(measure=module.measure)
      module.add_arguments(command)
      command.add_argument(
        "--peer", action="store_true", help="also measure PyTorch"
      )
      command.add_argument("--json", help="also write the results to this file")
  return parser.parse_args(argv)


def _check_peer() -> None:
  """Raises ValueError if the packages that peers need are missing."""
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
        f"--peer needs {package}, which is not installed: pip install torch"
        " transformers."
      )


def main() -> None:
  """Measures and prints what the command line names."""
  arguments = _parse(sys.argv[1:])
  try:
    if arguments.peer:
      _check_peer()
    results = arguments.measure(arguments)
  except ValueError as e:
    sys.exit(_fail(e))
  text = json.dumps(results, indent=2)
  print(text)
  if arguments.json:
    with open(arguments.json, "w", encoding="utf-8") as f:
      f.write(text + "\n")


def _fail(error: ValueError) -> int:
  """Prints one line and returns the exit code."""
  print(f"error: {error}", file=sys.stderr)
  return errors.code(error)


if __name__ == "__main__":
  main()

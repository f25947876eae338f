"""`python -m locvlm_jax.bench NAME`: one measurement, printed and as json."""

import argparse
import importlib
import json

# Each is a module beside this one, with `add_arguments` and `measure`.
NAMES = ("decode", "input", "train")


def main() -> None:
  """Parses the arguments of the one named and prints what it measured."""
  parser = argparse.ArgumentParser(prog="python -m locvlm_jax.bench")
  commands = parser.add_subparsers(dest="name", required=True)
  modules = {}
  for name in NAMES:
    module = modules[name] = importlib.import_module(f"locvlm_jax.bench.{name}")
    about = module.__doc__.splitlines()[0]
    command = commands.add_parser(name, help=about, description=module.__doc__)
    module.add_arguments(command)
    command.add_argument("--json", help="also write the results to this file")
  arguments = parser.parse_args()
  try:
    results = modules[arguments.name].measure(arguments)
  except ValueError as e:
    parser.exit(78, f"error: {e}\n")
  text = json.dumps(results, indent=2)
  print(text)
  if arguments.json:
    with open(arguments.json, "w", encoding="utf-8") as f:
      f.write(text + "\n")


if __name__ == "__main__":
  main()

"""How every command starts and ends: flags, one-line errors, exit codes."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from locvlm_jax import errors
from locvlm_jax.config import Config, freeze

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The config file, with its words after a colon.",
  lock_config=True,
)  # fmt: skip
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.")


def workdir() -> str:
  """The absolute path of --workdir.

  Raises:
    ValueError: it is missing.
  """
  if not WORKDIR.value:
    raise ValueError("--workdir is missing: the folder that keeps the run.")
  return os.path.abspath(WORKDIR.value)


def config(**changes: object) -> Config:
  """Reads the config of the flags.

  Args:
    changes: fields that other flags set, as in `init={"llm": DIR}`.

  Raises:
    ValueError: no --config, or a field that the command line has to set.
  """
  if CONFIG.value is None:
    raise ValueError("--config is missing, for example configs/micro.py:tiny.")
  fields = CONFIG.value.copy_and_resolve_references()
  fields.update(changes)
  return freeze(fields)


def fail(message: str, code: int):
  """Ends the process with one line on standard error."""
  print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
  sys.exit(code)


def run(
  main: Callable[[list[str]], None], required: Sequence[str] = ()
) -> None:
  """Parses the flags and calls `main`, turning user errors into one line.

  The flags of `required` have to be given; they are marked here, since flags
  are shared by all modules that a process imports.

  The exit codes are those of `errors`; an exception that is neither a fault
  nor a ValueError is ours and keeps its traceback.
  """
  flags.mark_flags_as_required(required)
  # TensorFlow comes with the metric writers; its greetings help nobody.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  absl_logging.use_absl_handler()
  # Orbax tells every detail of a save at the level of information.
  absl_logging.set_verbosity(absl_logging.WARNING)
  app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except SystemExit:  # after --help, which absl ends with exit code 1
    sys.exit(0)
  except (
    OSError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    flags.Error,
  ) as e:
    fail(e, errors.BAD_CONFIG)


def _guarded(main, argv) -> None:
  try:
    main(argv)
  except (errors.Fault, ValueError) as e:
    logging.debug("where it was raised:", exc_info=True)  # with -v=1
    fail(e, errors.code(e))

"""Starts and ends every command: flags, help, one-line errors, exit codes.

A command is a module that defines its flags and ends with `run(main)`. `--help`
prints its docstring and then its flags, in the order in which they are defined:
`define_config` and `define_workdir` come first.
"""

import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from locvlm_jax import before_jax, errors

# A flag that is defined here belongs to the command that asks for it.
flags.disclaim_key_flags()

# Files that parse a command line; what else runs meanwhile is a config file.
_PARSES = re.compile(r"importlib|/(absl|ml_collections)/|/(ast|command)\.py$")
_HELP = ("-h", "-help", "--help", "--helpshort", "--helpfull")


def define_config(
  what: str = "The config, as FILE.py or FILE.py:WORDS. Another flag,"
  " --config.FIELD=VALUE, changes one of its fields.",
) -> flags.FlagHolder:
  """Defines --config, which `config` reads; `what` is its help text."""
  # Late, since bench runs where ml_collections is not installed.
  from ml_collections import config_flags

  return config_flags.DEFINE_config_file("config", None, what, lock_config=True)


def define_workdir(what: str) -> flags.FlagHolder:
  """Defines --workdir, which `workdir` reads; `what` is its help text."""
  return flags.DEFINE_string("workdir", None, what)


def define_override() -> flags.FlagHolder:
  """Defines --override: names of fields, see `locvlm_jax/agreement.py`."""
  return flags.DEFINE_list(
    "override", [], "Fields, as geometry,coords.form, in which the config holds"
    " although the weights were trained otherwise; else a flag that contradicts"
    " them is refused.",
  )  # fmt: skip


def said() -> frozenset[str]:
  """Lists the fields that the command line itself sets, as "coords.form"."""
  from ml_collections import config_flags

  return frozenset(config_flags.get_override_values(flags.FLAGS["config"]))


def workdir() -> str:
  """Returns the absolute path of --workdir.

  Raises:
    ValueError: it is missing.
  """
  if not flags.FLAGS.workdir:
    raise ValueError("--workdir is missing: the folder that keeps the run.")
  return os.path.abspath(flags.FLAGS.workdir)


def config(**changes: object) -> Any:
  """Reads the config of the flags: a `locvlm_jax.config.Config`.

  Args:
    changes: fields that other flags set, as in `init={"llm": DIR}`.

  Raises:
    ValueError: no --config, or a field that the command line has to set.
  """
  from locvlm_jax.config import freeze  # late: it imports ml_collections

  if flags.FLAGS.config is None:
    raise ValueError("--config is missing, for example configs/micro.py:tiny.")
  fields = flags.FLAGS.config.copy_and_resolve_references()
  _split_names(fields)
  fields.update(changes)
  return freeze(fields)


def parsed(words: Sequence[str]) -> tuple[Any, frozenset[str], list[str]]:
  """Reads --config and --override as a command would, given these words.

  Returns:
    (the config, the fields that the words set, those of --override).
  """
  from ml_collections import config_flags

  from locvlm_jax.config import freeze

  own = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=own, lock_config=True)
  flags.DEFINE_list("override", [], "", flag_values=own)
  line, mine = ["", *words], sys.argv
  try:
    sys.argv = line  # where ml_collections looks for fields
    own(line)
  finally:
    sys.argv = mine
  said = config_flags.get_override_values(own["config"])
  fields = own.config.copy_and_resolve_references()
  _split_names(fields)
  return freeze(fields), frozenset(said), own.override


# Lists of texts, which may have commas of their own.
_TEXTS = ("eval.stop", "pseudo.plain", "pseudo.relational")
_PATTERN = set("{[(")


def _split_names(fields: Any, prefix: str = "") -> None:
  """Splits lists of names that were given as in --config.eval.tasks=a,b.

  ml_collections takes what is no Python for a single text.
  """
  for key, value in fields.items():
    name = prefix + key
    if hasattr(value, "items"):
      _split_names(value, f"{name}.")
    elif isinstance(value, tuple) and len(value) == 1 and name not in _TEXTS:
      names = value[0]
      # A comma within brackets belongs to a pattern.
      if isinstance(names, str) and "," in names and not _PATTERN & set(names):
        fields[key] = tuple(n.strip() for n in names.split(",") if n.strip())


def run(
  main: Callable[[list[str]], None],
  required: Sequence[str] = (),
  takes_arguments: bool = False,
  keeps_programs: bool = False,
) -> None:
  """Parses the command line and calls `main`; the process ends with its code.

  A mistake of the user is one line on standard error. The exit codes are those
  of `errors`; what `errors.code` calls our own mistake keeps its traceback.

  Args:
    main: receives the words of the command line that are no flags, after the
      name of the program.
    required: names of the flags that have to be given.
    takes_arguments: whether words that are no flags mean something.
    keeps_programs: whether what it compiles is kept for its next start.
  """
  if any(word in _HELP for word in _before_dashes(sys.argv[1:])):
    print(_help(sys.modules[main.__module__], required))
    return
  # TensorFlow comes with the metric writers; its greetings help nobody.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  before_jax.widen_vectors()
  if keeps_programs:
    before_jax.keep_compiled()
  absl_logging.use_absl_handler()
  # Orbax tells every detail of a save at the level of information.
  absl_logging.set_verbosity(absl_logging.WARNING)
  app.run(
    lambda argv: _call(main, argv),
    flags_parser=lambda argv: _parse(argv, required, takes_arguments),
  )


def fail(message: object, code: int) -> None:
  """Ends the process with one line on standard error."""
  print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
  sys.exit(code)


def _call(main, argv: list[str]) -> None:
  try:
    main(argv)
  except Exception as e:
    if (code := errors.code(e)) == errors.OUR_MISTAKE:
      raise
    logging.debug("where it was raised:", exc_info=True)  # with -v=1
    fail(errors.describe(e), code)


# ------------------------------------------------------------------- parsing


def _parse(
  argv: list[str], required: Sequence[str], takes_arguments: bool
) -> list[str]:
  """Parses the flags, and returns the words that are none."""
  try:
    words = flags.FLAGS(argv)
    _check_config_file()
  except Exception as e:  # a config file is a program, and can raise anything
    fail(_explain(e), errors.BAD_CONFIG)
  for name in required:
    if flags.FLAGS[name].value is None:
      fail(f"--{name} is missing; --help explains it.", errors.BAD_CONFIG)
  if len(words) > 1 and not takes_arguments:
    fail(
      f"{words[1]!r} is no flag of this command; --help lists them, and a value"
      " follows its flag as in --name=value.",
      errors.BAD_CONFIG,
    )
  return words


def _check_config_file() -> None:
  """Refuses a config file that could not be read, or that returned nothing.

  ml_collections tells of either only when a field is read.
  """
  if "config" not in flags.FLAGS or not flags.FLAGS["config"].present:
    return
  if flags.FLAGS.config is None:
    name = flags.FLAGS["config"].config_filename
    raise ValueError(f"--config={name}: get_config() returns no config.")
  flags.FLAGS.config.is_locked  # noqa: B018  raises OSError


def _explain(error: Exception) -> str:
  """Says what is wrong with the command line, or with the config file.

  An error that the config file raised is told by the line that raised it,
  instead of the whole traceback that ml_collections puts into its message.
  """
  causes = list(_causes(error))
  for cause in causes:
    if line := _line_of_config(cause):
      return f"{line}: {type(cause).__name__}: {cause}"
  if unknown := [c for c in causes if isinstance(c, KeyError)]:
    return f"--config has no such field: {unknown[-1].args[0]}"
  if isinstance(error, OSError | AttributeError):
    # The last line has the path and the reason.
    return f"--config: {errors.describe(causes[0]).strip().splitlines()[-1]}"
  return str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
  """Yields what led to an error, the first cause first, and the error last."""
  if earlier := error.__cause__ or error.__context__:
    yield from _causes(earlier)
  yield error


def _line_of_config(error: BaseException) -> str:
  """Returns FILE:LINE of a config file that an error passed through, or ""."""
  if isinstance(error, SyntaxError) and os.path.exists(error.filename or ""):
    return f"{error.filename}:{error.lineno}"
  for frame in traceback.extract_tb(error.__traceback__):
    if not _PARSES.search(frame.filename):
      return f"{frame.filename}:{frame.lineno}"
  return ""


# ---------------------------------------------------------------------- help


def _before_dashes(words: list[str]) -> list[str]:
  """Returns the words before a lone "--", after which none is a flag."""
  return words[: words.index("--")] if "--" in words else words


def _help(module, required: Sequence[str]) -> str:
  """Returns a command's docstring and its own flags."""
  own = flags.FLAGS.get_key_flags_for_module(module)
  lines = [_line_of_flag(flag, flag.name in required) for flag in own]
  return "\n".join([module.__doc__.strip(), "", "Flags:", *lines])


def _line_of_flag(flag: flags.Flag, required: bool) -> str:
  """Describes a flag: its name, help text, and default."""
  name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
  if required:
    status = "required"
  elif flag.default in (None, "", []):
    status = "optional"
  else:
    status = f"default: {flag.default_as_str.strip(chr(39))}"
  if isinstance(flag, flags.MultiFlag):
    status += "; may be given several times"
  return textwrap.fill(
    f"{name}: {' '.join(flag.help.split())} ({status})",
    width=80,
    initial_indent="  ",
    subsequent_indent="      ",
    break_on_hyphens=False,
  )

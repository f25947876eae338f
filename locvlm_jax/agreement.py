"""Whether a config says of weights what they mean.

A command that reads a run or a Llava directory takes from it what the weights
depend on (`weights/meaning.py`): model, coords, geometry, prompt_format,
tokenizer, video. `adopt` puts that into the config of the command; a flag that
says otherwise is refused. `check` refuses all else that differs, so that a
program without a command line is held to the same. A field that `--override`
names keeps the config's value, and the results say so.

Training starts from weights, and may then go its own way: another dtype, a
LoRA, captions in "plain"; `start=True` is for that.
"""

import os
import sys
from collections.abc import Collection, Mapping

from locvlm_jax.config import Config, flat, plain, replaced
from locvlm_jax.weights import meaning as meaning_lib
from locvlm_jax.weights import runs

_Differences = dict[str, tuple[object, object]]


def adopt(
  config: Config,
  directory: str,
  said: Collection[str] = (),
  override: Collection[str] = (),
  *,
  start: bool = False,
) -> Config:
  """Takes what weights depend on from the directory that holds them.

  Args:
    config: of the command.
    directory: a run's workdir or a Llava; "": there is none.
    said: fields that the command line sets, as "coords.form".
    override: fields, or groups of them, that may differ, besides those that
      the config names.
    start: whether training starts from them; else they are asked.

  Raises:
    ValueError: a field that the command line sets differs; names both values.
    DataError: no such directory, or it is damaged.
  """
  if not directory:
    return config
  field = "init.override" if start else "eval.override"
  named = config.init.override if start else config.eval.override
  config = replaced(config, {field: (*named, *override)})
  meaning = _meaning(config, directory, start)
  found, _ = _compared(config, meaning, start)
  _refuse({n: v for n, v in found.items() if n in said}, directory)
  new = {name: theirs for name, (_, theirs) in found.items()}
  if "tokenizer" in new:
    _check_unchanged(new["tokenizer"], meaning)
  if new:
    shown = ", ".join(f"{name}={value!r}" for name, value in new.items())
    print(f"as {directory} was trained: {shown}", file=sys.stderr, flush=True)
  return replaced(config, new)


def adopt_start(
  config: Config, said: Collection[str], override: Collection[str]
) -> Config:
  """Does as `adopt`, for the weights that training starts from (`source`)."""
  return adopt(config, source(config), said, override, start=True)


def recorded(directory: str) -> Config:
  """Reads the config that weights were trained with, and their tokenizer.

  Raises:
    DataError: no such directory, or it is damaged.
    ValueError: the directory does not say.
  """
  config = runs.stored_config(directory)
  if meaning_lib.has_tokenizer(directory):
    return replaced(config, {"tokenizer": directory})
  _check_unchanged(config.tokenizer, meaning_lib.read(directory))
  return config


def check(
  config: Config, directory: str, *, start: bool = False
) -> dict[str, dict[str, object]]:
  """Refuses a config that differs from what the weights depend on.

  Args:
    config: all of it.
    directory: a run's workdir or a Llava; "": there is none.
    start: whether training starts from them; else they are asked.

  Returns:
    The fields that differ and were named as overridden, {field: {"trained":
    value, "used": value}}.

  Raises:
    ValueError: a field differs; names both values.
  """
  if not directory:
    return {}
  meaning = _meaning(config, directory, start)
  found, overridden = _compared(config, meaning, start)
  _refuse(found, directory)
  return {
    name: {"trained": theirs, "used": ours}
    for name, (ours, theirs) in overridden.items()
  }


def check_tokenizer(tokenizer: str, *directories: str) -> None:
  """Refuses a tokenizer that is not the one of the weights.

  Args:
    tokenizer: its directory; nothing is said of one that is not there.
    directories: of the weights, as `meaning.read` takes them.

  Raises:
    ValueError: names both.
  """
  if meaning_lib.has_tokenizer(tokenizer):
    meaning = meaning_lib.read(*directories)
    _refuse(_tokenizers(tokenizer, meaning), meaning.directory)


def source(config: Config) -> str:
  """Names the directory that training starts from, "" without one."""
  return config.init.checkpoint or config.init.llava


def _meaning(
  config: Config, directory: str, start: bool
) -> meaning_lib.Meaning:
  """Reads that of the directory; LLaVA's own rest on others that init names."""
  if not start:
    meaning_lib.check_complete(directory)
    return meaning_lib.read(directory)
  init = config.init
  other = () if init.checkpoint else (init.vision, init.llm)
  return meaning_lib.read(directory, *other)


def _check_unchanged(tokenizer: str, meaning: meaning_lib.Meaning) -> None:
  """Refuses to take a tokenizer that is not what it was."""
  found = meaning_lib.fingerprint(tokenizer)
  if not found or found != (meaning.tokenizer or found):
    raise ValueError(
      f"{meaning.directory} was trained with the tokenizer {tokenizer}, which"
      f" {'has changed' if found else 'is not there'}: set --config.tokenizer"
      " (beside --config) to where it is now."
    )


def _compared(
  config: Config, meaning: meaning_lib.Meaning, start: bool
) -> tuple[_Differences, _Differences]:
  """(what differs, and what differs and may), {field: (here, there)}."""
  names = config.init.override if start else config.eval.override
  _check_names(config, names)
  found = _differences(config, meaning, start)
  may = {f for f in found if any(_is_of(f, name) for name in names)}
  return (
    {field: values for field, values in found.items() if field not in may},
    {field: values for field, values in found.items() if field in may},
  )


def _check_names(config: Config, names: Collection[str]) -> None:
  """Refuses names that are no field which weights depend on."""
  fields = [n for n in _fields(config) if meaning_lib.is_compared(n)]
  for name in names:
    if not any(_is_of(field, name) for field in fields):
      raise ValueError(
        f"--override={name}: not {', '.join(meaning_lib.GROUPS)}, or a field"
        " of these that weights depend on."
      )


def _is_of(field: str, name: str) -> bool:
  """Says whether a field is the named one, or of the named group."""
  return field == name or field.startswith(f"{name}.")


def _fields(config: Config) -> dict[str, object]:
  return {k.replace("/", "."): v for k, v in flat(plain(config)).items()}


def _refuse(found: _Differences, directory: str) -> None:
  if not found:
    return
  pairs = (f"{n}={a!r} (there: {b!r})" for n, (a, b) in found.items())
  raise ValueError(
    f"{directory} was trained otherwise: {', '.join(pairs)}. Leave out what"
    f" contradicts it, or keep it with --override={','.join(found)}."
  )


def _differences(
  config: Config, meaning: meaning_lib.Meaning, start: bool
) -> _Differences:
  """Everything that differs."""
  ours, theirs = _fields(config), dict(meaning.fields)
  found = _tokenizers(ours["tokenizer"], meaning)
  found |= _formats(ours, theirs, start)
  for compared in ("tokenizer", "prompt_format", "eval.prompt_format"):
    theirs.pop(compared, None)
  theirs = _of_start(theirs) if start else theirs
  known = {n: v for n, v in theirs.items() if n in ours}
  return found | {n: (ours[n], v) for n, v in known.items() if ours[n] != v}


def _of_start(theirs: Mapping) -> dict[str, object]:
  """Leaves out what a stage decides anew: dtype, base weights, and a LoRA."""
  new_lora = not theirs.get("lora.rank")
  anew = ("model.dtype", "model.llm.base_weights")
  return {
    name: value
    for name, value in theirs.items()
    if name not in anew and not (new_lora and _is_of(name, "lora"))
  }


def _formats(ours: Mapping, theirs: Mapping, start: bool) -> _Differences:
  """Compares the formats of questions: captions, in "plain", have none."""
  asked = _question_format(theirs)
  if not asked or (start and asked == "plain"):
    return {}
  allowed = {
    "prompt_format": (asked, "plain"),
    "eval.prompt_format": (asked, ""),
  }
  found = {
    name: (ours[name], asked)
    for name, values in allowed.items()
    if ours[name] not in values
  }
  if not (start or found) and _question_format(ours) != asked:
    found = {"prompt_format": (ours["prompt_format"], asked)}
  return found


def _question_format(fields: Mapping) -> str:
  """As `assemble.question_format`; "" where nothing is said."""
  return fields.get("eval.prompt_format") or fields.get("prompt_format", "")


def _tokenizers(ours: str, meaning: meaning_lib.Meaning) -> _Differences:
  """Compares tokenizers by what they do, since their folders may move."""
  theirs = meaning.fields.get("tokenizer", "")
  wanted = meaning.tokenizer or meaning_lib.fingerprint(theirs)
  if not theirs or (wanted and meaning_lib.fingerprint(ours) == wanted):
    return {}
  if not wanted and _same_path(ours, theirs):
    return {}
  return {"tokenizer": (ours, theirs)}


def _same_path(one: str, other: str) -> bool:
  return bool(one) and os.path.abspath(one) == os.path.abspath(other)

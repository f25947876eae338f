"""Prepares a data set, and says what `recipe` is to run on it.

The folder of the run receives, besides what the recipe writes,

  data/train.json, data/held_out.json   the boxes in COCO's format
  data/about.txt                        what was found and decided
  data/words.json                       what is trained of a Llava
"""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence

from locvlm_jax import errors, files
from locvlm_jax.data import reading
from locvlm_jax.data.formats import annotated
from locvlm_jax.data.sources import any_format
from locvlm_jax.fitting import division, survey, what_trains
from locvlm_jax.training import recipe
from locvlm_jax.weights import meaning
from locvlm_jax.weights.layouts import huggingface

MICRO = "micro"  # the name of the committed base
_OF_A_LLAVA = ("llava", "llava,lora")  # words of the config
_CONFIG = "configs/fit.py"
# Relative, so that the run means the same in another clone.
_MICRO_BASE = os.path.relpath(
  os.path.join(os.path.dirname(__file__), os.pardir, "assets", "micro_base")
)


@dataclasses.dataclass(frozen=True)
class Fit:
  """What is asked for.

  Attributes:
    data: the data set, as `recognize.read` takes it.
    images: the folder of its pictures; "": where the format has them.
    out: the folder of the run.
    model: "micro", or the directory of a Llava.
    seed: of the division of the data, where it has none.
    fields: of the config, as "steps=300".
    command: the words of the line that asks for it again.
  """

  data: str
  images: str
  out: str
  model: str
  seed: int
  fields: tuple[str, ...]
  command: tuple[str, ...]


def run(fit: Fit) -> None:
  """Prepares the data, trains, evaluates before and after, and reports.

  Raises:
    DataError: the data set or the model is wrong; names file and record.
    ValueError: too little memory for the model, or a field is no FIELD=VALUE.
    SystemExit: a command failed; the exit code is that of the command.
  """
  if wrong := [f for f in fit.fields if "=" not in f]:
    raise ValueError(f"--set={wrong[0]}: write FIELD=VALUE, as in steps=300.")
  _check_apart(fit)
  base = base_of(fit.model)
  divided = division.divide(fit.data, fit.images, fit.seed)
  own, told = _prepared(fit, divided, base)
  flags = (*own, *(f"--config.{field}" for field in fit.fields))
  print(*told, sep="\n", flush=True)
  about = os.path.join(fit.out, "data", "about.txt")
  files.write_lines(about, [f"{line}\n" for line in told])
  recipe.run(
    recipe.Recipe(
      config=f"{_CONFIG}:{_words(fit, flags)}",
      workdir=fit.out,
      stages=("stage2",),
      overrides=flags,
      reference=None,
      command=shlex.join(fit.command),
      base=base,
    )
  )


def _check_apart(fit: Fit) -> None:
  """Refuses a run among the data, whose files would be read as annotations."""
  folder = fit.data
  if not os.path.isdir(folder):
    folder = folder.rpartition(":")[0]
  data, out = os.path.realpath(folder), os.path.realpath(fit.out)
  if os.path.isdir(folder) and os.path.commonpath((data, out)) == data:
    raise ValueError(
      f"--out={fit.out}: is within --data={fit.data}; name a folder elsewhere."
    )


def base_of(model: str) -> str:
  """Finds the directory of the model that training starts from."""
  if model == MICRO:
    return _MICRO_BASE
  if not os.path.isdir(model):
    raise errors.DataError(f"--model={model}: no such directory.")
  if not huggingface.is_llava(model):
    raise errors.DataError(
      f"--model={model}: not a Llava in Hugging Face's layout; of LLaVA's own,"
      " locvlm_jax.convert makes one."
    )
  return model


def _words(fit: Fit, flags: Sequence[str]) -> str:
  """Chooses the words of the config, once for a run: memory may vary."""
  if fit.model == MICRO:
    return MICRO
  path = os.path.join(fit.out, "data", "words.json")
  if os.path.exists(path):
    return reading.read_json(path)
  whole, lora = (
    [f"--config={_CONFIG}:stage2,{words}", *flags] for words in _OF_A_LLAVA
  )
  is_lora, why = what_trains.choose(whole, lora)
  print(why, flush=True)
  words = _OF_A_LLAVA[is_lora]
  files.write_lines(path, [json.dumps(words)])
  return words


def _prepared(
  fit: Fit, divided: division.Division, base: str
) -> tuple[list[str], list[str]]:
  """Writes the two parts; returns (flags of the commands, what was found)."""
  fields = meaning.read(base).fields
  side = fields["model.vision.image_size"]
  folder = os.path.join(fit.out, "data")
  files.check_writable(folder, "--out")
  train, flags = _written(folder, "train", "data", divided.train)
  held_out, more = _written(folder, "held_out", "eval", divided.held_out)
  found = survey.survey(train, side)
  own = fields.get("geometry", "center_crop")
  geometry, why = survey.choose_geometry(found, own)
  per_object, reason = survey.choose_rows(found)
  flags += [
    *more,
    f"--config.init.llava={base}",
    f"--config.geometry={geometry}",
    "--override=geometry",
    f"--config.data.per_object={per_object}",
  ]
  return flags, [
    f"{fit.data}: {divided.train.told}",
    divided.told,
    *(f"train: {line}" for line in survey.describe(found)),
    *(f"held out: {x}" for x in survey.describe(survey.survey(held_out, side))),
    why,
    reason,
  ]


def _written(
  folder: str, name: str, group: str, data: annotated.DataSet
) -> tuple[any_format.AnyInstances, list[str]]:
  """Writes one part; returns it, opened, and the flags that name it."""
  path = os.path.join(folder, f"{name}.json")
  files.write_lines(path, [json.dumps(data.content)])
  flags = [
    f"--config.{group}.instances={path}",
    f"--config.{group}.images={data.folder}",
  ]
  return any_format.AnyInstances(path, data.folder), flags

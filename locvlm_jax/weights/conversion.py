"""Converts weights from one layout to another.

What a directory holds is seen from its files:

  "run"       a run's workdir; merged if it trained a LoRA
  "llava"     a Llava in Hugging Face's layout
  "original"  one of LLaVA's own: a whole model, a projector or a LoRA
  "vision"    a CLIP or SigLIP, whole or its vision tower
  "llm"       a LLaMA, Vicuna or Qwen2

LLaVA's own need a CLIP beside them and, without a language model of their own,
an LLM.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from locvlm_jax import files
from locvlm_jax.config import Config, completed, freeze, plain
from locvlm_jax.models import locvlm, quantized
from locvlm_jax.models import params as params_lib
from locvlm_jax.text import tokenizer as tokenizer_lib
from locvlm_jax.weights import (
  checkpoints,
  frozen,
  initial,
  lora_merge,
  meaning,
  quantizing,
  runs,
)
from locvlm_jax.weights.layouts import (
  export,
  huggingface,
  original,
  peft_export,
  processor_json,
  tensor_files,
)


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Directories that weights are read from.

  Attributes:
    directory: what is converted.
    vision: a CLIP, for what has no vision tower of its own; "" for none.
    base: an LLM, for what has no language model of its own; "" for none.
  """

  directory: str
  vision: str = ""
  base: str = ""


class Opened(NamedTuple):
  """A model on disk.

  Attributes:
    directory: where it lies.
    kind: see the docstring of this module.
    params: by path; nothing is read yet.
    shape: the configuration of the model, the vision tower or the LLM.
    tokenizer: the directory of its tokenizer, "" if it has none.
    usage: how pictures and conversations are put to it.
    origin: where all came from, for origin.json.
  """

  directory: str
  kind: str
  params: Mapping[str, Any]
  shape: Any
  tokenizer: str
  usage: processor_json.Usage
  origin: dict


def kind(directory: str) -> str:
  """Tells what a directory holds.

  Raises:
    DataError: nothing that can be told.
  """
  if os.path.isdir(runs.checkpoint_dir(directory)):
    return "run"
  raw = tensor_files.read_json(directory, "config.json")
  if str(raw.get("model_type")).startswith(("clip", "siglip")):
    return "vision"
  if huggingface.is_llava(directory):
    return "llava"
  return "original" if original.is_llava(directory) else "llm"


def init_fields(inputs: Inputs) -> dict[str, str]:
  """Returns the fields of `config.init` that name these directories."""
  fields = {"vision": inputs.vision, "llm": inputs.base}
  if inputs.directory:
    what = kind(inputs.directory)
    field = {"run": "checkpoint", "original": "llava"}.get(what, what)
    fields[field] = inputs.directory
  return {name: path for name, path in fields.items() if path}


def open_model(
  inputs: Inputs,
  build: Callable[[Config], locvlm.LocVLM],
  versions: Callable[[], Mapping[str, str]],
  *,
  merge: bool = True,
) -> Opened:
  """Opens a directory, of whatever kind it is.

  Args:
    inputs: the directory, and those that it needs.
    build: makes the model of a run's config.
    versions: tells what a run's weights depend on, for origin.json.
    merge: adds a run's LoRA to what it adapts.

  Raises:
    ValueError: the files do not hold exactly such a model, or a directory that
      it needs is not named.
  """
  if not inputs.directory:
    raise ValueError("--input is missing: a run's workdir, or a model.")
  what = kind(inputs.directory)
  if what == "run":
    return _open_run(inputs, build, versions(), merge)
  return _open_foreign(what, inputs)


def _open_run(
  inputs: Inputs, build, versions: Mapping[str, str], merge: bool
) -> Opened:
  """Opens the newest checkpoint of a run; adds a LoRA to what it adapts."""
  workdir = inputs.directory
  given = dict.fromkeys(frozen.FIELDS, "")
  given |= {"vision": inputs.vision, "llm": inputs.base}
  params, info = initial.open_params(workdir, given)
  config = freeze(completed(info["config"]))
  origin = {
    "stage": config.stage,
    "step": info["next_step"],
    "config": plain(config),
    "versions": versions,
    "metrics": _metrics(workdir, config.stage, info["next_step"]),
  }
  shape = build(config).config
  llm = dataclasses.replace(shape.llm, base_weights="float")
  shape = dataclasses.replace(shape, llm=llm)
  params = quantizing.in_precision(params, "float")
  if shape.lora.rank and merge:
    params = lora_merge.merge(params, shape.lora.scale)
  usage = _usage_of(config)
  return Opened(workdir, "run", params, shape, config.tokenizer, usage, origin)


def _metrics(directory: str, stage: str, step: int) -> dict[str, float]:
  """What `evaluate` found of a checkpoint, or `reproduce` of its stages."""
  path = os.path.join(directory, "results.json")
  if not os.path.isfile(path):
    return {}
  found = tensor_files.read_json(directory, "results.json")
  same = found.get("stages", {}).get(stage, {})
  if found.get("origin", {}).get("step") == step:
    return found.get("metrics", {})
  return same.get("metrics", {}) if same.get("steps") == step else {}


def _open_foreign(what: str, inputs: Inputs) -> Opened:
  """Opens a model that others have made."""
  directory, vision, base = dataclasses.astuple(inputs)
  if what == "llava":
    params, shape = huggingface.open_llava(directory)
  elif what == "vision":
    params, shape = huggingface.open_clip_vision(directory)
  elif what == "llm":
    params, shape = huggingface.open_llama(directory)
  else:
    params, shape = original.open_llava(directory, vision, base)
  places = (directory, base if what == "original" else "")
  own = next((p for p in places if p and tokenizer_lib.exists(p)), "")
  origin = _recorded(directory)
  origin |= {"input": directory, "vision": vision, "base": base}
  usage = _usage(directory, what)
  return Opened(directory, what, params, shape, own, usage, origin)


def _recorded(directory: str) -> dict:
  """What an export says of the run that it came from."""
  if not os.path.isfile(os.path.join(directory, "origin.json")):
    return {}
  origin = tensor_files.read_json(directory, "origin.json")
  if not origin.get("metrics") and {"stage", "step"} <= origin.keys():
    found = _metrics(directory, origin["stage"], origin["step"])
    origin |= {"metrics": found} if found else {}
  return origin


def _usage(directory: str, what: str) -> processor_json.Usage:
  """How a model of others is used, or one that was exported here."""
  if what == "original":
    geometry = original.geometry(directory)
    return processor_json.Usage(geometry, source=directory)
  if recorded := runs.recorded_config(directory):
    return _usage_of(freeze(completed(recorded)), directory)
  return processor_json.Usage(source=directory)


def _usage_of(config: Config, source: str = "") -> processor_json.Usage:
  """How the model of a run is used."""
  e = config.eval
  sampling = (e.temperature, e.top_k, e.top_p)
  return processor_json.Usage(
    config.geometry, config.prompt_format, source, sampling
  )


def meant_for(opened: Opened, program: str) -> Opened:
  """Returns the model to be written for "transformers" or for "vllm"."""
  usage = dataclasses.replace(opened.usage, program=program)
  return opened._replace(usage=usage)


def write_hf(
  opened: Opened,
  output: str,
  tokenizer: str = "",
  dtype: str | None = None,
  card: str = "",
) -> Mapping[str, Any]:
  """Writes a model in Hugging Face's layout, with origin.json.

  Args:
    opened: the model.
    output: the directory.
    tokenizer: the directory of its tokenizer, in place of the model's own.
    dtype: as stored; None: bfloat16 of a run, else as in the input.
    card: the text of README.md; "": none is written.

  Returns:
    The parameters that were written, by path.

  Raises:
    ValueError: the model needs a tokenizer and has none.
  """
  what, shape = opened.kind, opened.shape
  tokenizer = tokenizer or opened.tokenizer
  if what != "vision" and not (tokenizer and tokenizer_lib.exists(tokenizer)):
    where = tokenizer or opened.directory
    raise ValueError(f"{where}: no tokenizer: name --tokenizer.")
  stored = dtype or ("bfloat16" if what == "run" else None)
  stored = stored and np.dtype(stored)
  params = params_lib.unflatten(opened.params)
  if what == "vision":
    export.save_clip_vision(output, params, shape, stored)
  elif what == "llm":
    export.save_llama(output, params, shape, stored, tokenizer)
  else:
    export.save_llava(output, params, shape, tokenizer, stored, opened.usage)
  files.write_json(os.path.join(output, "origin.json"), opened.origin)
  if card:
    files.write_lines(os.path.join(output, "README.md"), [card])
  prefix = f"{what}/" if what in ("vision", "llm") else ""
  return {prefix + path: value for path, value in opened.params.items()}


def write_peft(
  opened: Opened,
  output: str,
  tokenizer: str = "",
  dtype: str | None = None,
  card: str = "",
) -> Mapping[str, Any]:
  """Writes a run's LoRA in PEFT's layout, and in base/ what it adapts.

  Args:
    opened: a run that trained a LoRA, not merged.
    output: the directory.
    tokenizer: as for `write_hf`.
    dtype: as stored; None: bfloat16 of the base, float32 of the LoRA.
    card: the text of README.md; "": none is written.

  Returns:
    The parameters that were written, by path.

  Raises:
    ValueError: nothing there is a LoRA.
  """
  updates, rest = peft_export.split(opened.params)
  if not updates:
    what = "one without" if opened.kind == "run" else "no run"
    raise ValueError(
      f"{opened.directory}: --to=peft is for a run that trained a LoRA; this is"
      f" {what}: use --to=hf."
    )
  base = os.path.join(output, peft_export.BASE)
  write_hf(opened._replace(params=rest), base, tokenizer, dtype)
  lora = opened.shape.lora
  stored = np.dtype(dtype or "float32")
  peft_export.save_lora(output, updates, lora, stored)
  files.write_json(os.path.join(output, "origin.json"), opened.origin)
  if card:
    files.write_lines(os.path.join(output, "README.md"), [card])
  return opened.params


def write_checkpoint(
  config: Config, model: locvlm.LocVLM, mesh: jax.sharding.Mesh, workdir: str
) -> Mapping[str, Any]:
  """Writes what `config.init` names as a checkpoint of step 0.

  Args:
    config: all of it; its stage tells which parameters are trainable.
    model: that of the config.
    mesh: that the parameters lie on.
    workdir: of the new run.

  Returns:
    The parameters that were written, by path.

  Raises:
    ValueError: `config.init` names nothing.
  """
  init = config.init
  if not (init.checkpoint or init.llava or init.vision or init.llm):
    raise ValueError("--input is missing, and config.init names no weights.")
  params = initial.initial_params(config, model, mesh)
  trainable, rest = params_lib.split(params, config.trainable)
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(workdir))
  items = {"params": {"trainable": trainable, "frozen": rest}}
  info = {
    "next_step": 0,
    "config": plain(config),
    "data": {"tokenizer": meaning.fingerprint(config.tokenizer)},
  }
  saved.save(0, items, info, last=True)
  saved.close()
  return params


def summary(params: Mapping[str, Any]) -> list[str]:
  """Describes each part of a model in a line: tensors, parameters, dtypes."""
  parts = collections.defaultdict(list)
  for path, value in params.items():
    parts[path.split("/")[0]].append((path, value))
  return [
    f"{part:8s} {len(values):3d} tensors"
    f" {_num_values(values) / 1e6:10.3f} M parameters "
    f" {' '.join(sorted({str(x.dtype) for _, x in values}))}"
    for part, values in sorted(parts.items())
  ]


def _num_values(values: Sequence[tuple[str, Any]]) -> int:
  return sum(quantized.num_values(p, x.shape, x.dtype) for p, x in values)

"""Weights from one layout to another: `python -m locvlm_jax.convert`.

  --input DIR --output DIR                       -> Hugging Face's layout
  --input DIR --output WORKDIR --to ours --config=C   -> a checkpoint of step 0

What --input holds is seen from its files:

  a run's workdir, merged if it trained a LoRA       -> a Llava
  a Hugging Face Llava, or one of LLaVA's own        -> a Llava
  a LLaMA, Vicuna or Qwen2                           -> the same, safetensors
  a CLIP or SigLIP (whole, or its vision tower)      -> its vision tower

LLaVA's own are a whole model, a projector or a LoRA; they need --vision CLIP
and, without an LLM of their own, --base LLM. The output has safetensors,
config.json, the tokenizer and, in origin.json, where all came from. `--to
ours` gives what `config.init.checkpoint` takes: sharded, in the dtypes of the
config's stage.
"""

import collections
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags

from locvlm_jax import command
from locvlm_jax.config import completed, freeze, plain

_INPUT = flags.DEFINE_string("input", None, "What to convert; see above.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.")
_TO = flags.DEFINE_enum("to", "hf", ["hf", "ours"], "The layout to write.")
_DTYPE = flags.DEFINE_enum(
  "dtype", None, ["bfloat16", "float32"],
  "As it is stored; default: bfloat16 for a run, else as in the input.",
)  # fmt: skip
_VISION = flags.DEFINE_string("vision", "", "CLIP's directory; see above.")
_BASE = flags.DEFINE_string("base", "", "The LLM's directory; see above.")
_TOKENIZER = flags.DEFINE_string(
  "tokenizer", "",
  "Directory of tokenizer.json or tokenizer.model; default: the input's own.",
)  # fmt: skip


class Source(NamedTuple):
  """What an input holds.

  Attributes:
    params: by path; nothing is read yet.
    config: the model's shape.
    tokenizer: the directory of its tokenizer, "" if it has none.
    origin: what origin.json says.
  """

  params: Mapping[str, Any]
  config: Any
  tokenizer: str
  origin: dict


def main(argv: list[str]) -> None:
  """The layout of --input -> that of --to."""
  del argv
  params = _to_ours() if _TO.value == "ours" else _to_hf()
  for line in report(params):
    print(f"  {line}")
  print(_OUTPUT.value)


def kind(directory: str) -> str:
  """What a directory holds: "run", "llava", "original", "vision" or "llm".

  Raises:
    ValueError: nothing that can be told.
  """
  from locvlm_jax.weights import (
    checkpoints,
    huggingface,
    original,
    tensor_files,
  )

  if os.path.isdir(checkpoints.checkpoint_dir(directory)):
    return "run"
  raw = tensor_files.read_json(directory, "config.json")
  if str(raw.get("model_type")).startswith(("clip", "siglip")):
    return "vision"
  if huggingface.is_llava(directory):
    return "llava"
  return "original" if original.is_llava(directory) else "llm"


def report(params: Mapping[str, Any]) -> list[str]:
  """A line for each part: tensors, parameters, dtypes."""
  import numpy as np

  parts = collections.defaultdict(list)
  for path, x in params.items():
    parts[path.split("/")[0]].append(x)
  return [
    f"{part:8s} {len(xs):3d} tensors"
    f" {sum(int(np.prod(x.shape)) for x in xs) / 1e6:10.3f} M parameters "
    f" {' '.join(sorted({str(x.dtype) for x in xs}))}"
    for part, xs in sorted(parts.items())
  ]


def _to_hf() -> Mapping[str, Any]:
  import numpy as np

  from locvlm_jax import files
  from locvlm_jax.models import params as params_lib
  from locvlm_jax.text import tokenizer as tokenizer_lib
  from locvlm_jax.weights import export

  if not _INPUT.value:
    raise ValueError("--input is missing: a run's workdir, or a model.")
  what = kind(_INPUT.value)
  source = _SOURCES[what](_INPUT.value)
  words = _TOKENIZER.value or source.tokenizer
  if what != "vision" and not (words and tokenizer_lib.exists(words)):
    raise ValueError(
      f"{words or _INPUT.value}: no tokenizer: name --tokenizer."
    )
  name = _DTYPE.value or ("bfloat16" if what == "run" else None)
  dtype = name and np.dtype(name)
  params = params_lib.unflatten(source.params)
  if what == "vision":
    export.save_clip_vision(_OUTPUT.value, params, source.config, dtype)
  elif what == "llm":
    export.save_llama(_OUTPUT.value, params, source.config, dtype, words)
  else:
    export.save_llava(_OUTPUT.value, params, source.config, words, dtype)
  files.write_json(os.path.join(_OUTPUT.value, "origin.json"), source.origin)
  prefix = {"vision": "vision/", "llm": "llm/"}.get(what, "")
  return {prefix + path: x for path, x in source.params.items()}


def _run(workdir: str) -> Source:
  from locvlm_jax import assemble, provenance
  from locvlm_jax.weights import checkpoints, lora_merge

  params, info = checkpoints.open_params(workdir)
  config = freeze(completed(info["config"]))
  origin = {
    "stage": config.stage,
    "step": info["next_step"],
    "config": plain(config),
    "versions": provenance.versions(),
  }
  shape = assemble.model(config).config
  if shape.lora.rank:
    params = lora_merge.merge(params, shape.lora.scale)
  return Source(params, shape, config.tokenizer, origin)


def _llava(directory: str) -> Source:
  from locvlm_jax.weights import huggingface

  return _with_tokenizer(*huggingface.open_llava(directory), directory)


def _original(directory: str) -> Source:
  from locvlm_jax.weights import original

  opened = original.open_llava(directory, _VISION.value, _BASE.value)
  return _with_tokenizer(*opened, directory, _BASE.value)


def _llm(directory: str) -> Source:
  from locvlm_jax.weights import huggingface

  return _with_tokenizer(*huggingface.open_llama(directory), directory)


def _vision(directory: str) -> Source:
  from locvlm_jax.weights import huggingface

  return _with_tokenizer(*huggingface.open_clip_vision(directory), directory)


def _with_tokenizer(params, config, *directories: str) -> Source:
  from locvlm_jax.text import tokenizer as tokenizer_lib

  places = [p for p in directories if p and tokenizer_lib.exists(p)]
  origin = {
    "input": directories[0],
    "vision": _VISION.value,
    "base": _BASE.value,
  }
  return Source(params, config, places[0] if places else "", origin)


_SOURCES = {
  "run": _run,
  "llava": _llava,
  "original": _original,
  "llm": _llm,
  "vision": _vision,
}


def _to_ours() -> Mapping[str, Any]:
  from locvlm_jax import assemble, checks
  from locvlm_jax.models import params as params_lib
  from locvlm_jax.parallel import sharding
  from locvlm_jax.weights import checkpoints, initial

  config = command.config(init=_named())
  checks.check(config)
  if not any(config.init.values()):
    raise ValueError("--input is missing, and config.init names no weights.")
  params = initial.initial_params(
    config, assemble.model(config), sharding.make_mesh(dict(config.mesh))
  )
  trainable, frozen = params_lib.split(params, config.trainable)
  saved = checkpoints.Checkpoints(checkpoints.checkpoint_dir(_OUTPUT.value))
  items = {"params": {"trainable": trainable, "frozen": frozen}}
  saved.save(0, items, {"next_step": 0, "config": plain(config)}, last=True)
  saved.close()
  return params


def _named() -> dict[str, str]:
  """Fields of config.init that the flags name."""
  named = {"vision": _VISION.value, "llm": _BASE.value}
  if _INPUT.value:
    what = kind(_INPUT.value)
    field = {"run": "checkpoint", "original": "llava"}.get(what, what)
    named[field] = _INPUT.value
  return {field: value for field, value in named.items() if value}


if __name__ == "__main__":
  command.run(main, required=["output"])

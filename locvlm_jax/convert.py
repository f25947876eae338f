"""Weights from one layout to another: `python -m locvlm_jax.convert`.

  --input WORKDIR --output DIR                  a run -> Hugging Face Llava
  --input LLAVA --output DIR                    a Llava -> Hugging Face Llava
  --to ours --config=C --config.init.llava=LLAVA --output WORKDIR

LLAVA is a Hugging Face Llava directory, or one of LLaVA's own: whole, a
projector or a LoRA, with --vision CLIP and, without an LLM of its own, --base
LLM. `--to hf` writes safetensors, config.json, tokenizer and, in origin.json,
where they came from; transformers and `config.init.llava` take the directory.
`--to ours` writes what `config.init` names as a checkpoint of step 0, which
`config.init.checkpoint` takes: sharded, in the dtypes of the config's stage.
"""

import json
import os

from absl import flags

from locvlm_jax import command

_INPUT = flags.DEFINE_string("input", None, "A run's workdir, or a Llava.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.")
_TO = flags.DEFINE_enum("to", "hf", ["hf", "ours"], "The layout to write.")
_DTYPE = flags.DEFINE_enum(
  "dtype", None, ["bfloat16", "float32"],
  "As it is stored; default: bfloat16 for a run, else as in the input.",
)  # fmt: skip
_VISION = flags.DEFINE_string("vision", "", "CLIP's directory; see above.")
_BASE = flags.DEFINE_string("base", "", "The LLM's directory; see above.")
_TOKENIZER = flags.DEFINE_string(
  "tokenizer", None,
  "Directory of tokenizer.json or tokenizer.model; default: the input's own.",
)  # fmt: skip
flags.mark_flags_as_required(["output"])


def main(argv: list[str]) -> None:
  """The layout of --input, or what the config names -> that of --to."""
  del argv
  num = _to_ours() if _TO.value == "ours" else _to_hf()
  print(f"{_OUTPUT.value}: {num / 1e6:.2f} M parameters")


def _to_hf() -> int:
  import numpy as np

  from locvlm_jax import build, optim
  from locvlm_jax.weights import write

  if not _INPUT.value:
    raise ValueError("--input is missing: a run's workdir, or a Llava.")
  is_run = os.path.isdir(build.checkpoint_dir(_INPUT.value))
  flat, config, tokenizer, origin = _run() if is_run else _llava()
  dtype = _DTYPE.value or ("bfloat16" if is_run else None)
  write.save_llava(
    _OUTPUT.value, optim.unflatten(flat), config,
    _TOKENIZER.value or tokenizer, dtype and np.dtype(dtype),
  )  # fmt: skip
  with open(os.path.join(_OUTPUT.value, "origin.json"), "w") as f:
    json.dump(origin, f, indent=2, sort_keys=True)
  return sum(int(np.prod(x.shape)) for x in flat.values())


def _run():
  """(parameters, model's shape, tokenizer, origin) of the newest checkpoint."""
  from locvlm_jax import build

  flat, info = build.open_params(_INPUT.value)
  config = info["config"]
  origin = {"stage": config["stage"], "step": info["next_step"],
            "config": config, "versions": build.versions()}  # fmt: skip
  return flat, build.model(config).config, config["tokenizer"], origin


def _llava():
  """The same of a Llava, nothing of which is read yet."""
  from locvlm_jax import tokenizer
  from locvlm_jax.weights import original, read

  directory = _INPUT.value
  if read.is_llava(directory):
    flat, config = read.open_llava(directory)
  else:
    flat, config = original.open_llava(directory, _VISION.value, _BASE.value)
  places = [p for p in (directory, _BASE.value) if p and tokenizer.exists(p)]
  origin = {"input": directory, "vision": _VISION.value, "base": _BASE.value}
  return flat, config, places[0] if places else None, origin


def _to_ours() -> int:
  from locvlm_jax import build, checkpoint, optim, sharding

  config = command.config()
  build.check(config)
  if not any(config["init"].values()):
    raise ValueError("config.init names no weights: set init.llava, say.")
  params = build.initial_params(
    config, build.model(config), sharding.make_mesh(config["mesh"])
  )
  trainable, frozen = optim.split(params, config["trainable"])
  saved = checkpoint.Checkpoints(build.checkpoint_dir(_OUTPUT.value))
  items = {"params": {"trainable": trainable, "frozen": frozen}}
  saved.save(0, items, {"next_step": 0, "config": config}, last=True)
  saved.close()
  return sum(x.size for x in params.values())


if __name__ == "__main__":
  command.run(main)

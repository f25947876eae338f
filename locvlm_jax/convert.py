"""Weights out: `python -m locvlm_jax.convert --input WORKDIR --output DIR`.

Writes the newest checkpoint of a run as a Hugging Face Llava directory, which
transformers and `config.init.llava` take: safetensors, config.json, tokenizer,
and the run's config in origin.json.
"""

import json
import os

from absl import flags

from locvlm_jax import command

_INPUT = flags.DEFINE_string("input", None, "The workdir of a run.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.")
_DTYPE = flags.DEFINE_enum(
  "dtype", "bfloat16", ["bfloat16", "float32"], "As it is stored."
)
flags.mark_flags_as_required(["input", "output"])


def main(argv: list[str]) -> None:
  """Checkpoint -> parameters -> Hugging Face layout."""
  del argv
  import ml_dtypes
  import numpy as np

  from locvlm_jax import build, optim
  from locvlm_jax.weights import write

  flat, info = build.load_params(_INPUT.value)
  config = info["config"]
  dtype = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}[_DTYPE.value]
  params = optim.unflatten(
    {path: np.asarray(v).astype(dtype) for path, v in flat.items()}
  )
  model, out = build.model(config), _OUTPUT.value
  write.save_llava(out, params, model.config, config["tokenizer"])
  origin = {"stage": config["stage"], "step": info["next_step"],
            "config": config, "versions": build.versions()}  # fmt: skip
  with open(os.path.join(out, "origin.json"), "w", encoding="utf-8") as f:
    json.dump(origin, f, indent=2, sort_keys=True)
  print(f"{out}: {sum(v.size for v in flat.values()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
  command.run(main)

"""Converts weights from one layout to another: `python -m locvlm_jax.convert`.

  --input DIR --output DIR                       -> Hugging Face's layout
  --input WORKDIR --output DIR --to peft             -> its LoRA, and its base
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

from absl import flags

from locvlm_jax import command

_CONFIG = command.define_config(
  "The config that --to ours writes a checkpoint for."
)
_INPUT = flags.DEFINE_string("input", "", "The directory to convert.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.")
_TO = flags.DEFINE_enum(
  "to", "hf", ["hf", "peft", "ours"], "The layout to write."
)
_FOR = flags.DEFINE_enum(
  "for", "transformers", ["transformers", "vllm"],
  "Which of the two loads the output as it is; README.md there says how the"
  " other does.",
)  # fmt: skip
_DTYPE = flags.DEFINE_enum(
  "dtype", None, ["bfloat16", "float32"],
  "How numbers are stored; if absent, as bfloat16 for a run and else as in the"
  " input.",
)  # fmt: skip
_VISION = flags.DEFINE_string("vision", "", "The directory of a CLIP.")
_BASE = flags.DEFINE_string("base", "", "The directory of an LLM.")
_TOKENIZER = flags.DEFINE_string(
  "tokenizer", "",
  "The directory of tokenizer.json or tokenizer.model; if absent, the input's.",
)  # fmt: skip

_OVERRIDE = command.define_override()


def main(argv: list[str]) -> None:
  """Converts, and prints what was written."""
  del argv
  from locvlm_jax import agreement, assemble, checks, provenance
  from locvlm_jax.inference import confidence
  from locvlm_jax.parallel import sharding
  from locvlm_jax.reports import model_card
  from locvlm_jax.weights import conversion

  inputs = conversion.Inputs(_INPUT.value, _VISION.value, _BASE.value)
  if _TO.value == "ours":
    config = command.config(init=conversion.init_fields(inputs))
    config = agreement.adopt_start(config, command.said(), _OVERRIDE.value)
    checks.check(config)
    mesh = sharding.make_mesh(assemble.mesh_sizes(config))
    params = conversion.write_checkpoint(
      config, assemble.model(config), mesh, _OUTPUT.value
    )
  else:
    unmerged = _TO.value == "peft"
    opened = conversion.open_model(
      inputs, assemble.model, provenance.versions, merge=not unmerged
    )
    _check_flags(opened, inputs)
    opened = conversion.meant_for(opened, _FOR.value)
    card = ""
    if opened.kind in ("run", "llava"):
      card = model_card.render(
        opened.origin, opened.shape, _FOR.value, is_adapter=unmerged
      )
    write = conversion.write_peft if unmerged else conversion.write_hf
    params = write(opened, _OUTPUT.value, _TOKENIZER.value, _DTYPE.value, card)
  for line in conversion.summary(params):
    print(f"  {line}")
  if carried := confidence.carry(_INPUT.value, _OUTPUT.value):
    print(f"  {carried}")
  print(_OUTPUT.value)


def _check_flags(opened, inputs) -> None:
  """Refuses a tokenizer, or a config, that is not that of the weights."""
  from locvlm_jax import agreement

  if _CONFIG.value and opened.kind in ("run", "llava"):
    agreement.adopt(
      command.config(), inputs.directory, command.said(), _OVERRIDE.value
    )
  tokenizer = _TOKENIZER.value or opened.tokenizer
  if opened.kind != "vision" and "tokenizer" not in _OVERRIDE.value:
    agreement.check_tokenizer(
      tokenizer, inputs.directory, inputs.vision, inputs.base
    )


if __name__ == "__main__":
  command.run(main, required=["output"])

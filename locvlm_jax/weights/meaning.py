"""What the weights of a directory mean, as far as the directory says it.

A kernel says nothing about how it is to be used: RoPE's theta, the form in
which the model writes a location, the crop of its images, the text around a
question. A run has all of it in its checkpoints, an export of a run in
origin.json, and the Llava of others a part of it in config.json.
"""

import dataclasses
from collections.abc import Mapping

from locvlm_jax.config import completed, flat
from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.text import tokenizer as tokenizer_lib
from locvlm_jax.weights import runs
from locvlm_jax.weights.layouts import huggingface, original, tensor_files

# Fields of a config, or groups of them, that weights depend on.
GROUPS = (
  "model", "coords", "geometry", "prompt_format", "tokenizer", "video", "lora",
  "eval.prompt_format",
)  # fmt: skip
# Of these, what changes memory and speed, or training, alone.
_FREE = (
  "model.remat", "model.unroll", "model.attention", "video.chunk",
  "video.cache", "lora.dropout",
)  # fmt: skip
# LLaVA's words for what is done to a picture that is no square
# (`LLaVA:llava/mm_utils.py`, process_images); without one CLIP's crop is taken.
_ASPECT_RATIOS = {"pad": "pad", "square": "center_crop", None: "center_crop"}


@dataclasses.dataclass(frozen=True)
class Meaning:
  """How the weights of a directory are to be used.

  Attributes:
    directory: that of the weights.
    fields: values of a config's fields, {"coords.form": "ivb"}. What the
      directory does not say is not there.
    tokenizer: the fingerprint of its tokenizer; "": unknown.
  """

  directory: str
  fields: Mapping[str, object]
  tokenizer: str = ""


def read(directory: str, vision: str = "", base: str = "") -> Meaning:
  """Reads it from the files of a run or a Llava; opens no device.

  Args:
    directory: a run's workdir, or a Llava of Hugging Face or LLaVA.
    vision: the vision tower of one of LLaVA's own.
    base: the LLM of one of LLaVA's own.

  Raises:
    DataError: there is no such directory, or its files are damaged.
    ValueError: it is a model of another kind.
  """
  runs.check_exists(directory)
  if runs.is_run(directory):
    info = runs.newest_info(directory)
    fields = _recorded(completed(info["config"]))
    shape = _shape_of_run(info["config"]["model"])
    mark = info.get("data", {}).get("tokenizer", "")
    return Meaning(directory, shape | fields, mark)
  return _of_llava(directory, vision, base)


def check_complete(directory: str) -> None:
  """Refuses what is neither a run nor a Llava of Hugging Face.

  Raises:
    ValueError: says how to make one of it.
  """
  runs.check_exists(directory)
  if not (runs.is_run(directory) or huggingface.is_llava(directory)):
    raise ValueError(
      f"{directory}: neither a run nor a Llava in Hugging Face's layout; of"
      " LLaVA's own, locvlm_jax.convert makes one."
    )


def _of_llava(directory: str, vision: str, base: str) -> Meaning:
  """Reads config.json and origin.json; of an LLM alone, only its tokenizer."""
  raw, shape = tensor_files.read_json(directory, "config.json"), {}
  if huggingface.is_llava(directory):
    shape = _shape(huggingface.open_llava(directory)[1])
  elif original.is_llava(directory):
    shape = _shape(original.open_llava(directory, vision, base)[1])
  fields = _recorded(runs.recorded_config(directory) or _aspect_ratio(raw))
  own = next((d for d in (directory, base) if has_tokenizer(d)), "")
  found = fields | shape | ({"tokenizer": own} if own else {})
  return Meaning(directory, found, fingerprint(own))


def has_tokenizer(directory: str) -> bool:
  """Says whether a directory has a tokenizer's files."""
  return bool(directory) and tokenizer_lib.exists(directory)


def fingerprint(directory: str) -> str:
  """Gives that of a directory's tokenizer; "" where there is none."""
  if not has_tokenizer(directory):
    return ""
  return tokenizer_lib.Tokenizer.load(directory).fingerprint()


def _aspect_ratio(raw: Mapping) -> dict:
  """LLaVA's own config.json says it; Hugging Face's usually does not.

  Raises:
    ValueError: a way to cut pictures that is not ours.
  """
  if "image_aspect_ratio" not in raw:
    return {}
  if (word := raw["image_aspect_ratio"]) not in _ASPECT_RATIOS:
    allowed = [name for name in _ASPECT_RATIOS if name]
    raise ValueError(
      f"config.json: image_aspect_ratio {word!r}; only {allowed} can be read"
    )
  return {"geometry": _ASPECT_RATIOS[word]}


def _recorded(config: Mapping) -> dict[str, object]:
  """The fields of a stored config that weights depend on."""
  fields = {k.replace("/", "."): v for k, v in flat(config).items()}
  if not fields.get("lora.rank"):  # what a LoRA would have been means nothing
    fields = {k: v for k, v in fields.items() if not k.startswith("lora.")}
    fields["lora.rank"] = 0
  return {k: v for k, v in fields.items() if is_compared(k)}


def is_compared(name: str) -> bool:
  """Says whether weights depend on a field of the config."""
  return name not in _FREE and any(
    name == group or name.startswith(f"{group}.") for group in GROUPS
  )


def _shape_of_run(model: Mapping) -> dict[str, object]:
  """The fields of `config.model`, with those that later versions have."""
  return _shape(
    locvlm.LocVLMConfig(
      vision=clip_vit.VisionConfig(**model["vision"]),
      adapter=model["adapter"],
      llm=llama.LlamaConfig(**model["llm"]),
    )
  )


def _shape(config: locvlm.LocVLMConfig) -> dict[str, object]:
  parts = {"vision": config.vision, "llm": config.llm}
  fields = {
    f"model.{part}.{name}": value
    for part, shape in parts.items()
    for name, value in dataclasses.asdict(shape).items()
  }
  return {"model.adapter": config.adapter, **fields}

"""What transformers reads beside a Llava: pictures, prompts, generation.

preprocessor_config.json   the square that the model sees, its mean and std
processor_config.json      how many visual tokens a picture has
chat_template.jinja        how a conversation becomes text
generation_config.json     the temperature; what starts, ends and fills a row
image_processing_locvlm.py the square, where transformers has no such processor
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping

from locvlm_jax import ASSETS
from locvlm_jax.models import clip_vit, locvlm
from locvlm_jax.text import formats
from locvlm_jax.text.tokenizer import IMAGE, Tokenizer

_CODE = "image_processing_locvlm.py"
NAMES = (
  "preprocessor_config.json", "processor_config.json", "chat_template.jinja",
  "chat_template.json", "generation_config.json", _CODE,
)  # fmt: skip
_BICUBIC = 3  # of PIL
# As `encode_prompt` has it, all pictures come before the first question.
_TEMPLATE = """\
{{- BOS -}}
{%- set all = namespace(first=true, images='') -%}
{%- for message in messages if message['content'] is not string -%}
{%- for part in message['content'] if part['type'] == 'image' -%}
{%- set all.images = all.images + '<image>' -%}
{%- endfor -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set text = namespace(value='') -%}
{%- if message['content'] is string -%}
{%- set text.value = message['content'] -%}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- set text.value = text.value + part['text'] -%}
{%- endfor -%}
{%- endif -%}
{%- for special in SPECIALS if special in text.value -%}
{{- raise_exception(special + ' in a text would become a special token') -}}
{%- endfor -%}
{%- if message['role'] == 'user' -%}
{{- START if all.first else USER -}}
{{- all.images + NEWLINE if all.first and all.images else '' -}}
{{- text.value.strip() -}}
{%- set all.first = false -%}
{%- if not loop.last or add_generation_prompt -%}{{- ASSISTANT -}}{%- endif -%}
{%- elif message['role'] == 'assistant' -%}
{{- ' ' + text.value.strip() + END -}}
{%- else -%}
{{- raise_exception('only the roles user and assistant are known') -}}
{%- endif -%}
{%- endfor -%}
"""


@dataclasses.dataclass(frozen=True)
class Usage:
  """How a model is used, as far as it is known.

  Attributes:
    geometry: of its pictures: center_crop, pad or square; "" if unknown.
    prompt_format: of its conversations, a name of `FORMATS`; "" if unknown.
    source: a directory whose files about it are copied; "" for none.
    sampling: temperature, top_k and top_p of its answers, as in `config.eval`.
    program: that reads the files first of all: "transformers" or "vllm".
  """

  geometry: str = ""
  prompt_format: str = ""
  source: str = ""
  sampling: tuple[float, int, float] = (0.0, 0, 1.0)
  program: str = "transformers"


def copy_files(source: str, target: str) -> None:
  """Copies the files that a directory has about the use of its model."""
  for name in NAMES:
    if os.path.isfile(path := os.path.join(source, name)):
      shutil.copyfile(path, os.path.join(target, name))


def write_files(
  directory: str,
  config: locvlm.LocVLMConfig,
  strategy: str,
  usage: Usage,
  text: Tokenizer | None,
) -> None:
  """Writes what is known of the files that a directory of a Llava lacks.

  Args:
    directory: with config.json.
    config: the model's shape.
    strategy: its vision_feature_select_strategy.
    usage: how the model is used.
    text: its tokenizer.
  """
  if usage.source:
    copy_files(usage.source, directory)
  vision, content = config.vision, {}
  if usage.geometry:
    content["preprocessor_config.json"] = preprocessor_json(
      vision, usage.geometry
    )
    content["processor_config.json"] = processor_json(vision, strategy)
    if needs_code(vision, usage.geometry):
      content[_CODE] = (ASSETS / _CODE).read_text(encoding="utf-8")
  fmt = formats.FORMATS.get(usage.prompt_format)
  if text:
    content["generation_config.json"] = generation_json(text, fmt, usage)
  if text and fmt:
    content["chat_template.jinja"] = chat_template(fmt, text)
  for name, value in content.items():
    path = os.path.join(directory, name)
    if value is not None and not os.path.exists(path):
      with open(path, "w", encoding="utf-8") as f:
        f.write(value if isinstance(value, str) else _as_json(value))
  _set_greedy(os.path.join(directory, "generation_config.json"), usage.program)


def _set_greedy(path: str, program: str) -> None:
  """Makes a copied file say in the program's words that answers are greedy.

  vLLM reads the temperature alone, and transformers warns of it.
  """
  if not os.path.exists(path):
    return
  with open(path, encoding="utf-8") as f:
    content = json.load(f)
  if content.get("do_sample") is False and not content.get("temperature"):
    content.pop("temperature", None)
    content |= {"temperature": 0.0} if program == "vllm" else {}
    with open(path, "w", encoding="utf-8") as f:
      f.write(_as_json(content))


def _as_json(value: Mapping) -> str:
  return json.dumps(value, indent=2, sort_keys=True) + "\n"


def needs_code(vision: clip_vit.VisionConfig, geometry: str) -> bool:
  """Says whether transformers has no processor for such a square.

  Its own pads with the tower's mean color; all of ours are trained with CLIP's.
  """
  return geometry == "pad" and vision.family != "clip"


def preprocessor_json(vision: clip_vit.VisionConfig, geometry: str) -> dict:
  """Describes how a picture becomes the model's square.

  Args:
    vision: the vision tower.
    geometry: of the config: center_crop, pad or square.

  Returns:
    What LlavaImageProcessor reads, or that of image_processing_locvlm.py,
    which its user has to trust.
  """
  side = vision.image_size
  square = {"height": side, "width": side}
  name, code = "LlavaImageProcessor", {}
  if needs_code(vision, geometry):
    # A name that transformers does not know, lest its own be taken instead.
    name = "LocvlmImageProcessor"
    module = _CODE.removesuffix(".py")
    code = {"auto_map": {"AutoImageProcessor": f"{module}.{name}"}}
  return code | {
    "image_processor_type": name,
    "processor_class": "LlavaProcessor",
    "do_convert_rgb": True,
    "do_pad": geometry == "pad",
    "do_resize": True,
    "size": square if geometry == "square" else {"shortest_edge": side},
    "resample": _BICUBIC,
    "do_center_crop": geometry != "square",
    "crop_size": square,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(clip_vit.MEAN[vision.family]),
    "image_std": list(clip_vit.STD[vision.family]),
  }


def processor_json(vision: clip_vit.VisionConfig, strategy: str) -> dict:
  """Describes the number of visual tokens; see `config_json.llava_json`."""
  return {
    "processor_class": "LlavaProcessor",
    "image_token": "<image>",
    "patch_size": vision.patch_size,
    "num_additional_image_tokens": int(vision.family == "clip"),  # CLS
    "vision_feature_select_strategy": strategy,
  }


def generation_json(
  text: Tokenizer, fmt: formats.Format | None, usage: Usage
) -> dict:
  """Describes how answers are decoded, and what ends one.

  Args:
    text: the tokenizer.
    fmt: the conversation format; None if unknown.
    usage: has the sampling, and the program that is to read it.
  """
  temperature, top_k, top_p = usage.sampling
  found = token_ids(text) | {"do_sample": temperature > 0}
  if temperature:  # without a top_k, transformers takes 50
    found |= {"temperature": temperature, "top_k": top_k, "top_p": top_p}
  if fmt and not fmt.end.endswith(formats.EOS):
    found["stop_strings"] = [fmt.end]
  return found


def token_ids(text: Tokenizer) -> dict[str, int | None]:
  """Returns the ids that config.json and generation_config.json name."""
  bos = text.start_ids[0] if text.start_ids else None
  return {
    "bos_token_id": bos,
    "eos_token_id": text.eos_id,
    "pad_token_id": text.pad_id,
  }


def chat_template(fmt: formats.Format, text: Tokenizer) -> str | None:
  """Writes a conversation format in transformers' template language.

  It begins with BOS, since vLLM adds none to what a template gives; where
  transformers tokenizes it (tokenize=True), it adds no second one.

  Returns:
    None for a format that has no place for a question.
  """
  if not fmt.questions:
    return None
  bos = text.piece(text.start_ids[0]) if text.start_ids else ""
  special = fmt.end.endswith(formats.EOS)
  again = bos if fmt.bos else ""
  words = {
    "SPECIALS": [*text.special_texts, IMAGE],
    "BOS": bos,
    "START": fmt.start,
    # Without a special token between them, the space that starts a text.
    "USER": again + fmt.user if special else " " + fmt.user,
    "NEWLINE": "\n",
    "ASSISTANT": fmt.assistant,
    "END": fmt.end.replace(formats.EOS, text.piece(text.eos_id)),
  }
  return re.sub("[A-Z]{3,}", lambda m: json.dumps(words[m[0]]), _TEMPLATE)

"""What transformers reads beside a Llava: pictures, prompts, generation.

preprocessor_config.json   the square that the model sees, its mean and std
processor_config.json      how many visual tokens a picture has
chat_template.jinja        how a conversation becomes text
generation_config.json     the tokens that start, end and fill a row
"""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping

from locvlm_jax.models import clip_vit, locvlm
from locvlm_jax.text import formats
from locvlm_jax.text.tokenizer import Tokenizer

NAMES = (
  "preprocessor_config.json", "processor_config.json", "chat_template.jinja",
  "chat_template.json", "generation_config.json",
)  # fmt: skip
_BICUBIC = 3  # of PIL
_TEMPLATE = """\
{%- set turn = namespace(first=true) -%}
{%- for message in messages -%}
{%- set text = namespace(value='', images='') -%}
{%- if message['content'] is string -%}
{%- set text.value = message['content'] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set text.images = text.images + '<image>' -%}
{%- elif part['type'] == 'text' -%}
{%- set text.value = text.value + part['text'] -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- START if turn.first else USER -}}
{{- text.images + NEWLINE if text.images else '' -}}
{{- text.value.strip() -}}
{%- set turn.first = false -%}
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
  """

  geometry: str = ""
  prompt_format: str = ""
  source: str = ""


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
  if text:
    content["generation_config.json"] = token_ids(text) | {"do_sample": False}
  if text and usage.prompt_format:
    fmt = formats.FORMATS[usage.prompt_format]
    content["chat_template.jinja"] = chat_template(fmt, text)
  for name, value in content.items():
    path = os.path.join(directory, name)
    if value is not None and not os.path.exists(path):
      with open(path, "w", encoding="utf-8") as f:
        f.write(value if isinstance(value, str) else _as_json(value))


def _as_json(value: Mapping) -> str:
  return json.dumps(value, indent=2, sort_keys=True) + "\n"


def preprocessor_json(
  vision: clip_vit.VisionConfig, geometry: str
) -> dict | None:
  """Describes how a picture becomes the model's square.

  Args:
    vision: the vision tower.
    geometry: of the config: center_crop, pad or square.

  Returns:
    What LlavaImageProcessor reads; None where it has no such geometry: it
    pads with the tower's own mean, and we with CLIP's.
  """
  if geometry == "pad" and vision.family != "clip":
    return None
  side = vision.image_size
  square = {"height": side, "width": side}
  return {
    "image_processor_type": "LlavaImageProcessor",
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

  The tokenizer itself adds BOS, as in training.

  Returns:
    None for a format that has no place for a question.
  """
  if not fmt.questions:
    return None
  bos = text.piece(text.start_ids[0]) if fmt.bos and text.start_ids else ""
  special = fmt.end.endswith(formats.EOS)
  words = {
    "START": fmt.start,
    # Without a special token between them, the space that starts a text.
    "USER": bos + fmt.user if special else " " + fmt.user,
    "NEWLINE": "\n",
    "ASSISTANT": fmt.assistant,
    "END": fmt.end.replace(formats.EOS, text.piece(text.eos_id)),
  }
  return re.sub("[A-Z]{3,}", lambda m: json.dumps(words[m[0]]), _TEMPLATE)

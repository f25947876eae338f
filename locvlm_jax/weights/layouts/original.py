"""LLaVA's own checkpoints -> our parameters (`LLaVA:llava/model/builder.py`).

  directory holds                 LLM from        the rest from
  a whole model (llava-v1.5-7b)   there           there
  mm_projector.bin                base            mm_projector.bin, base
  a LoRA (adapter_config.json)    base, merged    non_lora_trainables.bin, base

Whatever was trained beside the projector lies in the same file, and is taken
from there. The vision tower is in few of them; else it comes from CLIP's own
directory, which is needed in any case: LLaVA's config.json does not give its
shape.
"""

import dataclasses
import functools
import os
import re

import numpy as np

from locvlm_jax import errors
from locvlm_jax.models import locvlm
from locvlm_jax.weights import placement
from locvlm_jax.weights.layouts import (
  config_json,
  huggingface,
  peft_lora,
  tables,
  tensor_files,
)
from locvlm_jax.weights.layouts.json_fields import Fields
from locvlm_jax.weights.layouts.tensor_files import File
from locvlm_jax.weights.placement import Tensor

_PROJECTORS = {"linear": "linear", "mlp2x_gelu": "mlp"}
_MODEL_TYPES = ("llava_llama", "llava", "llama")
_PROJECTOR_FILES = ("mm_projector.bin", "non_lora_trainables.bin")
# What LLaVA's other fields have to say: (field, default, values).
_ONLY = (
  ("mm_vision_select_feature", "patch", ("patch",)),
  ("mm_use_im_start_end", False, (False,)),
  # The token is in the vocabulary, and in no prompt.
  ("mm_use_im_patch_token", False, (False, True)),
  ("mm_patch_merge_type", "flat", ("flat",)),
  ("image_aspect_ratio", "square", ("square", "pad")),
  ("use_mm_proj", True, (True,)),
  ("s2", False, (False,)),
)
# Fields that say nothing of what is computed, or that are read elsewhere here.
_READ = re.compile(
  r"mm_(projector_type|hidden_size|vision_tower|vision_select_layer|tunable_parts"
  r"|.*_lr)"
)
_TOWER = "mm_vision_tower"  # among mm_tunable_parts
_CLIP_NAME = re.compile(r".*clip-vit-\w+-patch(\d+)(?:-(\d+))?/*")


def open_llava(
  directory: str, vision: str, base: str = ""
) -> tuple[dict[str, Tensor], locvlm.LocVLMConfig]:
  """Opens a checkpoint of LLaVA's repository; see the module.

  Args:
    directory: with config.json.
    vision: a Hugging Face CLIP directory.
    base: the LLM's directory, where `directory` has none or a LoRA of it.

  Returns:
    The parameters by path, still on disk, and the model's shape.

  Raises:
    ValueError: the files do not hold exactly such a model.
  """
  fields = Fields.read(directory, "config.json")
  config = _config(fields, vision)
  home = _home(directory, base)
  files = tensor_files.files(home)
  complete = home == directory and _mention(files, "mm_projector")
  trained, unread = _projector_files(directory, complete)
  flat = _whole(home, files, config, not _mention(trained, "mm_projector"))
  flat |= _projector(flat, trained, directory, config)
  flat = _with_tower(flat, trained, vision, fields, config)
  for file in trained:
    flat = peft_lora.replaced(flat, file, peft_lora.table_keys(file))
  for file in unread:
    _tell_unread(flat, file)
  if peft_lora.is_there(directory):
    flat = peft_lora.merged(flat, directory)
  return flat, config


def is_llava(directory: str) -> bool:
  """Says whether `open_llava` is for it: LLaVA's fields, projector or LoRA."""
  files = {tensor_files.ADAPTER, *_PROJECTOR_FILES}
  raw = Fields.read(directory, "config.json").content
  return (
    "mm_projector_type" in raw
    or "mm_hidden_size" in raw
    or bool(files & set(os.listdir(directory)))
  )


def geometry(directory: str) -> str:
  """Names the geometry that a checkpoint was trained with, as config.json says.

  LLaVA pads an image to a square, or leaves it to CLIP's center crop.
  """
  fields = Fields.read(directory, "config.json")
  padded = fields.get("image_aspect_ratio") == "pad"
  return "pad" if padded else "center_crop"


def _config(fields: Fields, vision: str) -> locvlm.LocVLMConfig:
  """Reads LLaVA's config.json; each of its own fields is read or refused."""
  for name, default, allowed in _ONLY:
    fields.only(name, default, *allowed)
  named = {name for name, *_ in _ONLY}
  for name, value in fields.content.items():
    if name.startswith("mm_") and name not in named and value:
      if not _READ.fullmatch(name):
        raise ValueError(
          f"{fields.path}: {name} {value!r:.200}: what it stands for can't be"
          " read"
        )
  kind = fields.only("mm_projector_type", "linear", *_PROJECTORS)
  tower = fields.word("mm_vision_tower", "CLIP ViT-L/14")
  if not vision:
    raise ValueError(
      f"{fields.path}: name the directory of its vision tower too ({tower})"
    )
  layer = fields.integer("mm_vision_select_layer", -2)
  clip = huggingface.open_clip_vision(vision)[1]
  config = locvlm.LocVLMConfig(
    vision=config_json.with_feature_layer(clip, fields, layer),
    adapter=_PROJECTORS[kind],
    llm=config_json.llama_config(
      fields, fields.only("model_type", "llama", *_MODEL_TYPES) and "llama"
    ),
  )
  _check_vision(fields, config, vision)
  return config


def _check_vision(
  fields: Fields, config: locvlm.LocVLMConfig, directory: str
) -> None:
  """Compares the vision tower that was given with the one that is named."""
  found = config.vision
  if (width := fields.size("mm_hidden_size", found.width)) != found.width:
    raise ValueError(
      f"{fields.path}: mm_hidden_size {width}; {directory} is a vision tower of"
      f" width {found.width}"
    )
  if match := _CLIP_NAME.fullmatch(fields.word("mm_vision_tower", "")):
    sizes = int(match[1]), int(match[2] or 224)
    if sizes != (found.patch_size, found.image_size):
      raise ValueError(
        f"{fields.path}: mm_vision_tower {match[0]!r} has patches of {sizes[0]}"
        f" and images of {sizes[1]} pixels; {directory} has"
        f" {found.patch_size} and {found.image_size}"
      )


def _home(directory: str, base: str) -> str:
  """The directory of the LLM."""
  whole = tensor_files.has_weights(directory)
  lora = peft_lora.is_there(directory)
  if whole and lora:
    tensor_files.files(directory)  # says why they can't be together
  if whole and base:
    raise ValueError(
      f"{directory} holds a whole model, and {base} is named as its base: leave"
      " the base out, or move the model's files"
    )
  if not whole and not base:
    raise ValueError(
      f"{directory} holds no language model of its own: name its base's"
      " directory too"
    )
  return base or directory


def _projector_files(
  directory: str, complete: bool
) -> tuple[list[File], list[File]]:
  """(the file with what was trained, if there is one; files that are not read).

  LLaVA reads such a file beside a base alone: a model that is complete has its
  projector among its own tensors.
  """
  there = os.listdir(directory)
  names = [name for name in _PROJECTOR_FILES if name in there]
  if peft_lora.is_there(directory):
    names.reverse()
  files = [tensor_files.open_file(os.path.join(directory, n)) for n in names]
  return ([], files) if complete else (files[:1], files[1:])


def _mention(files: list[File], word: str) -> bool:
  """Whether a tensor of these files has `word` in its name."""
  return any(word in key for file in files for key in file.keys())


def _whole(
  home: str, files: list[File], config: locvlm.LocVLMConfig, projector: bool
) -> dict[str, Tensor]:
  """The LLM; the vision tower and, if wanted, the projector if it is there."""
  parts, ignored = ["llm/"], tables.LLAVA_IGNORED
  parts += ["vision/"] * _mention(files, "vision_tower")
  parts += ["adapter/"] * (projector and _mention(files, "mm_projector"))
  if not projector:
    ignored += r"|multi_modal_projector\..*"
  if config.llm.tie_embeddings:
    ignored += r"|language_model\.lm_head\.weight"
  renames, leaves = tables.ORIGINAL_RENAMES, _leaves(config, *parts)
  flat = huggingface.open_tensors(home, files, leaves, renames, ignored)
  if config.llm.tie_embeddings:
    huggingface.check_tied(files, renames, flat["llm/embedding"])
  return flat


def _leaves(config: locvlm.LocVLMConfig, *parts: str) -> list[tables.Leaf]:
  return [x for x in tables.llava_leaves(config) if x.path.startswith(parts)]


def _projector(
  flat: dict[str, Tensor],
  trained: list[File],
  directory: str,
  config: locvlm.LocVLMConfig,
) -> dict[str, Tensor]:
  """The projector from its own file, if `flat` has none."""
  own = peft_lora.is_there(directory) or tensor_files.has_weights(directory)
  if own and any(path.startswith("adapter/") for path in flat):
    return {}  # not that of a base that nothing was added to
  if not trained:
    raise errors.DataError(
      f"{directory}: no projector there: neither"
      f" {' nor '.join(_PROJECTOR_FILES)}"
    )
  return huggingface.open_tensors(
    trained[0].path,
    trained,
    _leaves(config, "adapter/"),
    tables.ORIGINAL_RENAMES,
    r"(?!multi_modal_projector\.).*",
  )


def _with_tower(
  flat: dict[str, Tensor],
  trained: list[File],
  vision: str,
  fields: Fields,
  config: locvlm.LocVLMConfig,
) -> dict[str, Tensor]:
  """Adds CLIP's vision tower, if the model's own is not there.

  Raises:
    DataError: config.json says that the tower was trained, and no file has it.
  """
  if any(path.startswith("vision/") for path in flat):
    return flat
  tuned = str(fields.get("mm_tunable_parts", "")).split(",")
  if fields.flag("unfreeze_mm_vision_tower", False) or _TOWER in tuned:
    if not _mention(trained, "vision_tower"):
      raise errors.DataError(
        f"{fields.path} says that the vision tower was trained"
        " (unfreeze_mm_vision_tower), and no file there has it"
      )
  tensors, _ = huggingface.open_clip_vision(vision, config.vision.feature_layer)
  tower = {f"vision/{path}": tensor for path, tensor in tensors.items()}
  return flat | peft_lora.with_parts(tower, _as_llavas)


def _as_llavas(part: placement.Part) -> placement.Part:
  """A tensor of CLIP by the name that it has in a whole model."""
  leaf = part.leaf
  named = leaf._replace(
    key=f"vision_tower.{leaf.key}", path=f"vision/{leaf.path}"
  )
  return dataclasses.replace(part, leaf=named)


def _tell_unread(flat: dict[str, Tensor], file: File) -> None:
  """Prints a line about a projector file that is not the model's own."""
  own = {part.leaf.key: part for t in flat.values() for part in t.parts}
  differing = [
    name
    for key, name in peft_lora.table_keys(file).items()
    if key not in own or not _same(own[key], file, name)
  ]
  if differing:
    _tell(
      f"{file.path} is not read: {len(differing)} of its tensors, as"
      f" {differing[0]}, are not those of the model beside it, which is"
      " complete. To take them, name the base and move the model away."
    )


@functools.cache
def _tell(line: str) -> None:
  """Prints a line once, however often the files are opened."""
  print(line, flush=True)


def _same(own: placement.Part, file: File, name: str) -> bool:
  shape = file.shape(name)
  if shape != own.file.shape(own.name):
    return False
  everything = (slice(None),) * len(shape)
  theirs = file.read(name, everything)
  return np.array_equal(own.file.read(own.name, everything), theirs)

"""From a config to its parts: the model, rows, questions."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax

from locvlm_jax.config import Config
from locvlm_jax.data import catalog, objectives, question_view, rows
from locvlm_jax.data.build import built_for
from locvlm_jax.data.exclude import exclusion, leakage
from locvlm_jax.data.media import clips
from locvlm_jax.data.records import Source
from locvlm_jax.data.sources import conversation_boxes
from locvlm_jax.models import clip_vit, layers, llama, locvlm, lora, params
from locvlm_jax.models import video as video_lib
from locvlm_jax.models.kernels import segments
from locvlm_jax.parallel import sharding
from locvlm_jax.text import coords, families, formats, tokenizer

# Sources whose questions are those of the objectives.
_ASKED = ("instances", "tracks")


def model(
  config: Config, device_kind: str = "", remat: str = ""
) -> locvlm.LocVLM:
  """Builds the model that `config.model` describes.

  Args:
    config: all of it.
    device_kind: of the devices that it is to run on; "": of those here.
    remat: what the backward pass computes again, in place of
      `config.model.remat`.
  """
  m = config.model
  kind = device_kind or jax.devices()[0].device_kind
  frozen = not any(re.match(t, "llm/layers") for t in config.trainable)
  usual, unroll = layers.defaults(kind, frozen, row_length(config))
  remat = remat or m.remat
  remat = usual if remat == "auto" else remat
  # Unrolled layers share their gathered kernels with the backward pass, which
  # costs the memory that rematerialization is there to save.
  unroll = unroll if remat == "none" else 1
  return locvlm.LocVLM(
    locvlm.LocVLMConfig(
      vision=clip_vit.VisionConfig(**m.vision),
      adapter=m.adapter,
      llm=llama.LlamaConfig(**m.llm),
      video=video_config(config),
      lora=lora.LoraConfig(**config.lora),
      dtype=m.dtype,
      remat=remat,
      unroll=m.unroll or unroll,
      bound=_bound(config),
    )
  )


def training_model(
  config: Config, device_kind: str = "", remat: str = ""
) -> locvlm.LocVLM:
  """Builds the model as it trains: with the attention of the config.

  Answers are another matter, since weights that were trained on a TPU are
  asked elsewhere too: `model` leaves attention to the device.

  Args:
    config, device_kind, remat: as for `model`.

  Raises:
    ValueError: the devices have no such attention.
  """
  attention = config.model.attention
  kind = device_kind or jax.devices()[0].device_kind
  if attention == "splash" and not kind.startswith("TPU"):
    raise ValueError(
      f"model.attention={attention!r} on {kind}: the kernel is of TPUs; set"
      " --config.model.attention=auto."
    )
  shape = model(config, kind, remat).config
  return locvlm.LocVLM(dataclasses.replace(shape, attention=attention))


def _bound(config: Config) -> segments.Bound:
  """Says how many conversations, or branches, a row of training holds.

  Sources that bring their own turns have conversations as long as a row.
  """
  d, longest = config.data, row_length(config)
  if not d.tree:
    return segments.Bound(d.pack, longest) if d.pack > 1 else segments.Bound()
  asked = all(n in _ASKED for n, weight in d.mixture.items() if weight)
  branch = longest - d.text_length + d.tree
  return segments.Bound(d.max_pairs, branch if asked else longest)


def mesh_sizes(config: Config) -> dict[str, int]:
  """Returns the size of each mesh axis; at most one is -1: all that are left.

  See `sharding.sizes_for`, which decides where the config does not.
  """
  num = params.num_llm_parameters(config.model.llm)
  return sharding.sizes_for(dict(config.mesh), num)


def row_length(config: Config) -> int:
  """Counts the positions of the longest row, visual tokens and text."""
  v = config.model.vision
  patches = (v.image_size // v.patch_size) ** 2
  return video_config(config).num_visual(patches) + config.data.text_length


def video_config(config: Config) -> video_lib.VideoConfig:
  """Says how the model takes videos; `config.video.cache` is no part of it."""
  v = config.video
  return video_lib.VideoConfig(v.frames, v.temporal, v.chunk)


def excluded_files(config: Config) -> tuple[str, ...]:
  """Names the files whose images are not trained on.

  They are those of `data.exclude` and, with `data.exclude_eval`, the
  annotations and questions that `eval` names.
  """
  return tuple(sorted({test.path for test in test_sets(config)}))


def test_sets(config: Config) -> list[exclusion.TestSet]:
  """Lists these files, with the folders of their pictures."""
  found = [exclusion.TestSet(path) for path in config.data.exclude]
  if config.data.exclude_eval:
    found += catalog.test_sets(config.eval)
  return found


def training_sources(config: Config) -> dict[str, Source]:
  """Opens what `config.data` trains on, without the excluded images.

  Raises:
    DataError: a file is missing or malformed, or excludes nothing.
  """
  leakage.check_named(config.data.exclude)
  _check_built(config)
  return catalog.open_sources(
    config.data, exclude=test_sets(config), genome=config.data.visual_genome
  )


def _check_built(config: Config) -> None:
  """Refuses built conversations whose locations are not this run's."""
  locations = built_for.Locations(
    coords.Coords(**config.coords),
    config.geometry,
    config.model.vision.image_size,
  )
  for name in ("conversations", "video_conversations"):
    if config.data.mixture[name] > 0:
      built_for.check(config.data[name], locations)


def validation_sources(config: Config) -> dict[str, Source]:
  """Opens the files of `config.eval` of the kinds that are trained on.

  Raises:
    ValueError: `eval` has no file of any source that is trained on.
  """
  names = [n for n in catalog.used(config.data) if config.eval.get(n)]
  if not names:
    raise ValueError(
      "validation.every: eval names no file of a source that is trained on;"
      " set --config.eval.instances, or validation.rows=0."
    )
  return catalog.open_sources(config.data, files=config.eval, names=names)


def row_spec(
  config: Config,
  text: tokenizer.Tokenizer,
  sources: Mapping[str, Source],
  prompt_format: str = "",
) -> rows.RowSpec:
  """Says what a row holds; objectives name the categories that are annotated.

  Args:
    config: all of it.
    text: text to ids.
    sources: those that are trained on; empty where questions are asked.
    prompt_format: in place of `config.prompt_format`.
  """
  instances = sources.get("instances")
  named = [
    sources[n].categories for n in ("instances", "tracks") if n in sources
  ]
  size, frames = config.model.vision.image_size, config.video.frames
  patches = (size // config.model.vision.patch_size) ** 2
  weights = config.data.objectives
  return rows.RowSpec(
    tokenizer=text,
    format=formats.FORMATS[prompt_format or config.prompt_format],
    coords=coords.Coords(**config.coords),
    geometry=config.geometry,
    image_size=size,
    num_visual=video_config(config).num_visual(patches),
    text_length=config.data.text_length,
    max_pairs=config.data.max_pairs,
    weights=tuple(weights[name] for name in objectives.OBJECTIVES),
    # Of images and videos both, what either annotates.
    vocabulary=tuple(
      c for c in (named or [()])[0] if all(c in other for other in named)
    ),
    captions=instances.object_captions() if instances else None,
    boxes=config.data.conversation_boxes.removeprefix(conversation_boxes.MODEL),
    clips=clips.Clips(frames, config.geometry, size) if frames else None,
    detect=weights[objectives.DETECT],
    tree=config.data.tree,
  )


def question_spec(config: Config, text: tokenizer.Tokenizer) -> rows.RowSpec:
  """Says how the evaluation asks: in `eval.prompt_format` if there is one."""
  return row_spec(config, text, {}, question_format(config))


def question_format(config: Config) -> str:
  """Names the format that questions are asked in."""
  return config.eval.prompt_format or config.prompt_format


def load_tokenizer(config: Config) -> tokenizer.Tokenizer:
  """Reads the tokenizer, and checks it against the model's vocabulary.

  Raises:
    ValueError: there is none, or it has more pieces than the model.
  """
  if not (directory := config.tokenizer):
    raise ValueError("tokenizer: set --config.tokenizer to its directory.")
  text = tokenizer.Tokenizer.load(directory)
  size = config.model.llm.vocab_size
  if text.vocab_size > size:
    raise ValueError(
      f"model.llm.vocab_size={size}: the tokenizer in {directory} "
      f"has {text.vocab_size} pieces."
    )
  return text


def questions(
  config: Config, task: Any, *, seed: int, samples: int, files: Any = None
) -> list:
  """Makes the questions of one task.

  Args:
    config: all of it.
    task: an entry of `evals.tasks.EVALS`, or what has its methods.
    seed: of what is asked.
    samples: questions at most; 0: all.
    files: what names the annotations; default: `config.eval`.

  Returns:
    Questions that know the size of their image, if the annotations have it.
  """
  records = catalog.open_source(task.source, files or config.eval)
  family = families.FAMILIES[config.eval.prompts]
  seen = question_view.View(
    coords=family.coords(coords.Coords(**config.coords)),
    geometry=config.geometry,
    image_size=config.model.vision.image_size,
    vocabulary=records.categories,
    seed=seed,
    family=family,
    category_ids=records.category_ids,
  )
  asked = task.questions(records, seen, samples or None)
  found = (records[i] for i in range(len(records)))
  sizes = {record.image: (record.width, record.height) for record in found}
  return [
    dataclasses.replace(q, size=sizes.get(q.image, (0, 0))) for q in asked
  ]

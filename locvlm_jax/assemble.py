"""From a config to its parts: the model, rows, questions."""

import re
from collections.abc import Mapping

import jax

from locvlm_jax.data import catalog, clips, leakage, objectives, rows, view
from locvlm_jax.models import clip_vit, layers, llama, locvlm, lora
from locvlm_jax.models import video as video_lib
from locvlm_jax.text import coords, formats, tokenizer


def model(config: Mapping, device_kind: str = "") -> locvlm.LocVLM:
  """The model that `config.model` describes.

  Args:
    config: all of it.
    device_kind: it is to run on; "": that of the devices here.
  """
  m = dict(config["model"])
  kind = device_kind or jax.devices()[0].device_kind
  frozen = not any(re.match(t, "llm/layers") for t in config["trainable"])
  remat, unroll = layers.defaults(kind, frozen)
  m["remat"] = remat if m["remat"] == "auto" else m["remat"]
  # Unrolled layers share their gathered kernels with the backward pass, which
  # costs the memory that rematerialisation is there to save.
  unroll = unroll if m["remat"] == "none" else 1
  m["unroll"] = m["unroll"] or unroll
  vision = clip_vit.VisionConfig(**m.pop("vision"))
  m["video"] = video_config(config)
  llm = llama.LlamaConfig(**m.pop("llm"))
  m["lora"] = lora.LoraConfig(
    **{**config["lora"], "targets": tuple(config["lora"]["targets"])}
  )
  return locvlm.LocVLM(locvlm.LocVLMConfig(vision=vision, llm=llm, **m))


def video_config(config: Mapping) -> video_lib.VideoConfig:
  """How the model takes videos; `cache` is no part of it."""
  v = config["video"]
  return video_lib.VideoConfig(v["frames"], v["temporal"], v["chunk"])


def with_exclusions(config: Mapping) -> dict:
  """`config` with the files of `eval` among those of `data.exclude`."""
  data, e = config["data"], config["eval"]
  files = list(data["exclude"])
  leakage.check_named(files)
  if data["exclude_eval"]:
    named = ("instances", "novel", "conversations", "video_conversations")
    files += [e[n] for n in named if e[n]]
    files += catalog.benchmark_files(e)
  return {**config, "data": {**data, "exclude": sorted(set(files))}}


def with_validation_data(config: Mapping) -> dict:
  """`config` with the files of `eval` as its data, where it has them.

  Raises:
    ValueError: `eval` has no file of any source that is trained on.
  """
  data, e = config["data"], config["eval"]
  names = [n for n, w in data["mixture"].items() if w > 0 and e.get(n)]
  if not names:
    raise ValueError(
      "validation.every: eval names no file of a source that is trained on;"
      " set --config.eval.instances, or validation.rows=0."
    )
  folders = ("images", "conversation_images", "videos")
  changed = {n: e[n] for n in (*names, *folders)}
  mixture = {n: data["mixture"][n] for n in names}
  changed |= {"mixture": mixture, "exclude": ()}
  return {**config, "data": {**data, **changed}}


def row_spec(
  config: Mapping, text: tokenizer.Tokenizer, sources: Mapping[str, object]
) -> rows.RowSpec:
  """What a row holds; objectives name the categories that are annotated."""
  instances = sources.get("instances")
  named = [
    sources[n].categories for n in ("instances", "tracks") if n in sources
  ]
  vision, frames = config["model"]["vision"], config["video"]["frames"]
  size = vision["image_size"]
  patches = (size // vision["patch_size"]) ** 2
  weights = config["data"]["objectives"]
  return rows.RowSpec(
    tokenizer=text,
    format=formats.FORMATS[config["prompt_format"]],
    coords=coords.Coords(**config["coords"]),
    geometry=config["geometry"],
    image_size=size,
    num_visual=video_config(config).num_visual(patches),
    text_length=config["data"]["text_length"],
    max_pairs=config["data"]["max_pairs"],
    weights=tuple(weights[name] for name in objectives.OBJECTIVES),
    # Of images and videos both, what either annotates.
    vocabulary=tuple(
      c for c in (named or [()])[0] if all(c in other for other in named)
    ),
    captions=instances.deniable() if instances else None,
    boxes=config["data"]["conversation_boxes"],
    clips=clips.Clips(frames, config["geometry"], size) if frames else None,
  )


def question_spec(config: Mapping, text: tokenizer.Tokenizer) -> rows.RowSpec:
  """How the evaluation asks: in `eval.prompt_format` if there is one."""
  return row_spec(
    {**config, "prompt_format": question_format(config)}, text, {}
  )


def question_format(config: Mapping) -> str:
  return config["eval"]["prompt_format"] or config["prompt_format"]


def load_tokenizer(config: Mapping) -> tokenizer.Tokenizer:
  """The tokenizer, checked against the model's vocabulary."""
  if not config["tokenizer"]:
    raise ValueError("tokenizer: set --config.tokenizer to its directory.")
  text = tokenizer.Tokenizer.load(config["tokenizer"])
  size = config["model"]["llm"]["vocab_size"]
  if text.vocab_size > size:
    raise ValueError(
      f"model.llm.vocab_size={size}: the tokenizer in {config['tokenizer']} "
      f"has {text.vocab_size} pieces."
    )
  return text


# Fields that came later and that an answer or an export depends on, with the
# values that do what was done without them.
_ADDED = {
  "lora": {"rank": 0, "alpha": 16.0, "targets": list(lora.TARGETS)},
  "data": {"conversation_boxes": ""},
  "video": {"frames": 0, "temporal": 0, "chunk": 4, "cache": ""},
}


def completed(config: Mapping) -> dict:
  """A stored config with the fields that later versions have added."""
  added = {
    name: {**new, **config.get(name, {})} for name, new in _ADDED.items()
  }
  return {**config, **added}


def questions(config: Mapping, task) -> list:
  """Makes the questions of one evaluation task on the evaluation data."""
  e, m = config["eval"], config["model"]
  records = catalog.open_source(task.source, e)
  seen = view.View(
    coords=coords.Coords(**config["coords"]),
    geometry=config["geometry"],
    image_size=m["vision"]["image_size"],
    vocabulary=getattr(records, "categories", ()),
    seed=e["seed"],
  )
  return task.questions(records, seen, e["samples"] or None)

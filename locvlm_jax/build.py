"""From a config to its parts: model, parameters, rows. Commands begin here."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

import locvlm_jax
from locvlm_jax import (
  checkpoint,
  coords,
  faults,
  metrics,
  optim,
  prompts,
  sharding,
  tokenizer,
)
from locvlm_jax.data import (
  leakage,
  locations,
  objectives,
  pipeline,
  preprocess,
  video,
)
from locvlm_jax.models import clip_vit, layers, llama, locvlm, lora
from locvlm_jax.models import video as video_lib
from locvlm_jax.weights import original, read


def check(config: Mapping) -> None:
  """Refuses values that could only fail later.

  Raises:
    ValueError: names the field, its value and what is allowed.
  """
  positive = ("steps", "batch_size", "accumulate", "log_every",
              "checkpoint_every", "checkpoint_keep", "data.text_length",
              "data.max_pairs", "data.pack", "optim.lr", "optim.eps",
              "optim.clip_norm", "eval.batch_size", "eval.max_new_tokens",
              "faults.max_skipped", "faults.spike_factor")  # fmt: skip
  fractions = ("optim.warmup_ratio", "data.max_bad_share", "optim.b1",
               "optim.b2")  # fmt: skip
  for name in positive:
    if not 0 < _field(config, name) < float("inf"):
      raise ValueError(f"{name}={_field(config, name)}: has to be positive.")
  for name in ("start_seconds", "silent_seconds", "stall_seconds",
               "slow_seconds"):  # fmt: skip
    value = config["faults"][name]
    if not 0 <= value < float("inf"):
      raise ValueError(f"faults.{name}={value}: give seconds, or 0 for ever.")
  for name in fractions:
    if not 0 <= _field(config, name) <= 1:
      raise ValueError(f"{name}={_field(config, name)}: not within [0, 1].")
  if config["checkpoint_best"] < 0:
    raise ValueError(f"checkpoint_best={config['checkpoint_best']}: below 0.")
  metric = config["checkpoint_metric"]
  name, every = metric.removeprefix("-"), config["validation"]["every"]
  known = name in ("loss", "accuracy", "grad_norm")
  if not known and not (name.startswith("val.") and every):
    raise ValueError(
      f"checkpoint_metric={metric!r}: not loss, accuracy or grad_norm, nor val."
      "something with validation.every; with a '-' in front if more is better."
    )
  if config["batch_size"] % config["accumulate"]:
    raise ValueError(
      f"batch_size={config['batch_size']}: accumulate="
      f"{config['accumulate']} does not divide it."
    )
  _check_profile(config)
  _check_video(config)
  boxes = config["data"]["conversation_boxes"]
  if boxes not in ("", *locations.FRAMES):
    raise ValueError(
      f"data.conversation_boxes={boxes!r}: not one of {locations.FRAMES} or"
      " empty."
    )
  trained = config["prompt_format"]
  asked = _question_format(config)
  for field, value in (
    ("prompt_format", trained), ("eval.prompt_format", asked),
  ):  # fmt: skip
    if value not in prompts.FORMATS:
      raise ValueError(
        f"{field}={value!r}: not one of {', '.join(prompts.FORMATS)}."
      )


def _check_video(config: Mapping) -> None:
  frames = video_config(config).frames
  for name in pipeline.VIDEO_SOURCES:
    if config["data"]["mixture"][name] > 0 and not frames:
      raise ValueError(
        f"data.mixture.{name}: the model takes images; set video.frames."
      )
  frozen = not any(re.match(t, "vision/") for t in config["trainable"])
  if config["video"]["cache"] and not (frames and frozen):
    raise ValueError(
      f"video.cache={config['video']['cache']!r}: it keeps what a frozen vision"
      " tower makes of videos: set video.frames, and train without vision."
    )


def _check_profile(config: Mapping) -> None:
  steps = config["profile"]["steps"]
  if steps and not (len(steps) == 2 and 0 < steps[0] <= steps[1]):
    raise ValueError(f"profile.steps={steps}: give two steps, as in 10,15.")
  if steps and steps[1] > config["steps"]:
    raise ValueError(
      f"profile.steps={steps}: the run has {config['steps']} steps."
    )


def _field(config: Mapping, name: str):
  return functools.reduce(lambda c, key: c[key], name.split("."), config)


def check_mesh(config: Mapping, mesh: jax.sharding.Mesh) -> None:
  """Refuses a batch that the mesh or the hosts do not divide."""
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  parts = config["accumulate"] * config["data"]["pack"]
  if config["batch_size"] % (shards * parts):
    raise ValueError(
      f"batch_size={config['batch_size']} in {config['accumulate']} "
      f"microbatches, {config['data']['pack']} to a row, does not divide over "
      f"mesh.data={mesh.shape['data']} x mesh.fsdp={mesh.shape['fsdp']}. Use a "
      f"multiple of {shards * parts} or a smaller mesh."
    )


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
    files += pipeline.benchmark_files(e)
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
) -> preprocess.RowSpec:
  """What a row holds; objectives name the categories that are annotated."""
  instances = sources.get("instances")
  named = [sources[n].categories for n in ("instances", "tracks")
           if n in sources]  # fmt: skip
  vision, frames = config["model"]["vision"], config["video"]["frames"]
  size = vision["image_size"]
  patches = (size // vision["patch_size"]) ** 2
  weights = config["data"]["objectives"]
  return preprocess.RowSpec(
    tokenizer=text,
    format=prompts.FORMATS[config["prompt_format"]],
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
    clips=video.Clips(frames, config["geometry"], size) if frames else None,
  )  # fmt: skip


def question_spec(
  config: Mapping, text: tokenizer.Tokenizer
) -> preprocess.RowSpec:
  """How the evaluation asks: in `eval.prompt_format` if there is one."""
  return row_spec(
    {**config, "prompt_format": _question_format(config)}, text, {}
  )


def _question_format(config: Mapping) -> str:
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


def initial_params(
  config: Mapping, m: locvlm.LocVLM, mesh: jax.sharding.Mesh
) -> optim.Flat:
  """Parameters on the mesh: random where `config.init` names no weights.

  Trainable ones are float32, frozen ones bfloat16 unless the model computes
  in float32.
  """
  trainable, _ = optim.split(optim.param_shapes(m), config["trainable"])
  frozen_dtype = jnp.dtype(config["model"]["dtype"])

  def init(key):
    flat = optim.flatten(locvlm.init_params(m, key))
    return {p: _cast(v, p in trainable, frozen_dtype) for p, v in flat.items()}

  shardings = sharding.param_shardings(optim.param_shapes(m), mesh)
  key = jax.random.key(config["seed"])
  stored = _stored(config)
  _check_frozen(stored, trainable, shardings)
  params = jax.jit(init, out_shardings=shardings)(key)
  for path, value in stored.items():
    check_shape(path, value, params)
    dtype = params.pop(path).dtype  # its memory is free for what comes
    params[path] = value.place(dtype, shardings[path])
  return params


def _check_frozen(stored: Mapping, trainable: Mapping, paths: Mapping) -> None:
  """Random numbers that never train are a forgotten field."""
  random = [p for p in paths if p not in trainable and p not in stored]
  if stored and random:
    raise ValueError(
      f"init: {len(random)} parameters, as {random[0]}, are frozen and in none"
      " of the directories that config.init names: name theirs too."
    )


def _cast(value, trains: bool, frozen_dtype):
  return value.astype(jnp.float32 if trains else frozen_dtype)


def check_shape(path: str, value, params: Mapping) -> None:
  """Refuses a stored parameter that the model has otherwise, or not."""
  if path not in params or params[path].shape != value.shape:
    wanted = params[path].shape if path in params else "nothing"
    raise ValueError(
      f"init: {path} is {value.shape} on disk, the config's model has {wanted}."
    )


def _stored(
  config: Mapping,
) -> Mapping[str, read.Tensor | checkpoint.Saved]:
  """What `config.init` names, still on disk."""
  init = config["init"]
  if init["checkpoint"]:
    return open_params(init["checkpoint"])[0]
  wanted = model(config).config
  flat = {}
  if init["llava"]:
    flat, found = _open_llava(init)
    _check_agree(found.vision, wanted.vision, "vision", init["llava"])
    _check_agree(found.llm, wanted.llm, "llm", init["llava"])
    if not read.is_llava(init["llava"]):
      return flat
  if init["vision"]:
    layer = wanted.vision.feature_layer
    tensors, found = read.open_clip_vision(init["vision"], layer)
    _check_agree(found, wanted.vision, "vision", init["vision"])
    flat |= {f"vision/{path}": t for path, t in tensors.items()}
  if init["llm"]:
    tensors, found = read.open_llama(init["llm"])
    _check_agree(found, wanted.llm, "llm", init["llm"])
    flat |= {f"llm/{path}": t for path, t in tensors.items()}
  return flat


def _open_llava(init: Mapping):
  """Of Hugging Face, or LLaVA's own with the tower and base it rests on."""
  if read.is_llava(init["llava"]):
    return read.open_llava(init["llava"])
  return original.open_llava(init["llava"], init["vision"], init["llm"])


def _check_agree(found, wanted, part: str, where: str) -> None:
  """An epsilon that differs fits in every shape, and spoils every result."""
  for field in dataclasses.fields(wanted):
    theirs, ours = getattr(found, field.name), getattr(wanted, field.name)
    if theirs != ours and field.name != "max_positions":
      raise ValueError(
        f"{where} has {field.name} {theirs!r}, the config"
        f" model.{part}.{field.name}={ours!r}: set it to the former."
      )


def open_params(
  workdir: str,
) -> tuple[dict[str, checkpoint.Saved], dict]:
  """({path: parameter, on disk}, info) of the newest checkpoint of a run.

  Raises:
    ValueError: the directory holds no checkpoint.
  """
  directory = checkpoint_dir(workdir)
  if not os.path.isdir(directory):
    raise ValueError(f"{workdir}: no checkpoint there. Train first.")
  saved = checkpoint.Checkpoints(directory, read_only=True)
  step = saved.latest
  if step is None:
    raise ValueError(f"{workdir}: no finished checkpoint. Train first.")
  params, info = saved.open(step, "params"), saved.info(step)
  saved.close()
  return params, info


def checkpoint_dir(workdir: str) -> str:
  """Where a run keeps its checkpoints."""
  return os.path.join(os.path.abspath(workdir), "checkpoints")


def retention(config: Mapping) -> checkpoint.Retention:
  """Which checkpoints stay."""
  return checkpoint.Retention(
    config["checkpoint_keep"], config["checkpoint_best"],
    config["checkpoint_metric"], tuple(config["checkpoint_pinned"]),
  )  # fmt: skip


def write_json(path: str, value: object) -> None:
  """Writes atomically, sorted and indented."""
  with open(path + ".tmp", "w", encoding="utf-8") as f:
    json.dump(value, f, indent=2, sort_keys=True)
  os.replace(path + ".tmp", path)


# Fields that came later and that an answer or an export depends on, with the
# values that do what was done without them.
_ADDED = {
  "lora": {"rank": 0, "alpha": 16.0, "targets": list(lora.TARGETS)},
  "data": {"conversation_boxes": ""},
  "video": {"frames": 0, "temporal": 0, "chunk": 4, "cache": ""},
}


def completed(config: Mapping) -> dict:
  """A stored config with the fields that later versions have added."""
  added = {name: {**new, **config.get(name, {})}
           for name, new in _ADDED.items()}  # fmt: skip
  return {**config, **added}


# Fields that may differ between a run and its resumption: they change neither
# the parameters nor the data.
_FREE = ("log_every", "checkpoint_every", "checkpoint_keep", "checkpoint_best",
         "checkpoint_metric", "checkpoint_pinned", "faults", "mesh",
         "eval", "init", "profile", "validation")  # fmt: skip


def check_same_run(
  config: Mapping, info: Mapping, workdir: str, data: Mapping
) -> None:
  """Refuses to resume a run under another config or on other data.

  Raises:
    ValueError: names the fields that differ.
    Mismatch: names the annotations that differ.
  """
  old, new = optim.flatten(info["config"]), optim.flatten(config)
  changed = [
    f"{k}: {old.get(k)!r} -> {new.get(k)!r}"
    for k in sorted({*old, *new})
    if old.get(k) != new.get(k)
    and k.split("/")[0] not in _FREE
    and k != "data/threads"
  ]
  if changed:
    raise ValueError(
      f"{workdir} holds a run with another config ({'; '.join(changed[:5])}). "
      "Use another --workdir, or the config of that run."
    )
  for name, found in data.items():
    if found != info["data"].get(name):
      raise faults.Mismatch(
        f"{workdir} was trained on other annotations: data.{name}="
        f"{config['data'][name]} has hash {found}, then it had "
        f"{info['data'].get(name)}. Use another --workdir, or that file."
      )


def meter(config, m, spec, trainable) -> metrics.Meter:
  """Rates and MFU of this run on these devices."""
  parts = metrics.trained_parts(trainable)

  def sample_flops(length: int) -> float:
    forward = metrics.forward_flops(m, length - spec.num_visual)
    if config["video"]["cache"]:  # the tower has seen them before
      forward["vision"] = 0.0
    return metrics.train_flops(forward, parts)

  return metrics.Meter(
    config["steps"], config["batch_size"], sample_flops,
    metrics.peak_flops(jax.devices()[0].device_kind) * jax.device_count(),
  )  # fmt: skip


def summary(config, trainable, frozen, sources, mesh) -> str:
  """What is about to run, in a few lines."""

  def millions(flat):
    return sum(math.prod(v.shape) for v in flat.values()) / 1e6

  data = ", ".join(f"{n}={s!r}" for n, s in sources.items())
  return (
    f"stage {config['stage']}: {config['steps']} steps of "
    f"{config['batch_size']} rows\n"
    f"  parameters: {millions(trainable):.2f} M trained, "
    f"{millions(frozen):.2f} M frozen\n"
    f"  mesh: {dict(mesh.shape)} on {jax.devices()[0].device_kind}\n"
    f"  data: {data}"
  )


def questions(config: Mapping, task) -> list:
  """The questions of one task on the evaluation data."""
  e, m = config["eval"], config["model"]
  source = pipeline.open_source(task.source, e)
  return task.examples(
    source, coords.Coords(**config["coords"]), config["geometry"],
    m["vision"]["image_size"], getattr(source, "categories", ()), e["seed"],
    e["samples"] or None,
  )  # fmt: skip


def is_first() -> bool:
  """Whether this process writes what all of them share."""
  return jax.process_index() == 0


def host_file(name: str) -> str:
  """`name` for the first process; the others' with their number in it."""
  stem, suffix = os.path.splitext(name)
  return name if is_first() else f"{stem}-{jax.process_index()}{suffix}"


def facts(config: Mapping) -> dict[str, object]:
  """What has to be alike on all hosts of a run: config, program, machines."""
  here = os.path.dirname(locvlm_jax.__file__)
  code = hashlib.sha256()
  for path in sorted(pathlib.Path(here).rglob("*.py")):
    code.update(path.read_bytes())
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    **{f"config.{k}": repr(v) for k, v in optim.flatten(config).items()},
    **{p: importlib.metadata.version(p) for p in packages},
    "python": platform.python_version(),
    "code of locvlm_jax": code.hexdigest()[:16],
    "local devices": jax.local_device_count(),
    "kind of device": jax.local_devices()[0].device_kind,
  }


def versions() -> dict[str, str]:
  """What a result depends on besides the config."""
  return {
    "locvlm_jax": locvlm_jax.__version__,
    "jax": jax.__version__,
    "templates": prompts.TEMPLATE_VERSION,
    "device": jax.devices()[0].device_kind,
  }

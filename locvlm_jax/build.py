"""From a config to its parts: model, parameters, rows. Commands begin here."""

import dataclasses
import functools
import json
import math
import os
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

import locvlm_jax
from locvlm_jax import (
  checkpoint,
  coords,
  decode,
  geometry,
  metrics,
  optim,
  prompts,
  sharding,
  tokenizer,
)
from locvlm_jax.data import locations, objectives, pipeline, preprocess
from locvlm_jax.models import clip_vit, llama, locvlm
from locvlm_jax.weights import original, read


def check(config: Mapping) -> None:
  """Refuses values that could only fail later.

  Raises:
    ValueError: names the field, its value and what is allowed.
  """
  positive = ("steps", "batch_size", "accumulate", "log_every",
              "checkpoint_every", "checkpoint_keep", "data.text_length",
              "data.max_pairs", "data.pack", "optim.lr", "optim.eps",
              "optim.clip_norm", "eval.batch_size",
              "eval.max_new_tokens")  # fmt: skip
  fractions = ("optim.warmup_ratio", "data.max_bad_share", "optim.b1",
               "optim.b2")  # fmt: skip
  for name in positive:
    if not 0 < _field(config, name) < float("inf"):
      raise ValueError(f"{name}={_field(config, name)}: has to be positive.")
  for name in fractions:
    if not 0 <= _field(config, name) <= 1:
      raise ValueError(f"{name}={_field(config, name)}: not within [0, 1].")
  if config["batch_size"] % config["accumulate"]:
    raise ValueError(
      f"batch_size={config['batch_size']}: accumulate="
      f"{config['accumulate']} does not divide it."
    )
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


def model(config: Mapping) -> locvlm.LocVLM:
  """The model that `config.model` describes."""
  m = dict(config["model"])
  vision = clip_vit.VisionConfig(**m.pop("vision"))
  llm = llama.LlamaConfig(**m.pop("llm"))
  return locvlm.LocVLM(locvlm.LocVLMConfig(vision=vision, llm=llm, **m))


def with_exclusions(config: Mapping) -> dict:
  """`config` with the files of `eval` among those of `data.exclude`."""
  data, e = config["data"], config["eval"]
  files = list(data["exclude"])
  if data["exclude_eval"]:
    files += [e[n] for n in ("instances", "novel", "conversations") if e[n]]
  return {**config, "data": {**data, "exclude": sorted(set(files))}}


def row_spec(
  config: Mapping, text: tokenizer.Tokenizer, sources: Mapping[str, object]
) -> preprocess.RowSpec:
  """What a row holds; objectives name the categories of the instances."""
  instances = sources.get("instances")
  vision = config["model"]["vision"]
  weights = config["data"]["objectives"]
  return preprocess.RowSpec(
    tokenizer=text,
    format=prompts.FORMATS[config["prompt_format"]],
    coords=coords.Coords(**config["coords"]),
    geometry=config["geometry"],
    image_size=vision["image_size"],
    num_visual=(vision["image_size"] // vision["patch_size"]) ** 2,
    text_length=config["data"]["text_length"],
    max_pairs=config["data"]["max_pairs"],
    weights=tuple(weights[name] for name in objectives.OBJECTIVES),
    vocabulary=instances.categories if instances else (),
    captions=instances.deniable() if instances else None,
    boxes=config["data"]["conversation_boxes"],
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


def param_shapes(m: locvlm.LocVLM) -> optim.Flat:
  """{path: jax.ShapeDtypeStruct} of all parameters."""
  init = functools.partial(locvlm.init_params, m)
  return optim.flatten(jax.eval_shape(init, jax.random.key(0)))


def initial_params(
  config: Mapping, m: locvlm.LocVLM, mesh: jax.sharding.Mesh
) -> optim.Flat:
  """Parameters on the mesh: random where `config.init` names no weights.

  Trainable ones are float32, frozen ones bfloat16 unless the model computes
  in float32.
  """
  trainable, _ = optim.split(param_shapes(m), config["trainable"])
  frozen_dtype = jnp.dtype(config["model"]["dtype"])

  def init(key):
    flat = optim.flatten(locvlm.init_params(m, key))
    return {p: _cast(v, p in trainable, frozen_dtype) for p, v in flat.items()}

  shardings = sharding.param_shardings(param_shapes(m), mesh)
  key = jax.random.key(config["seed"])
  stored = _stored(config)
  _check_frozen(stored, trainable, shardings)
  params = jax.jit(init, out_shardings=shardings)(key)
  for path, value in stored.items():
    _check_shape(path, value, params)
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


def _check_shape(path, value, params) -> None:
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


def write_json(path: str, value: object) -> None:
  """Writes atomically, sorted and indented."""
  with open(path + ".tmp", "w", encoding="utf-8") as f:
    json.dump(value, f, indent=2, sort_keys=True)
  os.replace(path + ".tmp", path)


# Fields that may differ between a run and its resumption: they change neither
# the parameters nor the data.
_FREE = ("log_every", "checkpoint_every", "checkpoint_keep", "mesh", "eval",
         "init")  # fmt: skip


def check_same_run(config: Mapping, info: Mapping, workdir: str) -> None:
  """Refuses to resume a run under another config."""
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


def forward_flops(m: locvlm.LocVLM, text_length: int) -> dict[str, float]:
  """Model FLOPs of the forward pass of one sample with one image, by part.

  2 FLOPs a multiply-add of every matrix, plus attention: 4 L T^2 D for the
  ViT, half of it for the causal LLM. The head counts on text positions only.

  Args:
    m: the model.
    text_length: text tokens of the sample.
  """
  flat = param_shapes(m)
  vision, llm = m.config.vision, m.config.llm
  visual, length = vision.num_patches, vision.num_patches + text_length

  def weights(prefix):
    return sum(
      math.prod(v.shape)
      for p, v in flat.items()
      if p.startswith(prefix) and "embed" not in p
    )

  used = weights("vision/") - weights("vision/unused")
  head = llm.vocab_size * llm.width
  body = weights("llm/") - (0 if llm.tie_embeddings else head)
  causal = 2.0 * llm.num_layers * length**2 * llm.num_heads * llm.head_dim
  square = 4.0 * vision.num_used_layers * visual**2 * vision.width
  return {
    "vision": 2.0 * used * visual + square,
    "adapter": 2.0 * weights("adapter/") * visual,
    "llm": 2.0 * (body * length + head * text_length) + causal,
  }


def meter(config, m, spec, trainable) -> metrics.Meter:
  """Rates and MFU of this run on these devices."""
  parts = {path.split("/")[0] for path in trainable}

  def sample_flops(length: int) -> float:
    forward = forward_flops(m, length - spec.num_visual)
    return metrics.train_flops(forward, parts)

  return metrics.Meter(
    config["steps"], config["batch_size"], sample_flops,
    metrics.peak_flops(jax.devices()[0]) * jax.device_count(),
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


def answerer(config: Mapping, mesh, workdir: str, llava: str = ""):
  """(function from examples to answers, where the parameters are from)."""
  if llava:
    flat, origin = read.open_llava(llava)[0], {"llava": llava}
  else:
    flat, info = open_params(workdir)
    origin = {"workdir": workdir, "step": info["next_step"]}
  m, text = model(config), load_tokenizer(config)
  wanted = param_shapes(m)
  for path, value in flat.items():
    _check_shape(path, value, wanted)
  where = sharding.param_shardings(wanted, mesh)
  dtype = jnp.dtype(config["model"]["dtype"])
  params = optim.unflatten(
    {p: v.place(dtype, where[p]) for p, v in flat.items()}
  )
  spec = question_spec(config, text)
  return functools.partial(_answers, config, m, params, mesh, spec), origin


# Prompts are padded to a multiple of this, so that few shapes are compiled.
_PROMPT_MULTIPLE = 64


def _answers(config, m, params, mesh, spec, examples) -> list[str]:
  """Greedy or sampled answers to one full batch of examples."""
  e = config["eval"]
  prompts_ = [_prompt(spec, x) for x in examples]
  longest = max(len(p) for p in prompts_)
  longest += -longest % _PROMPT_MULTIPLE
  tokens = np.full((len(prompts_), longest), spec.tokenizer.pad_id, np.int32)
  for row, prompt in zip(tokens, prompts_, strict=True):
    row[: len(prompt)] = prompt
  batch = {
    "tokens": tokens,
    "images": np.stack([_image(spec, x.image) for x in examples])[:, None],
    "lengths": np.array([len(p) for p in prompts_], np.int32),
    "example": np.array([zlib.crc32(x.id.encode()) & 0x7FFFFFFF
                         for x in examples], np.int32),
  }  # fmt: skip
  ids = decode.generate(
    m, params, sharding.put_batch(batch, mesh, len(examples)),
    max_new_tokens=e["max_new_tokens"], temperature=e["temperature"],
    stop=spec.tokenizer.stop_ids(spec.format), rng=jax.random.key(e["seed"]),
  )  # fmt: skip
  return [spec.tokenizer.answer(row, spec.format) for row in np.asarray(ids)]


def _prompt(spec: preprocess.RowSpec, example) -> np.ndarray:
  return tokenizer.encode_prompt(
    spec.tokenizer, spec.format, list(example.history), example.question,
    spec.num_visual if example.image else 0,
  )  # fmt: skip


def _image(spec: preprocess.RowSpec, path: str) -> np.ndarray:
  image = preprocess.load_image(path)
  transform = geometry.make(spec.geometry, *image.size, spec.image_size)
  return transform.apply_image(image)


def versions() -> dict[str, str]:
  """What a result depends on besides the config."""
  return {
    "locvlm_jax": locvlm_jax.__version__,
    "jax": jax.__version__,
    "templates": prompts.TEMPLATE_VERSION,
    "device": jax.devices()[0].device_kind,
  }

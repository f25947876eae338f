"""What a config may say."""

import functools
import re

import jax

from locvlm_jax import assemble
from locvlm_jax.config import Config
from locvlm_jax.data import catalog
from locvlm_jax.data.sources import conversation_boxes
from locvlm_jax.models import quantized
from locvlm_jax.models.kernels import splash
from locvlm_jax.text import coords, families, formats

_POSITIVE = (
  "steps", "batch_size", "accumulate", "log_every", "checkpoint_every",
  "checkpoint_keep", "data.text_length", "data.max_pairs", "data.pack",
  "optim.lr", "optim.eps", "optim.clip_norm", "eval.batch_size",
  "eval.max_new_tokens", "eval.max_boxes", "faults.max_skipped",
  "faults.spike_factor",
)  # fmt: skip
_SHARES = (
  "optim.warmup_ratio", "optim.b1", "optim.b2", "data.max_bad_share",
  "eval.max_bad_share",
)  # fmt: skip
_SECONDS = (
  "faults.start_seconds", "faults.silent_seconds", "faults.stall_seconds",
  "faults.slow_seconds",
)  # fmt: skip

_ATTENTION = ("auto", "xla", "splash")


def check(config: Config) -> None:
  """Refuses values that could only fail later.

  Raises:
    ValueError: names the field, its value and what is allowed.
  """
  _check_numbers(config)
  _check_adapter_rate(config)
  _check_digits(config)
  _check_tree(config)
  _check_checkpoints(config)
  _check_profile(config)
  _check_video(config)
  _check_words(config)
  _check_row(config)
  _check_base_weights(config)
  _check_attention(config)


def _check_numbers(config: Config) -> None:
  for name in _POSITIVE:
    if not 0 < _field(config, name) < float("inf"):
      raise ValueError(f"{name}={_field(config, name)}: has to be positive.")
  for name in _SECONDS:
    if not 0 <= _field(config, name) < float("inf"):
      raise ValueError(
        f"{name}={_field(config, name)}: give seconds, or 0 for ever."
      )
  for name in _SHARES:
    if not 0 <= _field(config, name) <= 1:
      raise ValueError(f"{name}={_field(config, name)}: not within [0, 1].")
  if config.batch_size % config.accumulate:
    raise ValueError(
      f"batch_size={config.batch_size}: accumulate="
      f"{config.accumulate} does not divide it."
    )


def _check_tree(config: Config) -> None:
  d, fmt = config.data, config.prompt_format
  if d.tree < 0 or d.tree > d.text_length:
    raise ValueError(
      f"data.tree={d.tree} with data.text_length={d.text_length}: give the text"
      " tokens of a question at most, no more than those of a row, or 0."
    )
  if d.tree and d.pack > 1:
    raise ValueError(
      f"data.tree={d.tree} with data.pack={d.pack}: a tree has a row of its"
      " own; set data.pack=1."
    )
  if d.tree and fmt in formats.FORMATS and not formats.FORMATS[fmt].questions:
    raise ValueError(
      f"data.tree={d.tree} with prompt_format={fmt!r}: a format without"
      " questions has no branches; set data.tree=0."
    )


def _check_digits(config: Config) -> None:
  weight, form = config.optim.digit_loss, config.coords.form
  if not 0 <= weight < float("inf"):
    raise ValueError(f"optim.digit_loss={weight}: give a weight, or 0.")
  if config.coords.fixed_width and form != "ivb":
    raise ValueError(
      f"coords.fixed_width=True with coords.form={form!r}: only ivb has it."
    )


def _check_adapter_rate(config: Config) -> None:
  rate = config.optim.adapter_lr
  if not 0 <= rate < float("inf"):
    raise ValueError(
      f"optim.adapter_lr={rate}: give a rate, or 0 for that of optim.lr."
    )


def _check_attention(config: Config) -> None:
  """Refuses a kernel that is not there, or that the heads do not fit.

  Whether the devices have it, `assemble.training_model` says.
  """
  m = config.model
  if m.attention not in _ATTENTION:
    raise ValueError(
      f"model.attention={m.attention!r}: not one of {', '.join(_ATTENTION)}."
    )
  if m.attention == "splash" and m.llm.head_dim % splash.LANES:
    raise ValueError(
      f"model.attention='splash' with model.llm.head_dim={m.llm.head_dim}: the"
      f" kernel takes multiples of {splash.LANES}; set"
      " --config.model.attention=auto."
    )


def _check_checkpoints(config: Config) -> None:
  if config.checkpoint_best < 0:
    raise ValueError(f"checkpoint_best={config.checkpoint_best}: below 0.")
  metric = config.checkpoint_metric
  name, every = metric.removeprefix("-"), config.validation.every
  known = name in ("loss", "accuracy", "grad_norm")
  if not known and not (name.startswith("val.") and every):
    raise ValueError(
      f"checkpoint_metric={metric!r}: not loss, accuracy or grad_norm, nor val."
      "something with validation.every; with a '-' in front if more is better."
    )


def _check_words(config: Config) -> None:
  boxes = config.data.conversation_boxes
  allowed = (*conversation_boxes.FRAMES, conversation_boxes.MODEL)
  if boxes not in ("", *allowed):
    raise ValueError(
      f"data.conversation_boxes={boxes!r}: not one of {allowed} or empty."
    )
  if config.coords.form not in coords.FORMS:
    raise ValueError(
      f"coords.form={config.coords.form!r}: not one of {coords.FORMS}."
    )
  _check_prompts(config)
  _check_beams(config)
  _check_zoom(config)
  for field, value in (
    ("prompt_format", config.prompt_format),
    ("eval.prompt_format", assemble.question_format(config)),
  ):
    if value not in formats.FORMATS:
      raise ValueError(
        f"{field}={value!r}: not one of {', '.join(formats.FORMATS)}."
      )


def _check_beams(config: Config) -> None:
  e = config.eval
  if e.beams < 1 or (e.beams > 1 and not (e.constrained and not e.temperature)):
    raise ValueError(
      f"eval.beams={e.beams} with eval.constrained={e.constrained} and"
      f" eval.temperature={e.temperature}: above 1 it needs"
      " eval.constrained=True and a temperature of 0."
    )


def _check_zoom(config: Config) -> None:
  e, location = config.eval, config.coords.location
  allowed = e.constrained and location == "box" and 1 < e.zoom < float("inf")
  if e.zoom and not allowed:
    raise ValueError(
      f"eval.zoom={e.zoom} with eval.constrained={e.constrained} and"
      f" coords.location={location!r}: it needs a factor above 1,"
      " eval.constrained=True, and boxes."
    )


def _check_prompts(config: Config) -> None:
  name, e = config.eval.prompts, config.eval
  if name not in families.FAMILIES:
    raise ValueError(
      f"eval.prompts={name!r}: not one of {', '.join(families.FAMILIES)}."
    )
  family = families.FAMILIES[name]
  if family.geometry and config.geometry != family.geometry:
    raise ValueError(
      f"eval.prompts={name!r} has boxes for geometry={family.geometry!r}, and"
      f" geometry={config.geometry!r}: set --config.geometry={family.geometry}."
    )
  if family.form and e.constrained:
    raise ValueError(
      f"eval.prompts={name!r} has no grammar for eval.constrained=True: set one"
      " or the other."
    )


def _check_video(config: Config) -> None:
  frames = assemble.video_config(config).frames
  for name in catalog.VIDEO_SOURCES:
    if config.data.mixture[name] > 0 and not frames:
      raise ValueError(
        f"data.mixture.{name}: the model takes images; set video.frames."
      )
  frozen = not any(re.match(t, "vision/") for t in config.trainable)
  if config.video.cache and not (frames and frozen):
    raise ValueError(
      f"video.cache={config.video.cache!r}: it keeps what a frozen vision"
      " tower makes of videos: set video.frames, and train without vision."
    )


def _check_profile(config: Config) -> None:
  steps = config.profile.steps
  if steps and not (len(steps) == 2 and 0 < steps[0] <= steps[1]):
    raise ValueError(f"profile.steps={steps}: give two steps, as in 10,15.")
  if steps and steps[1] > config.steps:
    raise ValueError(
      f"profile.steps={steps}: the run has {config.steps} steps."
    )


def _check_row(config: Config) -> None:
  """Refuses rows that are longer than the LLM has positions."""
  length, most = assemble.row_length(config), config.model.llm.max_positions
  if length > most:
    text = config.data.text_length
    raise ValueError(
      f"data.text_length={text}: with {length - text} visual tokens a row has"
      f" {length} positions, more than model.llm.max_positions={most}."
    )


def _check_base_weights(config: Config) -> None:
  """Refuses to train quantized kernels, which have no gradient."""
  precision = config.model.llm.base_weights
  if precision == "float":
    return
  kernels = [f"{path}/codes" for path in quantized.LAYER_KERNELS]
  for pattern in config.trainable:
    if any(re.match(pattern, path) for path in kernels):
      raise ValueError(
        f"model.llm.base_weights={precision!r}: trainable={pattern!r} would"
        " train the kernels that it quantizes: train a LoRA of them, as the"
        " word qlora does, or set base_weights=float."
      )


def _field(config: Config, name: str):
  """Reads "data.pack" of the config."""
  return functools.reduce(lambda c, key: c[key], name.split("."), config)


def check_batch(
  config: Config, mesh: jax.sharding.Mesh, accumulate: int = 0
) -> None:
  """Refuses a batch that the mesh or the hosts do not divide.

  Args:
    config: all of it.
    mesh: that the batch lies on.
    accumulate: microbatches a step; 0: the config's.

  Raises:
    ValueError: says what to change.
  """
  accumulate = accumulate or config.accumulate
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  parts = accumulate * config.data.pack
  if config.batch_size % (shards * parts):
    raise ValueError(
      f"batch_size={config.batch_size} in {accumulate} "
      f"microbatches, {config.data.pack} to a row, does not divide over "
      f"mesh.data={mesh.shape['data']} x mesh.fsdp={mesh.shape['fsdp']}. Use a "
      f"multiple of {shards * parts} or a smaller mesh."
    )

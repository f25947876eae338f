"""What a config may say."""

import functools
import re
from collections.abc import Mapping

import jax

from locvlm_jax import assemble
from locvlm_jax.data import catalog, conversation_boxes
from locvlm_jax.text import formats


def check(config: Mapping) -> None:
  """Refuses values that could only fail later.

  Raises:
    ValueError: names the field, its value and what is allowed.
  """
  positive = (
    "steps",
    "batch_size",
    "accumulate",
    "log_every",
    "checkpoint_every",
    "checkpoint_keep",
    "data.text_length",
    "data.max_pairs",
    "data.pack",
    "optim.lr",
    "optim.eps",
    "optim.clip_norm",
    "eval.batch_size",
    "eval.max_new_tokens",
    "faults.max_skipped",
    "faults.spike_factor",
  )
  fractions = (
    "optim.warmup_ratio",
    "data.max_bad_share",
    "optim.b1",
    "optim.b2",
  )
  for name in positive:
    if not 0 < _field(config, name) < float("inf"):
      raise ValueError(f"{name}={_field(config, name)}: has to be positive.")
  for name in (
    "start_seconds",
    "silent_seconds",
    "stall_seconds",
    "slow_seconds",
  ):
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
  if boxes not in ("", *conversation_boxes.FRAMES):
    raise ValueError(
      f"data.conversation_boxes={boxes!r}: not one of"
      f" {conversation_boxes.FRAMES} or empty."
    )
  trained = config["prompt_format"]
  asked = assemble.question_format(config)
  for field, value in (
    ("prompt_format", trained),
    ("eval.prompt_format", asked),
  ):
    if value not in formats.FORMATS:
      raise ValueError(
        f"{field}={value!r}: not one of {', '.join(formats.FORMATS)}."
      )


def _check_video(config: Mapping) -> None:
  frames = assemble.video_config(config).frames
  for name in catalog.VIDEO_SOURCES:
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


def check_batch(config: Mapping, mesh: jax.sharding.Mesh) -> None:
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

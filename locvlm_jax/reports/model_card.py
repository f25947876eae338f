"""The model card of an export: README.md beside the weights.

It says what a model was trained on, how it writes locations and of which
frame, how to ask it, its numbers, and what is known of the licenses of all
that it was made from.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import jinja2

from locvlm_jax import ASSETS
from locvlm_jax.config import Config, completed, freeze
from locvlm_jax.evals import units
from locvlm_jax.evals.scorers.metrics import Unit
from locvlm_jax.text import formats, prompts
from locvlm_jax.text.coords import Coords
from locvlm_jax.training import recipe
from locvlm_jax.weights import runs
from locvlm_jax.weights.layouts import config_json, processor_json

_TEMPLATE = "model_card.md.jinja"  # beside this file
_EXAMPLE = (0.30, 0.40, 0.55, 0.80)
_LICENSES = re.compile(r"(licen[cs]e|notice|use_policy)[^/]*", re.IGNORECASE)
_STATED = re.compile(r"\A---\n.*?^license: *(\S+)$", re.DOTALL | re.MULTILINE)
# Pixels of the picture from fractions of the square, by geometry.
_CENTERED = "x * side + (width - side) / 2, y * side + (height - side) / 2"
_TO_PIXELS = {
  "square": "x * width, y * height",
  "pad": _CENTERED,
  "center_crop": _CENTERED,
}
_SIDE = {"pad": "max(width, height)", "center_crop": "min(width, height)"}


class Source(NamedTuple):
  """Something that a model was made from.

  Attributes:
    part: what it gave: a field of `config.init`.
    path: as the config names it.
    license: what is stated there, in words.
  """

  part: str
  path: str
  license: str


def render(
  origin: Mapping,
  shape,
  program: str = "transformers",
  *,
  is_adapter: bool = False,
) -> str:
  """Writes the card of a model.

  Args:
    origin: of origin.json: the run's config, its stage and step, and the
      metrics that it was evaluated with.
    shape: the model's configuration.
    program: that reads the export first of all.
    is_adapter: whether it is a LoRA, with its model in base/.

  Returns:
    Markdown; "" where the origin does not say how the model was trained.
  """
  if "config" not in origin:
    return ""
  config = freeze(completed(origin["config"]))
  fmt = formats.FORMATS[config.prompt_format]
  coords = Coords(**config.coords)
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  return environment.get_template(_TEMPLATE).render(
    config=config,
    step=origin.get("step"),
    trained_on=recipe.describe(origin["config"]),
    grid=coords.grid,
    example=coords.encode(_EXAMPLE),
    fractions=_EXAMPLE if coords.location == "box" else (0.425, 0.6),
    to_pixels=_TO_PIXELS[config.geometry],
    side=_SIDE.get(config.geometry, ""),
    where=prompts.LOC_PRED[coords.location][0].format(obj="cup"),
    what=prompts.REV_LOC[coords.location][0].format(
      loc=coords.encode(_EXAMPLE)
    ),
    every=config.data.objectives.detect and prompts.detect(["cup", "plate"]),
    has_questions=fmt.questions,
    stop="" if fmt.end.endswith(formats.EOS) else json.dumps(fmt.end),
    code=processor_json.needs_code(shape.vision, config.geometry),
    is_adapter=is_adapter,
    directory='DIRECTORY + "/base"' if is_adapter else "DIRECTORY",
    vllm_options=_vllm_options(config, shape, program, is_adapter),
    for_vllm_alone=program == "vllm" and shape.adapter == "linear",
    identity=config_json.IDENTITY,
    numbers=_numbers(origin.get("metrics", {})),
    sources=_sources(config),
  )


def _vllm_options(
  config: Config, shape, program: str, is_adapter: bool
) -> list[str]:
  """What `vllm serve` has to be told."""
  options = []
  if is_adapter:
    options.append("--enable-lora --lora-modules locvlm=DIRECTORY")
    options.append(f"--max-lora-rank {shape.lora.rank}")
  if shape.adapter == "linear" and program != "vllm":
    act = {"projector_hidden_act": config_json.IDENTITY["vllm"]}
    options.append(f"--hf-overrides '{json.dumps(act)}'")
  if not config.eval.temperature and program != "vllm":
    options.append("""--override-generation-config '{"temperature": 0}'""")
  options.append("""--mm-processor-kwargs '{"backend": "pil"}'""")
  if processor_json.needs_code(shape.vision, config.geometry):
    options.append("--trust-remote-code")
  return options


def _numbers(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
  """(metric, its value with the unit), but for what is only counted."""
  found = ((name, value, units.of(name)) for name, value in metrics.items())
  return [(n, units.shown(v, u)) for n, v, u in found if u != Unit.COUNT]


def _sources(config: Config) -> list[Source]:
  """Lists what a run started from, and what that started from."""
  found, init = [], config.init
  for part in ("vision", "llm", "llava"):
    if path := init[part]:
      found.append(Source(part, path, _license(path)))
  if init.checkpoint and runs.is_model(init.checkpoint):
    if fields := runs.recorded_config(init.checkpoint):
      found += _sources(freeze(completed(fields)))
  elif init.checkpoint:
    note = "no longer there: see what it was made from"
    found.append(Source("checkpoint", init.checkpoint, note))
  return list(dict.fromkeys(found))


def _license(directory: str) -> str:
  """Says what a directory states about its license."""
  if pathlib.PurePath(directory).parts[-3:-1] == ASSETS.parts[-2:]:
    return "that of locvlm_jax, which it is part of"
  if not os.path.isdir(directory):
    return "no longer there: look its license up"
  said = [n for n in sorted(os.listdir(directory)) if _LICENSES.fullmatch(n)]
  card = os.path.join(directory, "README.md")
  if os.path.isfile(card):
    with open(card, encoding="utf-8", errors="replace") as f:
      if stated := _STATED.match(f.read()):
        said.insert(0, f"`{stated[1]}` (its README.md)")
  return ", ".join(said) or "not stated there: look it up"

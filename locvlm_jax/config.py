"""The config of a run: one frozen object with attributes.

`configs/base.py` states every field once, with its value and what it means;
ml_collections keeps them, so that `--config.optim.lr=1e-3` changes one on the
command line and `config.optim.lr` reads it, everywhere. Frozen, a config means
the same to its last reader as to its first. (Dataclasses would have types, at
the price of stating each of some two hundred fields a second time.)
"""

import json
from collections.abc import Mapping

import ml_collections

Config = ml_collections.FrozenConfigDict

# Fields that later versions have added and that an answer, an export or a
# resumed run depends on, with the values that do what was done without them.
_ADDED = {
  "lora": {
    "rank": 0,
    "alpha": 16.0,
    "targets": ("q", "k", "v", "out", "gate", "up", "down"),
    "dropout": 0.0,
  },
  "optim": {
    "adapter_lr": 0.0,
    "digit_loss": 0.0,
    "moments": "float",
    "masters": "float32",
  },
  "coords": {"fixed_width": False},
  "data": {
    "conversation_boxes": "",
    "visual_genome": "",
    "tree": 0,
    "pack": 1,
    "objectives": {"detect": 0.0},
  },
  "eval": {
    "top_k": 0,
    "top_p": 1.0,
    "stop": (),
    "constrained": False,
    "beams": 1,
    "max_boxes": 20,
    "zoom": 0.0,
    "override": (),
    "max_new_tokens_of": (),
    "max_bad_share": 0.01,
    "prompts": "locvlm",
  },
  "init": {"override": (), "random": True},
  "video": {"frames": 0, "temporal": 0, "chunk": 4, "cache": ""},
}

# The same of `model`, which not every stored config has.
_ADDED_TO_MODEL = {"llm": {"base_weights": "float"}}


def freeze(fields: Mapping | ml_collections.ConfigDict) -> Config:
  """Makes a config of nested fields; lists become tuples."""
  if isinstance(fields, ml_collections.ConfigDict):
    fields = fields.to_dict()
  return Config(fields)


def plain(config: Config) -> dict:
  """Gives the fields as json keeps them: nested dicts, lists, numbers, text."""
  return json.loads(config.to_json_best_effort())


def replaced(config: Config, fields: Mapping[str, object]) -> Config:
  """Copies a config with fields such as {"optim.lr": 0.1} replaced."""
  own = ml_collections.ConfigDict(plain(config))
  with own.ignore_type():
    own.update_from_flattened_dict(dict(fields))
  return freeze(own)


def flat(fields: Mapping) -> dict[str, object]:
  """Flattens nested fields: {"optim": {"lr": 1.0}} -> {"optim/lr": 1.0}."""
  found = {}
  for name, value in fields.items():
    if isinstance(value, Mapping):
      found |= {f"{name}/{k}": v for k, v in flat(value).items()}
    else:
      found[name] = value
  return found


def completed(stored: Mapping) -> dict:
  """Adds the fields that later versions have to a config of an older run."""
  model = {"model": _ADDED_TO_MODEL} if "model" in stored else {}
  return _filled(stored, {**_ADDED, **model})


def _filled(stored: Mapping, added: Mapping) -> dict:
  """Adds fields that are missing, at any depth."""
  found = {
    name: _filled(stored.get(name, {}), new)
    if isinstance(new, Mapping)
    else stored.get(name, new)
    for name, new in added.items()
  }
  return {**stored, **found}

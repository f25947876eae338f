"""Initial parameters: what `config.init` names, and the rest random.

What may be random is little: an adapter that is trained alone, as LLaVA's first
stage trains it, and a LoRA, which adds nothing at first. All else has to come
from a file, but for the parts that `init.random` names.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax

from locvlm_jax.config import Config, completed, freeze
from locvlm_jax.models import clip_vit, llama, locvlm, quantized
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import checksums, frozen, placement, quantizing, runs
from locvlm_jax.weights import stored as stored_lib
from locvlm_jax.weights.layouts import huggingface, original


def initial_params(
  config: Config,
  model: locvlm.LocVLM,
  mesh: jax.sharding.Mesh,
  init: Any = None,
) -> params_lib.Flat:
  """Makes the parameters on the mesh: random where no file gives them.

  `params.kept_dtypes` says in which dtype each of them is.

  Args:
    config: all of it.
    model: that of the config.
    mesh: that the parameters lie on.
    init: names their files, in place of `config.init`.

  Raises:
    ValueError: weights of another model, or parameters that none of the named
      directories has and that may not be random.
  """
  shapes = params_lib.param_shapes(model)
  trainable, _ = params_lib.split(shapes, config.trainable)
  kept = params_lib.kept_dtypes(
    shapes, config.trainable, config.model.dtype, config.optim.masters
  )

  shardings = sharding.param_shardings(shapes, mesh)
  key = jax.random.key(config.seed)
  stored = stored_params(init or config.init, model.config)
  _check_frozen(stored, trainable, shardings)
  _check_given(config, stored, trainable, shardings)
  for path, value in stored.items():
    check_shape(path, value, shapes)
  missing = {p: where for p, where in shardings.items() if p not in stored}

  def draw(key):
    flat = params_lib.flatten(locvlm.init_params(model, key))
    return {path: flat[path].astype(kept[path]) for path in missing}

  params = jax.jit(draw, out_shardings=missing)(key)
  for path, value in stored.items():
    params[path] = value.place(kept[path], shardings[path])
  return params


def _check_frozen(stored: Mapping, trainable: Mapping, paths: Mapping) -> None:
  """Random numbers that never train are a forgotten field."""
  random = [p for p in paths if p not in trainable and p not in stored]
  if stored and random:
    raise ValueError(
      f"init: {len(random)} parameters, as {random[0]}, are frozen and in none"
      " of the directories that config.init names: name theirs too."
    )


def _check_given(
  config: Config, stored: Mapping, trainable: Mapping, paths: Mapping
) -> None:
  """Refuses parameters that no file gives; see `init.random`."""
  first = not config.video.frames and all(map(_is_adapter, trainable))
  may_be = random_parts(config.init.random)
  missing = [
    path
    for path in paths
    if path not in stored
    and not (first and _is_adapter(path))
    and not _is_lora(path)
    and path.split("/")[0] not in may_be
  ]
  if missing:
    parts = sorted({path.split("/")[0] for path in missing})
    raise ValueError(
      f"init: no file gives the parameters of {', '.join(parts)}"
      f" ({len(missing)} arrays, as {missing[0]}): say where they are"
      " (--config.init.checkpoint, llava, vision, llm), or start from random"
      f" numbers (--config.init.random={','.join(parts)})."
    )


PARTS = ("vision", "adapter", "llm")


def random_parts(value: object) -> tuple[str, ...]:
  """Reads `init.random`: names of parts; True, as of older runs: all.

  Raises:
    ValueError: another name.
  """
  if value in (True, (True,), ("True",)):
    return PARTS
  names = tuple(value or ())
  if unknown := [n for n in names if n not in (*PARTS, "False", False)]:
    raise ValueError(f"init.random={unknown[0]!r}: not one of {PARTS}.")
  return names


def _is_adapter(path: str) -> bool:
  return path.startswith("adapter/")


def _is_lora(path: str) -> bool:
  return "_lora_" in path


def describe(
  config: Config, model: locvlm.LocVLM, params: params_lib.Flat
) -> list[str]:
  """Says in a line of each part where it came from, with a hash of its values.

  Args:
    config: all of it.
    model: that of the config.
    params: what `initial_params` has made of it; all processes have to call.
  """
  stored = stored_params(config.init, model.config)
  parts = collections.defaultdict(dict)
  for path, row in checksums.describe(params).items():
    part = "lora" if _is_lora(path) else path.split("/")[0]
    parts[part][path] = row
  return [
    f"  {part}: {_num_values(rows):,}"
    f" parameters {_places(rows, stored, config.seed)},"
    f" sha256 {checksums.digest(rows)[:16]}"
    for part, rows in sorted(parts.items())
  ]


def _num_values(rows: Mapping[str, list]) -> int:
  """Counts the parameters of {path: [shape, dtype, ...]}."""
  return sum(
    quantized.num_values(path, row[0], row[1]) for path, row in rows.items()
  )


def _places(paths: Mapping, stored: Mapping, seed: int) -> str:
  """Says where some parameters are from."""
  found = {folder for p in paths if p in stored for folder in _of(stored[p])}
  places = [f"from {' and '.join(sorted(found))}"] if found else []
  if new := sum(path not in stored for path in paths):
    places.append(f"new, {new} arrays by seed {seed}")
  return "; ".join(places)


def _of(value: Any) -> set[str]:
  """Lists the folders that a stored parameter lies in."""
  if isinstance(value, frozen.Referred):
    return _of(value.value)
  if isinstance(value, quantizing.Part):
    return _of(value.kernel)
  if isinstance(value, quantizing.Dequantized):
    return _of(value.codes)
  if isinstance(value, stored_lib.StoredArray):
    return {value.directory}
  return {os.path.dirname(part.file.path) for part in value.parts}


def check_complete(found: Mapping, wanted: Mapping) -> None:
  """Refuses weights that are not exactly those of a model.

  Args:
    found: what is stored, by path.
    wanted: the parameters of the model, or their shapes.

  Raises:
    ValueError: names a parameter that is missing, too many or of another shape.
  """
  for path, value in found.items():
    check_shape(path, value, wanted)
  if missing := sorted(wanted.keys() - found.keys()):
    raise ValueError(
      f"no file gives {len(missing)} parameters of the model, as {missing[0]}"
    )


def check_shape(path: str, value, params: Mapping) -> None:
  """Refuses a stored parameter that the model has otherwise, or not."""
  if path not in params or params[path].shape != value.shape:
    wanted = params[path].shape if path in params else "nothing"
    raise ValueError(
      f"init: {path} is {value.shape} on disk, the config's model has {wanted}."
    )


def open_params(
  workdir: str, given: Any = None
) -> tuple[dict[str, stored_lib.StoredArray | frozen.Referred], dict]:
  """Opens the newest checkpoint of a run, and what it refers to.

  Args:
    workdir: of the run.
    given: `config.init` of the command; read where a directory that the run
      began with has moved.

  Returns:
    ({path: parameter, still on disk}, what the checkpoint says of itself).

  Raises:
    DataError: no checkpoint there, or a directory that it refers to has moved.
    Mismatch: such a directory holds other weights than the run began with.
  """
  flat, info = runs.open_params(workdir)
  if refers := info.get("frozen"):
    stored = completed(info["config"])
    found = frozen.located(refers, workdir, given)
    init = freeze({**stored["init"], **found})
    opened = stored_params(init, _shape(stored["model"]))
    flat |= frozen.referred(refers, opened, workdir)
  return flat, info


def _shape(model: Mapping) -> locvlm.LocVLMConfig:
  """The shape of the model that `config.model` describes."""
  return locvlm.LocVLMConfig(
    vision=clip_vit.VisionConfig(**model["vision"]),
    adapter=model["adapter"],
    llm=llama.LlamaConfig(**model["llm"]),
  )


def stored_params(init: Any, wanted: locvlm.LocVLMConfig) -> dict[str, Any]:
  """Opens what `config.init` names; it stays on disk.

  Returns:
    {path: parameter on disk}, in the precision of `wanted.llm.base_weights`.

  Raises:
    ValueError: it is of another model than `wanted`.
  """
  flat = _stored_as_is(init, wanted)
  return quantizing.in_precision(flat, wanted.llm.base_weights)


def _stored_as_is(
  init: Any, wanted: locvlm.LocVLMConfig
) -> Mapping[str, placement.Tensor | stored_lib.StoredArray | frozen.Referred]:
  """Opens it in whatever precision it is stored."""
  if init.checkpoint:
    return open_params(init.checkpoint, init)[0]
  flat, own = {}, init.override
  if init.llava:
    flat, found = _open_llava(init)
    _check_agree(found.vision, wanted.vision, "vision", init.llava, own)
    _check_agree(found.llm, wanted.llm, "llm", init.llava, own)
    if not huggingface.is_llava(init.llava):
      return flat
  if init.vision:
    layer = wanted.vision.feature_layer
    tensors, found = huggingface.open_clip_vision(init.vision, layer)
    _check_agree(found, wanted.vision, "vision", init.vision, own)
    flat |= {f"vision/{path}": t for path, t in tensors.items()}
  if init.llm:
    tensors, found = huggingface.open_llama(init.llm)
    _check_agree(found, wanted.llm, "llm", init.llm, own)
    flat |= {f"llm/{path}": t for path, t in tensors.items()}
  return flat


def _open_llava(init: Any):
  """Of Hugging Face, or LLaVA's own with the tower and base it rests on."""
  if huggingface.is_llava(init.llava):
    return huggingface.open_llava(init.llava)
  return original.open_llava(init.llava, init.vision, init.llm)


def _check_agree(found, wanted, part: str, where: str, own) -> None:
  """An epsilon that differs fits in every shape, and spoils every result.

  `own` names the fields in which the config may differ (`init.override`).
  """
  for field in dataclasses.fields(wanted):
    theirs, ours = getattr(found, field.name), getattr(wanted, field.name)
    name = f"model.{part}.{field.name}"
    allowed = any(f"{name}.".startswith(f"{other}.") for other in own)
    free = field.name in ("max_positions", "base_weights")
    if theirs != ours and not free and not allowed:
      raise ValueError(
        f"{where} has {field.name} {theirs!r}, the config"
        f" {name}={ours!r}: set it to the former."
      )

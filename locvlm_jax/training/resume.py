"""Whether a run goes on: its config and data beside its checkpoint's."""

from collections.abc import Mapping

from locvlm_jax import assemble, errors
from locvlm_jax.config import Config, completed, flat, plain
from locvlm_jax.data import conversation_boxes
from locvlm_jax.weights import retention as retention_lib


def retention(config: Config) -> retention_lib.Retention:
  """Says which checkpoints stay."""
  return retention_lib.Retention(
    config.checkpoint_keep,
    config.checkpoint_best,
    config.checkpoint_metric,
    config.checkpoint_pinned,
  )


# Fields that may differ between a run and its resumption: they change neither
# the parameters nor the data.
_FREE = ("log_every", "checkpoint_every", "checkpoint_keep", "checkpoint_best",
         "checkpoint_metric", "checkpoint_pinned", "faults", "mesh",
         "eval", "init", "profile", "validation")  # fmt: skip


def run_info(
  config: Config, step: int, data: Mapping, refers: Mapping | None
) -> dict:
  """Writes down what a checkpoint is of: see `check_same_run`."""
  return {
    "config": plain(config),
    "next_step": step,
    "data": dict(data),
    "excluded": list(assemble.excluded_files(config)),
    **({"frozen": refers} if refers else {}),
  }


def check_same_run(
  config: Config, info: Mapping, workdir: str, data: Mapping
) -> None:
  """Refuses to resume a run under another config or on other data.

  Args:
    config: of the run that is to go on.
    info: of its checkpoint.
    workdir: for the message.
    data: {source: hash of its annotations}.

  Raises:
    ValueError: names the fields that differ.
    Mismatch: names the annotations that differ.
  """
  old, new = _stored_fields(info), _fields(config)
  changed = [
    f"{k}: {old.get(k)!r} -> {new.get(k)!r}"
    for k in sorted({*old, *new})
    if old.get(k) != new.get(k)
  ]
  if changed:
    raise ValueError(
      f"{workdir} holds a run with another config ({'; '.join(changed[:5])}). "
      "Use another --workdir, or the config of that run."
    )
  for name, found in data.items():
    if found != info["data"].get(name):
      raise errors.Mismatch(
        f"{workdir} was trained on other annotations: data.{name}="
        f"{config.data[name]} has hash {found}, then it had "
        f"{info['data'].get(name)}. Use another --workdir, or that file."
      )


def _fields(config: Config) -> dict[str, object]:
  """The fields that a resumption has to share."""
  fields = _compared(plain(config))
  return {**fields, "data/exclude": list(assemble.excluded_files(config))}


def _stored_fields(info: Mapping) -> dict[str, object]:
  """The same of a checkpoint; the first ones had all excluded files there."""
  config = completed(info["config"])
  excluded = info.get("excluded", config["data"].get("exclude"))
  return {**_compared(config), "data/exclude": excluded}


def _compared(fields: Mapping) -> dict[str, object]:
  own = ("data/threads", "data/exclude_eval")
  # Boxes that earlier runs trained on as they were are now called "model".
  kept = {("data/conversation_boxes", conversation_boxes.MODEL): ""}
  return {
    k: kept.get((k, str(v)), v)
    for k, v in flat(fields).items()
    if k.split("/")[0] not in _FREE and k not in own
  }

"""Whether a run goes on: its config and data beside its checkpoint's."""

from collections.abc import Mapping

from locvlm_jax import errors
from locvlm_jax.models import params as params_lib
from locvlm_jax.weights import checkpoints


def retention(config: Mapping) -> checkpoints.Retention:
  """Which checkpoints stay."""
  return checkpoints.Retention(
    config["checkpoint_keep"],
    config["checkpoint_best"],
    config["checkpoint_metric"],
    tuple(config["checkpoint_pinned"]),
  )


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
  old, new = params_lib.flatten(info["config"]), params_lib.flatten(config)
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
      raise errors.Mismatch(
        f"{workdir} was trained on other annotations: data.{name}="
        f"{config['data'][name]} has hash {found}, then it had "
        f"{info['data'].get(name)}. Use another --workdir, or that file."
      )

"""Whether a run goes on: its config and data beside its checkpoint's."""

from collections.abc import Mapping

import locvlm_jax
from locvlm_jax import assemble, errors
from locvlm_jax.config import Config, completed, flat, freeze, plain
from locvlm_jax.data.sources import conversation_boxes
from locvlm_jax.parallel import hosts
from locvlm_jax.training import data_hashes
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


# What may differ too: paths below which nothing lies but what has a hash, and
# how many threads read it.
_OWN = ("root", "data/threads", "data/exclude_eval")


def run_info(
  config: Config, step: int, data: Mapping, refers: Mapping | None = None
) -> dict:
  """Writes down what a checkpoint is of: see `check_same_run`."""
  return {
    "config": plain(config),
    "next_step": step,
    "data": dict(data),
    "excluded": list(assemble.excluded_files(config)),
    "version": locvlm_jax.__version__,
    **({"frozen": refers} if refers else {}),
  }


def check_same_run(
  config: Config, info: Mapping, workdir: str, data: Mapping
) -> None:
  """Refuses to resume a run under another config or on other data.

  Paths are not compared where the checkpoint has a hash of what they lead to.

  Args:
    config: of the run that is to go on.
    info: of its checkpoint.
    workdir: for the message.
    data: hashes of what it reads, of `data_hashes.of`.

  Raises:
    ValueError: names the fields that differ.
    Mismatch: names the data that differ.
  """
  old, new = _stored_fields(info), _fields(config)
  _check_versions(old, new, info, workdir)
  hashed = {f for f, name in data_hashes.FIELDS.items() if name in info["data"]}
  unread = {f for f, name in data_hashes.FIELDS.items() if name not in data}
  compared = old.keys() & new.keys() - hashed - unread
  changed = [
    f"{k}: {old[k]!r} -> {new[k]!r}"
    for k in sorted(compared)
    if old[k] != new[k]
  ]
  if changed:
    raise ValueError(
      f"{workdir} holds a run with another config ({'; '.join(changed[:5])}). "
      "Use another --workdir, or the config of that run."
    )
  paths = {f: new[f] for f in data_hashes.FIELDS if f in hashed - unread}
  _check_data(paths, info["data"], data, workdir)


def _check_data(
  paths: Mapping, stored: Mapping, found: Mapping, workdir: str
) -> None:
  """Compares the hashes of what lies at the paths of some fields."""
  for field, path in paths.items():
    name = data_hashes.FIELDS[field]
    if data_hashes.differ(found[name], stored[name]):
      raise errors.Mismatch(
        f"{workdir} was trained on other data: {field.replace('/', '.')}={path}"
        f" has hash {found[name] or 'none'}, then it had"
        f" {stored[name] or 'none'}. Use another --workdir, or what was there."
      )
  if found.get("excluded") and "excluded" not in stored:
    _tell(
      f"{workdir} does not say which records it left out, whose images are"
      " tested: this version may leave out others."
    )


def _check_versions(
  old: Mapping, new: Mapping, info: Mapping, workdir: str
) -> None:
  """Goes on after an upgrade of the package, unless a field has gone.

  A field that a later version adds does by default what was done without it,
  or its old value stands in `config.completed`.

  Raises:
    ValueError: names the fields that this version has not.
  """
  if gone := [f"{k}={old[k]!r}" for k in sorted(old.keys() - new.keys())]:
    raise ValueError(
      f"{workdir} was trained with {', '.join(gone)}, which this version or"
      " config has not: resume it with locvlm_jax"
      f" {info.get('version', 'of that time')}, or use another --workdir."
    )
  added = [f"{k}={new[k]!r}" for k in sorted(new.keys() - old.keys())]
  if added:
    _tell(f"new since {workdir} began: {', '.join(added)}")


def _tell(line: str) -> None:
  if hosts.is_first():
    print(line, flush=True)


def _fields(config: Config) -> dict[str, object]:
  """The fields that a resumption has to share."""
  fields = _compared(plain(config))
  return {**fields, "data/exclude": list(assemble.excluded_files(config))}


def _stored_fields(info: Mapping) -> dict[str, object]:
  """The same of a checkpoint; the first ones had all excluded files there."""
  config = plain(freeze(completed(info["config"])))
  excluded = info.get("excluded", config["data"].get("exclude"))
  return {**_compared(config), "data/exclude": excluded}


def _compared(fields: Mapping) -> dict[str, object]:
  # Boxes that earlier runs trained on as they were are now called "model"; of
  # a cache it matters that there is one.
  kept = {("data/conversation_boxes", conversation_boxes.MODEL): ""}
  found = {
    k: kept.get((k, str(v)), v)
    for k, v in flat(fields).items()
    if k.split("/")[0] not in _FREE and k not in _OWN
  }
  return {**found, "video/cache": bool(found.get("video/cache"))}

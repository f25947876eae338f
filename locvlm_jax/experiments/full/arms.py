"""How the paper's own models are trained, and the tables that compare them.

The names, and so the tables, are those of the micro-world's arms.
"""

import dataclasses
from collections.abc import Mapping

from locvlm_jax.experiments import micro_arms as micro
from locvlm_jax.experiments import micro_tables
from locvlm_jax.experiments.full import inputs
from locvlm_jax.experiments.full.inputs import Input
from locvlm_jax.experiments.micro_tables import Table

_B, _VID, _VID_PLUS = (
  f"configs/{name}.py"
  for name in ("locvlm_b", "locvlm_vid_b", "locvlm_vid_b_plus")
)


@dataclasses.dataclass(frozen=True)
class FullArm:
  """One way to train a model of the paper.

  Attributes:
    name: in tables and folders.
    config: file and words.
    start: the arm whose weights it starts from.
    captions: the arm that describes the objects first.
    fields: what differs from the config.
    files: field of the config -> the file that it names.
  """

  name: str
  config: str
  start: "FullArm | None" = None
  captions: "FullArm | None" = None
  fields: tuple[str, ...] = ()
  files: Mapping[str, Input] = dataclasses.field(
    default_factory=dict, hash=False
  )


_OBJECTS = {"data.instances": inputs.INSTANCES, "data.images": inputs.TRAIN}
_VIDEOS = {
  "data.video_conversations": inputs.VIDEO_INSTRUCT,
  "data.videos": inputs.ACTIVITYNET,
}
STAGE1 = FullArm(
  "stage1", f"{_B}:chat595k",
  files={
    "init.vision": inputs.VISION, "init.llm": inputs.LLM,
    "tokenizer": inputs.LLM, "data.conversations": inputs.CC3M,
    "data.conversation_images": inputs.CC3M_IMAGES,
  },
)  # fmt: skip


def _stage2(arm, *fields: str, captions: FullArm | None = STAGE1) -> FullArm:
  """The full model's arm of a micro arm; by default with pseudo-captions."""
  return FullArm(
    arm.name, f"{_B}:stage2", STAGE1, captions, fields, {**_OBJECTS}
  )


_NO_NEG, _NO_REV = (f"data.objectives.{n}=0" for n in ("neg_pred", "rev_loc"))
_OTHER = "init.override=('coords',)"
BASELINE = FullArm(
  micro.BASELINE.name, f"{_B}:baseline", STAGE1,
  files={"data.conversations": inputs.INSTRUCT,
         "data.conversation_images": inputs.TRAIN},
)  # fmt: skip
FULL = _stage2(micro.PSEUDO)
PLAIN = _stage2(micro.FULL, captions=None)
VID_B = FullArm(micro.VID_B.name, _VID, FULL, files=_VIDEOS)


def _plus(arm, *fields: str, words: str = "") -> FullArm:
  files = {**_VIDEOS, **({} if words else {"data.tracks": inputs.TRACKS})}
  return FullArm(arm.name, _VID_PLUS + words, FULL, None, fields, files)


ARMS = {
  arm.name: arm
  for arm in (
    BASELINE,
    _stage2(micro.LOC_PRED, _NO_NEG, _NO_REV, captions=None),
    _stage2(micro.LOC_NEG, _NO_REV, captions=None),
    PLAIN,
    _stage2(micro.POINT, "coords.location=point", _OTHER, captions=None),
    FULL,
    _stage2(micro.NFP, "coords.form=nfp", _OTHER, captions=None),
    _stage2(micro.DIGA, "coords.form=diga", _OTHER, captions=None),
    VID_B,
    _plus(micro.VID_NONE, words=":baseline"),
    _plus(micro.VID_LOC, _NO_NEG, _NO_REV),
    _plus(micro.VID_LOC_NEG, _NO_REV),
    _plus(micro.VID_FULL),
  )
}


def table(name: str) -> Table:
  """Returns a table with the metrics that its full-size arms are asked.

  Raises:
    ValueError: it exists on the micro-world alone.
  """
  found = micro_tables.TABLES[name]
  if not name.isdigit():
    numbers = ", ".join(n for n in micro_tables.TABLES if n.isdigit())
    raise ValueError(
      f"--tables {name}: is of the micro-world; --scale full has {numbers}."
    )
  metrics = {head: _asked(metric) for head, metric in found.metrics.items()}
  orderings = tuple(
    dataclasses.replace(o, metric=_asked(o.metric)) for o in found.orderings
  )
  return dataclasses.replace(found, metrics=metrics, orderings=orderings)


def _asked(metric: str) -> str:
  """Returns the paper's own setting of Table 4 for that of the micro-world."""
  metric = metric.replace("spatial_trained_disjoint.icl_disjoint",
                          "spatial_paper.icl")  # fmt: skip
  return metric.replace("spatial_trained", "spatial_paper")

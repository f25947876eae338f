"""The paper's tables at micro scale, as data: arms, metrics, orderings.

Six tables are not the paper's: `spatial` asks how much spatial supervision
the objectives save, `objectives` which of them does, `general` what they do to
general questions by themselves, `coordinates` how the numbers of a box are
learned sooner and more exactly, `pseudo` what pseudo-captions do to
localization, and `memory` whether weights and moments in fewer bits cost
anything.

The baseline without objectives stands for LLaVA, the twin of GQA for GQA, and
so on. Table 1 compares designs and has no numbers, Table 3 lists data; 2, 11
and 12 are the paper's ablations, 4 to 10 its results.
"""

import dataclasses

from locvlm_jax.evals.tasks import DESCRIBED
from locvlm_jax.experiments.learning import BOXES, PLACES
from locvlm_jax.experiments.micro_arms import (
  ADAM,
  ADAM_8BIT,
  BASELINE,
  BOTH,
  DIGA,
  DIGIT_LOSS,
  DOSES,
  FIXED_WIDTH,
  FULL,
  LOC_NEG,
  LOC_PRED,
  LORA,
  LORA_INT8,
  LORA_NF4,
  MORE_TEXT,
  NEG_PRED,
  NFP,
  PLAIN,
  POINT,
  PSEUDO,
  PSEUDO_PLAIN,
  REV_LOC,
  VID_B,
  VID_FULL,
  VID_LOC,
  VID_LOC_NEG,
  VID_NONE,
  WITH_OBJECTIVES,
  WITHOUT,
)  # fmt: skip
from locvlm_jax.experiments.runs import Arm, Suite

SAMPLES = 2000
SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Ordering:
  """The paper has `better` above `worse` in `metric`.

  Attributes:
    better: name of an arm.
    worse: of another.
    metric: of results.json.
    paper: their numbers in the paper; None where it has none.
  """

  better: str
  worse: str
  metric: str
  paper: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Closeness:
  """`arm` should be as good as `other`, in one measure.

  Attributes:
    arm: its name.
    other: that of the arm it is compared with.
    metric: of results.json, or `LOSS`.
    within: points of the metric; percent of the other's loss.
  """

  arm: str
  other: str
  metric: str
  within: float = 1.0


LOSS = "loss"  # of training, at its largest difference (learning.py)
_DESCRIPTIONS = tuple(f"rd_{split}" for split in DESCRIBED)
_VIDEO_QA = ("activitynet_qa", "msrvtt_qa", "msvd_qa", "tgif_qa")
# What is asked together; a table asks those that its metrics are from.
SUITES = (
  Suite("spatial", ("locpred", "spatial_trained", "spatial_trained_disjoint",
                    "spatial")),
  Suite("vqa", ("vqa", "gqa", "vqav2")),
  Suite("objects", ("hal_coco", "hal_ade", "pope_random", "pope_popular",
                    "pope_adversarial")),
  Suite("activitynet", ("activitynet_qa",)),
  Suite("videos", (*_VIDEO_QA[1:], "hal_act")),
  Suite("regions", _DESCRIPTIONS),
)  # fmt: skip
_BOXES = (Suite("boxes", ("locpred",)),)
_KEPT = (Suite("boxes-presence", ("locpred", "hallucination")),)


@dataclasses.dataclass(frozen=True)
class Table:
  """One table.

  Attributes:
    title: what it shows.
    arms: its rows.
    metrics: heading -> metric of results.json.
    orderings: what the paper's numbers say, and is checked.
    note: what differs from the paper.
    learned: metric of validation that the chart of the arms draws.
    reach: percent of it; a last column says after how many steps an arm first
      had so much. None: no such column.
    suites: of tasks that its arms are asked.
    closeness: which arms should be alike, and is checked.
  """

  title: str
  arms: tuple[Arm, ...]
  metrics: dict[str, str]
  orderings: tuple[Ordering, ...]
  note: str = ""
  learned: str = PLACES
  reach: float | None = None
  suites: tuple[Suite, ...] = SUITES
  closeness: tuple[Closeness, ...] = ()

  def suite(self, metric: str) -> Suite:
    """Returns the suite that a metric of results.json is from."""
    task = metric.partition(".")[0]
    return next(s for s in self.suites if task in s.tasks)


_SIDES = {
  f"{setting}, {axis}": f"{task}.{part}.{axis}.all"
  for setting, task, part in (
    ("direct", "spatial_trained", "direct"),
    ("in context", "spatial_trained_disjoint", "icl_disjoint"),
  )
  for axis in ("left_right", "above_below")
}
_ABLATED = {
  "GQA": "gqa.accuracy",
  "RD, METEOR": "rd_refcocog_test.meteor",
  "A-QA": "activitynet_qa.match",
}
_GENERAL = {
  "GQA": "gqa.accuracy",
  "VQAv2": "vqav2.evalai.accuracy",
  "A-QA": "activitynet_qa.match",
  "Hal-COCO": "hal_coco.accuracy",
  "Hal-ADE": "hal_ade.accuracy",
}
_POPE = {
  kind: f"pope_{kind}.accuracy" for kind in ("random", "popular", "adversarial")
}


def _above(better: Arm, worse: Arm, metrics, *paper) -> tuple[Ordering, ...]:
  """`better` is above `worse` in each of the metrics."""
  return tuple(
    Ordering(better.name, worse.name, metric, numbers)
    for metric, numbers in zip(metrics, paper, strict=True)
  )


_ASKED = {
  "direct": "spatial_trained.direct.all",
  "in context": "spatial_trained_disjoint.icl_disjoint.all",
  "blind": "spatial_trained_disjoint.icl_disjoint.blind.all",
  "other wordings": "spatial.direct.all",
  "LocPred": "locpred.acc_iou50",
}
_LOCATED = {
  "Acc@0.5": "locpred.acc_iou50",
  "Acc@0.75": "locpred.acc_iou75",
  "mean IoU": "locpred.mean_iou",
}
_KEEPS = {
  "Acc@0.5": "locpred.acc_iou50",
  "mean IoU": "locpred.mean_iou",
  "presence": "hallucination.accuracy",
}


def _alike(arm: Arm, other: Arm, *measures: str) -> tuple[Closeness, ...]:
  """`arm` is like `other` in each of the measures."""
  return tuple(Closeness(arm.name, other.name, m) for m in measures)


_COMPARED = tuple(list(_ASKED.values())[:2])

TABLES = {
  "2": Table(
    "Table 2. Forms of coordinates", (NFP, FULL, DIGA), _ABLATED,
    _above(FULL, NFP, _ABLATED.values(),
           (47.3, 46.1), (20.7, 19.6), (37.4, 37.1))
    + _above(FULL, DIGA, ("gqa.accuracy",), (47.3, 47.0)),
    "locvlm is IVB. Videos are answered from the frame in their middle."),
  "4": Table(
    "Table 4. COCO-Spatial", (BASELINE, FULL), _SIDES,
    _above(FULL, BASELINE, _SIDES.values(),
           (69.5, 55.1), (65.4, 58.9), (76.5, 55.1), (74.1, 58.2)),
    "In the wordings that the general data of both arms has; examples in"
    " context are about other objects, so that they tell nothing."),
  "5": Table(
    "Table 5. Image VQA", (BASELINE, FULL),
    {"GQA": "gqa.accuracy", "VQAv2": "vqav2.evalai.accuracy"},
    _above(FULL, BASELINE, ("gqa.accuracy", "vqav2.evalai.accuracy"),
           (47.3, 44.7), (50.3, 49.8))),
  "6": Table(
    "Table 6. Video VQA", (VID_B, VID_FULL),
    {name: f"{name}.match" for name in _VIDEO_QA}, (),
    "In the micro-world the four sets hold the same questions."),
  "7": Table(
    "Table 7. ActivityNet-QA", (BASELINE, FULL, VID_B, VID_FULL),
    {"A-QA": "activitynet_qa.match"},
    _above(FULL, BASELINE, ("activitynet_qa.match",), (29.2, 28.7))
    + _above(VID_B, FULL, ("activitynet_qa.match",), (37.4, 29.2))
    + _above(VID_FULL, VID_B, ("activitynet_qa.match",), (38.2, 37.4))),
  "8": Table(
    "Table 8. Hallucination", (BASELINE, FULL, VID_B, VID_FULL),
    {"Hal-COCO": "hal_coco.accuracy", "Hal-ADE": "hal_ade.accuracy",
     "Hal-Act": "hal_act.accuracy"},
    _above(FULL, BASELINE, ("hal_coco.accuracy", "hal_ade.accuracy"),
           (88.3, 61.9), (75.2, 53.8))
    + _above(VID_FULL, VID_B, ("hal_act.accuracy",), (72.4, 68.7))),
  "9": Table(
    "Table 9. POPE", (BASELINE, FULL), _POPE,
    _above(FULL, BASELINE, _POPE.values(),
           (87.9, 50.4), (86.0, 49.9), (78.8, 49.7))),
  "10": Table(
    "Table 10. Region description, METEOR", (BASELINE, FULL, PSEUDO),
    {name: f"{name}.meteor" for name in _DESCRIPTIONS},
    _above(PSEUDO, BASELINE, [f"{name}.meteor" for name in _DESCRIPTIONS],
           (11.0, 4.23), (11.1, 7.26), (20.6, 10.6), (20.7, 10.3))),
  "11": Table(
    "Table 11. Objectives, locations, pseudo-data",
    (BASELINE, LOC_PRED, LOC_NEG, FULL, POINT, PSEUDO), _ABLATED,
    _above(LOC_PRED, BASELINE, _ABLATED.values(),
           (45.2, 44.7), (12.2, 10.3), (35.8, 35.2))
    + _above(LOC_NEG, LOC_PRED, _ABLATED.values(),
             (46.9, 45.2), (12.5, 12.2), (37.2, 35.8))
    + _above(FULL, LOC_NEG, _ABLATED.values(),
             (47.3, 46.9), (20.7, 12.5), (37.4, 37.2))
    + _above(PSEUDO, FULL, _ABLATED.values(),
             (47.3, 46.5), (20.7, 11.6), (37.4, 37.1)),
    "All rows but the last are without pseudo-data; in the paper all but one"
    " are with it."),
  "12": Table(
    "Table 12. Objectives on videos",
    (VID_NONE, VID_LOC, VID_LOC_NEG, VID_FULL),
    {"A-QA": "activitynet_qa.match"},
    _above(VID_LOC, VID_NONE, ("activitynet_qa.match",), (37.6, 37.4))
    + _above(VID_LOC_NEG, VID_LOC, ("activitynet_qa.match",), (38.2, 37.6))),
  "spatial": Table(
    "Spatial questions by the share of the rows that are such questions",
    tuple(a[d] for d in DOSES for a in (WITHOUT, WITH_OBJECTIVES)),
    _ASKED,
    tuple(Ordering(WITH_OBJECTIVES[d].name, WITHOUT[d].name, metric)
          for d in DOSES for metric in _COMPARED),
    "In percent of right answers; chance is 50. Examples in context are about"
    " other objects, and blind is who copies their answers. No arm was trained"
    " on the other wordings."),
  "objectives": Table(
    "Which objective makes places learnable",
    (BASELINE, LOC_PRED, NEG_PRED, REV_LOC, LOC_NEG, FULL, POINT, NFP, DIGA),
    _ASKED,
    tuple(Ordering(arm.name, BASELINE.name, _ASKED["direct"])
          for arm in (LOC_PRED, NEG_PRED, REV_LOC, LOC_NEG, FULL, POINT, NFP,
                      DIGA)),
    "locvlm has all three objectives, boxes and IVB."),
  "general": Table(
    "What the objectives do to general questions",
    (BASELINE, MORE_TEXT, FULL), _GENERAL,
    _above(FULL, MORE_TEXT, _GENERAL.values(), *[None] * len(_GENERAL))
    + _above(FULL, BASELINE, _GENERAL.values(), *[None] * len(_GENERAL)),
    "The objectives take rows from the general data, of which locvlm sees 20 %"
    " and the baseline 57 %; more-text sees 20 % as well, and text without"
    " pictures in the place of the objectives."),
  "coordinates": Table(
    "How coordinates are learned",
    (PLAIN, DIGIT_LOSS, FIXED_WIDTH, BOTH),
    _LOCATED,
    tuple(Ordering(arm.name, PLAIN.name, metric)
          for arm in (DIGIT_LOSS, FIXED_WIDTH, BOTH)
          for metric in _LOCATED.values()),
    "optim.digit_loss=8 beside cross-entropy, and coords.fixed_width;"
    " 1,000 steps of mostly LocPred, as in the demo.",
    learned=BOXES, reach=50.0, suites=_BOXES),
  "pseudo": Table(
    "Pseudo-captions and localization", (FULL, PSEUDO, PSEUDO_PLAIN),
    {"RD, METEOR": "rd_refcocog_test.meteor", "presence": "hal_coco.accuracy",
     **_LOCATED},
    _above(PSEUDO, FULL, ("rd_refcocog_test.meteor",), None)
    + _above(PSEUDO_PLAIN, PSEUDO, ("locpred.acc_iou50",), None)
    + _above(FULL, PSEUDO_PLAIN, ("locpred.acc_iou50",), None),
    "Captions take the place of categories in all three objectives: those of"
    " pseudo-captions-plain name a color, half of the others what is beside."
    " Boxes are asked for by category.",
    learned=BOXES),
  "memory": Table(
    "What fewer bits cost",
    (LORA, LORA_NF4, LORA_INT8, ADAM, ADAM_8BIT), _KEEPS, (),
    "The reference learns to write its boxes with leading zeros, in mostly"
    " LocPred: by LoRA of rank 16 in 400 steps on base weights in float32, nf4"
    " and int8, and in 1,000 by AdamW with its moments in float32 and in 8"
    " bits. The loss is averaged over every 100 steps; what counts is the"
    " largest difference of these averages.",
    learned=BOXES, suites=_KEPT,
    closeness=_alike(LORA_NF4, LORA, *_KEEPS.values())
    + _alike(LORA_INT8, LORA, *_KEEPS.values())
    + _alike(ADAM_8BIT, ADAM, *_KEEPS.values(), LOSS)),
}  # fmt: skip

"""The paper's tables at micro scale, as data: arms, metrics, orderings.

All arms of a table start from the same weights, see the same micro-world for
the same number of steps, and have the same share of spatial questions in their
general data; what differs is what the table is about.

The baseline without objectives stands for LLaVA, the twin of GQA for GQA, and
so on. Table 1 compares designs and has no numbers, Table 3 lists data; 2, 11
and 12 are the paper's ablations, 4 to 10 its results.
"""

import dataclasses

from locvlm_jax.evals.tasks import DESCRIBED
from locvlm_jax.experiments.runs import Arm, Suite, World

WORLD = World(train=20_000, val=2000, videos=1500)
SAMPLES = 2000
SEEDS = 3
_STEPS, _VIDEO_STEPS = 1500, 300
DOSE = 0.1  # of the rows are spatial questions, in every arm


@dataclasses.dataclass(frozen=True)
class Ordering:
  """The paper has `better` above `worse` in `metric`.

  Attributes:
    better: name of an arm.
    worse: of another.
    metric: of results.json.
    paper: their numbers in the paper.
  """

  better: str
  worse: str
  metric: str
  paper: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Table:
  """One table.

  Attributes:
    title: what it shows.
    arms: its rows.
    metrics: heading -> metric of results.json.
    orderings: what the paper's numbers say, and is checked.
    note: what differs from the paper.
  """

  title: str
  arms: tuple[Arm, ...]
  metrics: dict[str, str]
  orderings: tuple[Ordering, ...]
  note: str = ""


_DESCRIPTIONS = tuple(f"rd_{split}" for split in DESCRIBED)
_VIDEO_QA = ("activitynet_qa", "msrvtt_qa", "msvd_qa", "tgif_qa")
# What is asked together; a table asks the suites that its metrics are from.
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


def suite(metric: str) -> Suite:
  """Returns the suite that a metric of results.json is from."""
  task = metric.partition(".")[0]
  return next(s for s in SUITES if task in s.tasks)


def _mixture(**weights: float) -> tuple[str, ...]:
  return tuple(f"data.mixture.{name}={w}" for name, w in weights.items())


def _general(objectives: bool, dose: float) -> tuple[str, ...]:
  """Returns the shares of rows, of which `dose` are spatial questions.

  The objectives take the place of general data, and so do spatial questions:
  with the same dose both arms see the same number of these.
  """
  pictures, text = (0.2, 0.15) if objectives else (0.57, 0.43)
  return _mixture(
    instances=0.65 if objectives else 0.0,
    conversations=round(pictures - dose, 4),
    text=text,
    spatial=dose,
  )


# How soon each arm learns to compare places, and to find them.
_CURVES = (
  "validation.every=100", "validation.rows=0", "validation.samples=300",
  "validation.tasks=('spatial_trained', 'locpred')",
)  # fmt: skip


def _stage1(*coords: str) -> Arm:
  """Stage 1, of captions alone; its config says what coordinates will be.

  The base was trained without any.
  """
  name = "-".join(("stage1", *(c.split("=")[1] for c in coords)))
  may_differ = ("init.override=('coords',)",) if coords else ()
  return Arm(name, "stage1", (*coords, *may_differ))


def _stage2(
  name: str,
  *fields: str,
  coords: tuple[str, ...] = (),
  captions: Arm | None = None,
) -> Arm:
  """An arm of stage 2; stage 1 has no coordinates, and is alike for all."""
  fields = (f"steps={_STEPS}", *_CURVES, *fields, *coords)
  return Arm(name, "stage2", fields, _stage1(*coords), captions)


def _vid(name: str, *fields: str, words: str = "vid_b_plus") -> Arm:
  """An arm of stage 3, from the committed reference."""
  return Arm(name, words, (f"steps={_VIDEO_STEPS}", *fields))


def _without(*objectives: str) -> tuple[str, ...]:
  return tuple(f"data.objectives.{name}=0" for name in objectives)


_WITH = _general(True, DOSE)
BASELINE = _stage2("baseline", *_general(False, DOSE))
LOC_PRED = _stage2("locpred", *_WITH, *_without("neg_pred", "rev_loc"))
LOC_NEG = _stage2("locpred-negpred", *_WITH, *_without("rev_loc"))
FULL = _stage2("locvlm", *_WITH)
POINT = _stage2("point", *_WITH, coords=("coords.location=point",))
PSEUDO = _stage2("pseudo-captions", *_WITH, captions=_stage1())
NFP = _stage2("nfp", *_WITH, coords=("coords.form=nfp",))
DIGA = _stage2("diga", *_WITH, coords=("coords.form=diga",))
VID_B = _vid("vid-b", words="vid_b")
VID_NONE = _vid(
  "vid-b-plus-none", *_mixture(video_conversations=1.0, tracks=0.0)
)
VID_LOC = _vid("vid-b-plus-locpred", *_without("neg_pred", "rev_loc"))
VID_LOC_NEG = _vid("vid-b-plus-locpred-negpred", *_without("rev_loc"))
VID_FULL = _vid("vid-b-plus")

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
_POPE = {
  kind: f"pope_{kind}.accuracy" for kind in ("random", "popular", "adversarial")
}


def _above(better: Arm, worse: Arm, metrics, *paper) -> tuple[Ordering, ...]:
  """`better` is above `worse` in each of the metrics."""
  return tuple(
    Ordering(better.name, worse.name, metric, numbers)
    for metric, numbers in zip(metrics, paper, strict=True)
  )


TABLES = {
  2: Table(
    "Table 2. Forms of coordinates", (NFP, FULL, DIGA), _ABLATED,
    _above(FULL, NFP, _ABLATED.values(),
           (47.3, 46.1), (20.7, 19.6), (37.4, 37.1))
    + _above(FULL, DIGA, ("gqa.accuracy",), (47.3, 47.0)),
    "locvlm is IVB. Videos are answered from the frame in their middle."),
  4: Table(
    "Table 4. COCO-Spatial", (BASELINE, FULL), _SIDES,
    _above(FULL, BASELINE, _SIDES.values(),
           (69.5, 55.1), (65.4, 58.9), (76.5, 55.1), (74.1, 58.2)),
    "In the wordings that the general data of both arms has; examples in"
    " context are about other objects, so that they tell nothing."),
  5: Table(
    "Table 5. Image VQA", (BASELINE, FULL),
    {"GQA": "gqa.accuracy", "VQAv2": "vqav2.evalai.accuracy"},
    _above(FULL, BASELINE, ("gqa.accuracy", "vqav2.evalai.accuracy"),
           (47.3, 44.7), (50.3, 49.8))),
  6: Table(
    "Table 6. Video VQA", (VID_B, VID_FULL),
    {name: f"{name}.match" for name in _VIDEO_QA}, (),
    "In the micro-world the four sets hold the same questions."),
  7: Table(
    "Table 7. ActivityNet-QA", (BASELINE, FULL, VID_B, VID_FULL),
    {"A-QA": "activitynet_qa.match"},
    _above(FULL, BASELINE, ("activitynet_qa.match",), (29.2, 28.7))
    + _above(VID_B, FULL, ("activitynet_qa.match",), (37.4, 29.2))
    + _above(VID_FULL, VID_B, ("activitynet_qa.match",), (38.2, 37.4))),
  8: Table(
    "Table 8. Hallucination", (BASELINE, FULL, VID_B, VID_FULL),
    {"Hal-COCO": "hal_coco.accuracy", "Hal-ADE": "hal_ade.accuracy",
     "Hal-Act": "hal_act.accuracy"},
    _above(FULL, BASELINE, ("hal_coco.accuracy", "hal_ade.accuracy"),
           (88.3, 61.9), (75.2, 53.8))
    + _above(VID_FULL, VID_B, ("hal_act.accuracy",), (72.4, 68.7))),
  9: Table(
    "Table 9. POPE", (BASELINE, FULL), _POPE,
    _above(FULL, BASELINE, _POPE.values(),
           (87.9, 50.4), (86.0, 49.9), (78.8, 49.7))),
  10: Table(
    "Table 10. Region description, METEOR", (BASELINE, FULL, PSEUDO),
    {name: f"{name}.meteor" for name in _DESCRIPTIONS},
    _above(PSEUDO, BASELINE, [f"{name}.meteor" for name in _DESCRIPTIONS],
           (11.0, 4.23), (11.1, 7.26), (20.6, 10.6), (20.7, 10.3))),
  11: Table(
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
  12: Table(
    "Table 12. Objectives on videos",
    (VID_NONE, VID_LOC, VID_LOC_NEG, VID_FULL),
    {"A-QA": "activitynet_qa.match"},
    _above(VID_LOC, VID_NONE, ("activitynet_qa.match",), (37.6, 37.4))
    + _above(VID_LOC_NEG, VID_LOC, ("activitynet_qa.match",), (38.2, 37.6))),
}  # fmt: skip

"""How the arms of the micro-world's experiments are trained.

All start from the same weights and see the same micro-world for the same number
of steps. In their general data the same share of the rows is spatial questions;
what differs is what an experiment is about.
"""

from locvlm_jax.experiments.runs import Arm, World

WORLD = World(train=20_000, val=2000, videos=1500)
_STEPS, _BOX_STEPS, _LORA_STEPS, _VIDEO_STEPS = 1500, 1000, 400, 300
DOSE = 0.1  # of the rows are spatial questions, in every arm of a table
# The share in LLaVA's instructions is 1.3 %.
DOSES = (0.0, 0.013, 0.025, 0.05, DOSE, 0.2)


def _mixture(**weights: float) -> tuple[str, ...]:
  return tuple(f"data.mixture.{name}={w}" for name, w in weights.items())


def _general(objectives: bool, dose: float) -> tuple[str, ...]:
  """Returns the shares of rows, of which `dose` are spatial questions.

  The objectives take the place of general data, and so do spatial questions:
  with the same dose both arms see the same ones of these.
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


def _dose(dose: float, objectives: bool) -> Arm:
  """An arm of stage 2 with another share of spatial questions."""
  name = "locvlm" if objectives else "baseline"
  if dose != DOSE:
    name += f"-dose-{100 * dose:g}"
  return _stage2(name, *_general(objectives, dose))


_WITH = _general(True, DOSE)
WITH_OBJECTIVES = {dose: _dose(dose, True) for dose in DOSES}
WITHOUT = {dose: _dose(dose, False) for dose in DOSES}
FULL, BASELINE = WITH_OBJECTIVES[DOSE], WITHOUT[DOSE]
# It sees as many general questions as FULL, and text in the objectives' place.
MORE_TEXT = _stage2(
  "more-text",
  *_mixture(instances=0.0, conversations=0.1, text=0.8, spatial=DOSE),
)
LOC_PRED = _stage2("locpred", *_WITH, *_without("neg_pred", "rev_loc"))
NEG_PRED = _stage2("negpred", *_WITH, *_without("loc_pred", "rev_loc"))
REV_LOC = _stage2("revloc", *_WITH, *_without("loc_pred", "neg_pred"))
LOC_NEG = _stage2("locpred-negpred", *_WITH, *_without("rev_loc"))
POINT = _stage2("point", *_WITH, coords=("coords.location=point",))
PSEUDO = _stage2("pseudo-captions", *_WITH, captions=_stage1())
# Captions of the kind "a red cup" alone, none "the cup closest to a ball".
_PLAINLY = Arm("stage1-plainly", "stage1", ("pseudo.relational=()",))
PSEUDO_PLAIN = _stage2("pseudo-captions-plain", *_WITH, captions=_PLAINLY)
NFP = _stage2("nfp", *_WITH, coords=("coords.form=nfp",))
DIGA = _stage2("diga", *_WITH, coords=("coords.form=diga",))
# How coordinates are best learned: mostly LocPred, until it finds half of all.
_MOSTLY_LOC_PRED = (
  *_mixture(instances=0.9, conversations=0.08, text=0.02, spatial=0.0),
  "data.objectives.loc_pred=4.0",
  "validation.every=50", "validation.rows=0", "validation.samples=300",
  "validation.tasks=('locpred',)",
)  # fmt: skip
_BOXES = (f"steps={_BOX_STEPS}", *_MOSTLY_LOC_PRED)
_ALONE = (*_BOXES, "optim.digit_loss=0.0")
PLAIN = Arm("cross-entropy", "stage2", _ALONE, _stage1())
DIGIT_LOSS = Arm(
  "digit-loss-8", "stage2", (*_BOXES, "optim.digit_loss=8.0"), _stage1()
)
_FIXED = ("coords.fixed_width=True", "init.override=('coords',)")
_STAGE1_FIXED = Arm("stage1-fixed-width", "stage1", _FIXED)
FIXED_WIDTH = Arm("fixed-width", "stage2", (*_ALONE, _FIXED[0]), _STAGE1_FIXED)
BOTH = Arm(
  "digit-loss-8-fixed-width", "stage2", (*DIGIT_LOSS.fields, _FIXED[0]),
  _STAGE1_FIXED,
)  # fmt: skip


def _rewrite(name: str, steps: int, *fields: str) -> Arm:
  """An arm in which the reference learns to write boxes with leading zeros.

  It finds most of them already, so that what it is trained in decides neither
  whether it learns to, nor when.
  """
  return Arm(
    name, "stage2",
    (f"steps={steps}", *_MOSTLY_LOC_PRED, f"init.llava={_REFERENCE}", *_FIXED,
     "optim.name=adamw", "log_every=5", *fields),
  )  # fmt: skip


def _lora(name: str, base_weights: str) -> Arm:
  return _rewrite(
    name, _LORA_STEPS, "lora.rank=16", "lora.alpha=32.0",
    "trainable=('adapter','llm/layers/.*_lora_[ab]')", "optim.lr=2e-3",
    f"model.llm.base_weights={base_weights}",
  )  # fmt: skip


_REFERENCE = "locvlm_jax/assets/micro_reference"
LORA = _lora("lora-float32", "float")
LORA_NF4, LORA_INT8 = _lora("lora-nf4", "nf4"), _lora("lora-int8", "int8")
ADAM = _rewrite("adam-float32", _BOX_STEPS, "optim.lr=1e-3")
ADAM_8BIT = _rewrite(
  "adam-8bit", _BOX_STEPS, "optim.lr=1e-3", "optim.moments=8bit"
)
VID_B = _vid("vid-b", words="vid_b")
VID_NONE = _vid(
  "vid-b-plus-none", *_mixture(video_conversations=1.0, tracks=0.0)
)
VID_LOC = _vid("vid-b-plus-locpred", *_without("neg_pred", "rev_loc"))
VID_LOC_NEG = _vid("vid-b-plus-locpred-negpred", *_without("rev_loc"))
VID_FULL = _vid("vid-b-plus")

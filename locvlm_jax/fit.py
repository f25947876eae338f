"""Fits a model to your own boxes: `python -m locvlm_jax.fit --data D --out W`.

It recognizes the format of the boxes, holds a tenth of the pictures out where
there is no split, and says what it found. Then it runs, as `reproduce` does,

  evaluate   the model as it is, on the pictures that are held out
  train      stage 2 on the rest, from that model: the paper's objectives, and
             lists of all objects of a category
  evaluate   the trained model on the same questions
  report     the page about both, with pictures

and what is finished is not repeated when the same line is run again. --out
receives data/ (the boxes in COCO's format), before/, stage2/ (a run, which
`generate --checkpoint` takes, with what its boxes' scores are worth, and the
boxes that it found as COCO's results and YOLO's labels), results.json and
report.html.
"""

import sys

from absl import flags

from locvlm_jax import command

_DATA = flags.DEFINE_string(
  "data", None, "The boxes: a folder, file or zip in any format that"
  " docs/own_boxes.md names, with :SPLIT behind it to take one split alone.",
)  # fmt: skip
_OUT = flags.DEFINE_string("out", None, "The folder of the run.")
_MODEL = flags.DEFINE_string(
  "model", "micro", "What to start from: micro, the committed base, or the"
  " directory of a Llava in Hugging Face's layout.",
)  # fmt: skip
_IMAGES = flags.DEFINE_string(
  "images", "", "The folder of the pictures, where the boxes don't say."
)
_SEED = flags.DEFINE_integer(
  "seed", 0, "Of the division, where the data have no split."
)
_SET = flags.DEFINE_multi_string(
  "set", [], "A field of configs/fit.py, as in --set steps=300."
)


def main(argv: list[str]) -> None:
  """Fits the model of the flags."""
  del argv
  from locvlm_jax.fitting import fit_recipe

  fit_recipe.run(
    fit_recipe.Fit(
      data=_DATA.value,
      images=_IMAGES.value,
      out=_OUT.value,
      model=_MODEL.value,
      seed=_SEED.value,
      fields=tuple(_SET.value),
      command=("python", "-m", "locvlm_jax.fit", *sys.argv[1:]),
    )
  )


if __name__ == "__main__":
  command.run(main, required=["data", "out"])

"""Writes the micro-world: `python -m locvlm_jax.microworld --out DIR`.

It is a small seeded data set in COCO's own formats: images with instances,
panoptic segmentations, captions, referring expressions and conversations,
short videos, and twins of the published benchmarks. The same seed gives the
same bytes; microworld/dataset.py lists the files.
"""

from absl import flags

from locvlm_jax import command

_OUT = flags.DEFINE_string("out", None, "The directory to write.")
_TRAIN = flags.DEFINE_integer("train", 10_000, "Training images.")
_VAL = flags.DEFINE_integer("val", 1_000, "Validation images.")
_VIDEOS = flags.DEFINE_integer(
  "videos", 64, "Training videos; the validation split has a fifth as many."
)
_PORTRAITS = flags.DEFINE_integer(
  "portraits", 0, "Images of a single object, with captions alone."
)
_SEED = flags.DEFINE_integer("seed", 0, "The same seed gives the same bytes.")
_WORKERS = flags.DEFINE_integer(
  "workers", None, "Processes; by default one for each core."
)


def main(argv: list[str]) -> None:
  """Writes the data set of the flags."""
  del argv
  from locvlm_jax.microworld import dataset

  dataset.write(
    _OUT.value,
    num_train=_TRAIN.value,
    num_val=_VAL.value,
    num_videos=_VIDEOS.value,
    num_portraits=_PORTRAITS.value,
    seed=_SEED.value,
    workers=_WORKERS.value,
    log=_log,
  )


def _log(line: str) -> None:
  print(line, flush=True)


if __name__ == "__main__":
  command.run(main, required=["out"])

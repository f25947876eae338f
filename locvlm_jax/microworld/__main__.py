"""Writes the micro-world: `python -m locvlm_jax.microworld --out DIR`."""

import argparse
import functools
import sys

from locvlm_jax.microworld import dataset

# Command line -------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m locvlm_jax.microworld",
    description="Writes the micro-world data set in COCO's formats.",
  )
  parser.add_argument("--out", required=True, help="directory to write")
  for flag, default, what in (
    ("--train", 10_000, "training images"),
    ("--val", 1_000, "validation images"),
    ("--videos", 64, "training videos; val has a fifth"),
    ("--portraits", 0, "images of a single object, with captions alone"),
    ("--seed", 0, "the same seed gives the same bytes"),
  ):
    parser.add_argument(
      flag, type=int, default=default, help=f"{what} (default {default})"
    )
  parser.add_argument(
    "--workers",
    type=int,
    default=None,
    help="processes (default: one per core)",
  )
  return parser


def main() -> None:
  args = _parser().parse_args()
  try:
    dataset.write(
      args.out,
      num_train=args.train,
      num_val=args.val,
      num_videos=args.videos,
      num_portraits=args.portraits,
      seed=args.seed,
      workers=args.workers,
      log=functools.partial(print, flush=True),
    )
  except ValueError as error:
    sys.exit(f"microworld: {error}")


if __name__ == "__main__":
  main()

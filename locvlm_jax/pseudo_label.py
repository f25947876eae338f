"""Makes pseudo-data (paper, section 3.4): `python -m locvlm_jax.pseudo_label`.

  --mode self_training  captions of the objects of `config.data.instances`, by
                    the run in --workdir or the Llava directory --llava:
                    --config FILE --workdir RUN --out F.jsonl.
                    `config.data.object_captions` reads the result. All hosts
                    take part; interrupted, the same command goes on.
  --mode segment    panoptic segmentations of a folder of pictures, or with
                    --videos of videos, by a model of transformers on PyTorch:
                    --model DIR --media FOLDER --out FOLDER. They are input to
  --mode panoptic   boxes and what is absent, from panoptic segmentations of any
                    segmenter: --panoptic FILE.json --masks FOLDER --out F.json.
                    `config.data.instances` reads the result; with --videos,
                    where an image is a frame of the video or folder that its
                    file name begins with, `config.data.tracks` does.

pseudo/self_training.py and pseudo/pseudo_boxes.py have the formats and the
rules. A summary of what was left out and why is printed and written beside
the file.
"""

import json
import os

from absl import flags

from locvlm_jax import command, files

command.define_config()
command.define_workdir("The run that is asked, with --mode=self_training.")
_MODE = flags.DEFINE_enum(
  "mode", None, ["self_training", "segment", "panoptic"], "What to make."
)
_OUT = flags.DEFINE_string("out", None, "The file, or folder, to write.")
_LLAVA = flags.DEFINE_string(
  "llava", "", "A Hugging Face Llava directory to ask instead of the run."
)
_OVERRIDE = command.define_override()
_MODEL = flags.DEFINE_string(
  "model", None, "The directory of a panoptic model in transformers' format."
)
_MEDIA = flags.DEFINE_string(
  "media", None, "The folder of pictures, or videos, to segment."
)
_THINGS = flags.DEFINE_string(
  "things", "", "Names of the model's categories that have instances, or a COCO"
  " file with them; all categories if absent.",
)  # fmt: skip
_FRAMES = flags.DEFINE_integer("frames", 8, "Frames to segment of a video.", 1)
_PANOPTIC = flags.DEFINE_string("panoptic", None, "COCO's panoptic json.")
_MASKS = flags.DEFINE_string("masks", None, "The folder of its PNGs.")
_CATEGORIES = flags.DEFINE_list(
  "categories", [], "Categories that boxes are wanted of; all things if absent."
)
_MIN_SHARE = flags.DEFINE_float(
  "min_share", 0.005, "The least share of an image's pixels that an object"
  " has.", 0.0, 1.0,
)  # fmt: skip
_MIN_SCORE = flags.DEFINE_float(
  "min_score", 0.5, "The least score that the segmenter gives an object.",
  0.0, 1.0,
)  # fmt: skip
_MAX_VOID = flags.DEFINE_float(
  "max_void", 0.1, "The share of pixels without a segment above which nothing"
  " is said to be absent.", 0.0, 1.0,
)  # fmt: skip
_DENY = flags.DEFINE_enum(
  "deny", "things", ["selected", "things", "all"],
  "Which categories may be said to be absent.",
)  # fmt: skip
_VIDEOS = flags.DEFINE_bool("videos", False, "The images are frames of videos.")
_COMPARE = flags.DEFINE_string(
  "compare", None, "Instances of the same images, to count disagreements with."
)
_THREADS = flags.DEFINE_integer(
  "threads", len(os.sched_getaffinity(0)), "How many threads read masks.", 1
)


def main(argv: list[str]) -> None:
  """Makes what --mode says, prints the summary and writes it."""
  del argv
  # Each imports what it needs: PyTorch, which segments, wants the device alone.
  modes = {
    "self_training": _write_captions,
    "segment": _write_segmentations,
    "panoptic": _write_boxes,
  }
  if _MODE.value != "segment":  # which makes a folder, and those above it
    files.check_parent(_OUT.value, "--out")
  if summary := modes[_MODE.value]():
    text = json.dumps(summary, indent=2)
    path = _OUT.value.rstrip("/") + ".summary.json"
    files.write_lines(path, [text + "\n"])
    print(text)


def _write_captions() -> dict:
  """Writes pseudo-captions; returns the summary, in the first process alone."""
  from locvlm_jax import agreement
  from locvlm_jax.parallel import hosts
  from locvlm_jax.pseudo import self_training

  workdir = "" if _LLAVA.value else command.workdir()
  config = agreement.adopt(
    command.config(), _LLAVA.value or workdir, command.said(), _OVERRIDE.value
  )
  summary = self_training.write(config, workdir, _OUT.value, _LLAVA.value)
  return summary if hosts.is_first() else {}


def _write_segmentations() -> dict:
  """Writes panoptic segmentations, and returns the summary."""
  from locvlm_jax.pseudo import segmenter

  _need(_MODEL, _MEDIA)
  settings = segmenter.Settings(
    model=_MODEL.value,
    media=_MEDIA.value,
    things=_THINGS.value,
    min_score=_MIN_SCORE.value,
    frames=_FRAMES.value if _VIDEOS.value else 0,
  )
  return segmenter.write(settings, _OUT.value)


def _write_boxes() -> dict:
  """Writes pseudo-boxes, and returns the summary."""
  from locvlm_jax.pseudo import box_files, pseudo_boxes

  _need(_PANOPTIC, _MASKS)
  selection = pseudo_boxes.Selection(
    categories=tuple(_CATEGORIES.value),
    min_share=_MIN_SHARE.value,
    min_score=_MIN_SCORE.value,
    max_void=_MAX_VOID.value,
    deny=_DENY.value,
  )
  settings = box_files.Settings(
    panoptic=_PANOPTIC.value,
    masks=_MASKS.value,
    selection=selection,
    videos=_VIDEOS.value,
    compare=_COMPARE.value,
    threads=_THREADS.value,
  )
  return box_files.write(settings, _OUT.value)


def _need(*needed: flags.FlagHolder) -> None:
  for flag in needed:
    if not flag.value:
      raise ValueError(f"--mode={_MODE.value}: --{flag.name} is missing.")


if __name__ == "__main__":
  command.run(main, required=["mode", "out"])

"""Pseudo-data (paper, section 3.4): `python -m locvlm_jax.pseudo_label`.

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

import hashlib
import json
import os

from absl import flags

from locvlm_jax import command, files

_MODE = flags.DEFINE_enum(
  "mode", None, ["self_training", "segment", "panoptic"], "What to make."
)
_OUT = flags.DEFINE_string("out", None, "The file, or folder, to write.")

_LLAVA = flags.DEFINE_string(
  "llava", "", "Ask this Hugging Face Llava directory instead of the run."
)
_MODEL = flags.DEFINE_string(
  "model", None, "A panoptic model in transformers' format."
)
_MEDIA = flags.DEFINE_string("media", None, "Pictures, or videos, to segment.")
_THINGS = flags.DEFINE_string(
  "things", "", "Names of the model's categories that have instances, or a COCO"
  " file with them; default: all.",
)  # fmt: skip
_FRAMES = flags.DEFINE_integer("frames", 8, "Of each video, segmented.", 1)
_PANOPTIC = flags.DEFINE_string("panoptic", None, "COCO's panoptic json.")
_MASKS = flags.DEFINE_string("masks", None, "Folder of its PNGs.")
_CATEGORIES = flags.DEFINE_list(
  "categories", [], "Those that boxes are wanted of; default: all things."
)
_MIN_SHARE = flags.DEFINE_float(
  "min_share", 0.005, "Of an image's pixels that an object has, at least.",
  0.0, 1.0,
)  # fmt: skip
_MIN_SCORE = flags.DEFINE_float(
  "min_score", 0.5, "The segmenter's, of an object, at least.", 0.0, 1.0
)
_MAX_VOID = flags.DEFINE_float(
  "max_void", 0.1, "Share of pixels without a segment, above which nothing is"
  " said to be absent.", 0.0, 1.0,
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
  "threads", len(os.sched_getaffinity(0)), "That read masks.", 1
)


def main(argv: list[str]) -> None:
  """Flags to files."""
  del argv
  {"self_training": self_training, "segment": segment, "panoptic": panoptic}[
    _MODE.value
  ]()


def self_training() -> None:
  """Writes pseudo-captions, and the summary.

  Raises:
    ValueError: a missing flag, or a value that can't be meant.
  """
  from locvlm_jax.parallel import hosts
  from locvlm_jax.pseudo import self_training as self_training_lib

  config = command.config()
  workdir = "" if _LLAVA.value else command.workdir()
  summary = self_training_lib.write(config, workdir, _OUT.value, _LLAVA.value)
  if hosts.is_first():
    _finish(summary)


def segment() -> None:
  """Writes panoptic segmentations, and the summary.

  Raises:
    ValueError: a missing flag, no PyTorch, or no such model or folder.
  """
  from locvlm_jax.pseudo import segmenter

  _need(_MODEL, _MEDIA)
  frames = _FRAMES.value if _VIDEOS.value else 0
  chosen = _settings(_MODEL, _MEDIA, _THINGS, _MIN_SCORE) | {"frames": frames}
  segmenter.claim(_OUT.value, chosen)
  model = segmenter.Segmenter.load(_MODEL.value, _things(), _MIN_SCORE.value)
  counts = segmenter.segment(model, _MEDIA.value, _OUT.value, frames)
  _finish({"settings": chosen, **counts})


def _things() -> list[str]:
  from locvlm_jax.data import reading

  if not _THINGS.value.endswith(".json"):
    return [n.strip() for n in _THINGS.value.split(",") if n.strip()]
  rows = reading.section(
    reading.read_json(_THINGS.value), "categories", _THINGS.value
  )
  return [reading.text(row, "name", _THINGS.value) for row in rows]


def panoptic() -> None:
  """Writes pseudo-boxes, and the summary.

  Raises:
    ValueError: a missing flag, a wrong file, or categories that it hasn't.
  """
  from locvlm_jax.pseudo import pseudo_boxes, segmentations

  _need(_PANOPTIC, _MASKS)
  selection = pseudo_boxes.Selection(
    tuple(_CATEGORIES.value),
    _MIN_SHARE.value,
    _MIN_SCORE.value,
    _MAX_VOID.value,
    _DENY.value,
  )
  source = segmentations.Segmentations(_PANOPTIC.value, _MASKS.value)
  content, counts = pseudo_boxes.pseudo_boxes(source, selection, _THREADS.value)
  chosen = _settings(
    _PANOPTIC,
    _MASKS,
    _CATEGORIES,
    _MIN_SHARE,
    _MIN_SCORE,
    _MAX_VOID,
    _DENY,
    _VIDEOS,
  )
  info = {"settings": chosen, "sha256": _sha256(_PANOPTIC.value)}
  if _COMPARE.value and _VIDEOS.value:
    raise ValueError("--compare is of images; leave it out with --videos.")
  made = pseudo_boxes.by_video(content) if _VIDEOS.value else content
  with files.replacing(_OUT.value) as f:
    json.dump({"info": info, **made}, f, ensure_ascii=False)
  if _COMPARE.value:
    counts["compared"] = _compared(_COMPARE.value)
  _finish({**info, **counts})


def _compared(path: str) -> dict:
  """The disagreements with the annotations of the same images."""
  from locvlm_jax.data.sources import coco
  from locvlm_jax.pseudo import comparison

  folder = os.path.dirname(os.path.abspath(path))  # no image is opened
  mine, real = coco.Instances(_OUT.value, folder), coco.Instances(path, folder)
  return comparison.compare(mine, real)


def _need(*needed) -> None:
  for flag in needed:
    if not flag.value:
      raise ValueError(f"--mode={_MODE.value}: --{flag.name} is missing.")


def _settings(*chosen) -> dict:
  return {flag.name: flag.value for flag in (_MODE, *chosen)}


def _sha256(path: str) -> str:
  with open(path, "rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _finish(summary: dict) -> None:
  text = json.dumps(summary, indent=2)
  out = _OUT.value.rstrip("/")
  files.write_lines(out + ".summary.json", [text + "\n"])
  print(text)


if __name__ == "__main__":
  command.run(main, required=["mode", "out"])

"""Training data on disk: `python -m locvlm_jax.build_data --out FILE.jsonl`.

  --dataset localize_instruct   LocPred, NegPred and RevLoc about the images of
                                a COCO instances file (paper, section 3.3)
  --dataset localize_activitynet   the same about what stands still in videos,
                                from boxes over their frames (section 3.5);
                                see data/sources/tracks.py

Each line is the conversation about one image or video in LLaVA's format, with
what it was made by; `config.data.conversations` and `video_conversations` read
the file. The pairs are those that training makes on the fly: image i draws from
the generator of (seed, i). No image is opened. At the end a summary is printed
and written beside the file: its counts by reason add up to the images and
annotations that were given, of a video one for each category that is in it.
"""

import json
import os

from absl import flags

from locvlm_jax import command, files

_DATASET = flags.DEFINE_enum(
  "dataset", "localize_instruct", ["localize_instruct", "localize_activitynet"],
  "What to build.",
)  # fmt: skip
_INSTANCES = flags.DEFINE_string("instances", None, "COCO's instances json.")
_IMAGES = flags.DEFINE_string("images", None, "Folder of its images.")
_TRACKS = flags.DEFINE_string(
  "tracks", None, "Boxes over the frames of videos, YouTube-VIS's json."
)
_VIDEOS = flags.DEFINE_string("videos", None, "Folder of these videos.")
_STATIC_IOU = flags.DEFINE_float(
  "static_iou", 0.5, "Of each of its boxes with their median, of what stands"
  " still.", 0.0, 1.0,
)  # fmt: skip
_OUT = flags.DEFINE_string("out", None, "The jsonl to write.")
_COORDS = flags.DEFINE_enum(
  "coords", "ivb", ["nfp", "ivb", "diga"], "How a location is written."
)
_NUM_BINS = flags.DEFINE_integer("num_bins", 224, "n_b of ivb and diga.")
_LOCATION = flags.DEFINE_enum(
  "location", "box", ["box", "point"], "What a location is."
)
_IMAGE_SIZE = flags.DEFINE_integer(
  "image_size", 224, "Side of the model's input, in pixels."
)
_GEOMETRY = flags.DEFINE_enum(
  "geometry", None, ["center_crop", "pad", "square"],
  "How an image becomes that square; by default center_crop, of videos square.",
)  # fmt: skip
_SEED = flags.DEFINE_integer("seed", 0, "Of all that is random.")
_MAX_PAIRS = flags.DEFINE_integer(
  "max_pairs", 4, "Question-answer pairs of an image, at most.", lower_bound=1
)
_NUM_PAIRS = flags.DEFINE_integer(
  "num_pairs", 0, "So many pairs in all, drawn by seed, each a conversation of"
  " its own; 0: all of them.", lower_bound=0,
)  # fmt: skip
_EXCLUDE = flags.DEFINE_multi_string(
  "exclude",
  [],
  "File of an evaluation set, whose images and videos are left out.",
)
_CAPTIONS = flags.DEFINE_string(
  "captions", None, "jsonl of captions by annotation id, as targets in place of"
  " the categories.",
)  # fmt: skip
_WORKERS = flags.DEFINE_integer(
  "workers", len(os.sched_getaffinity(0)), "Processes; the file is the same."
)


def main(argv: list[str]) -> None:
  """Builds the data set of the flags, and prints the summary."""
  del argv
  from locvlm_jax.data.build import localize_instruct
  from locvlm_jax.text import coords

  settings = localize_instruct.Settings(
    dataset=_DATASET.value,
    instances=_INSTANCES.value,
    images=_IMAGES.value,
    captions=_CAPTIONS.value,
    tracks=_TRACKS.value,
    videos=_VIDEOS.value,
    static_iou=_STATIC_IOU.value,
    coords=coords.Coords(_COORDS.value, _NUM_BINS.value, _LOCATION.value),
    image_size=_IMAGE_SIZE.value,
    geometry=_GEOMETRY.value,
    seed=_SEED.value,
    max_pairs=_MAX_PAIRS.value,
    num_pairs=_NUM_PAIRS.value,
    exclude=_EXCLUDE.value,
    workers=_WORKERS.value,
  )
  files.check_parent(_OUT.value, "--out")
  summary = localize_instruct.build(settings, _OUT.value)
  text = json.dumps(summary, indent=2) + "\n"
  files.write_lines(_OUT.value + ".summary.json", [text])
  print(text, end="")


if __name__ == "__main__":
  command.run(main, required=["out"])

"""Asks a model about a picture, about several, a video, or about nothing.

  python -m locvlm_jax.generate --image photo.jpg --prompt "Where is the cup?"
  python -m locvlm_jax.generate --video clip.mp4 --prompt "What moves?" ...

The model is a run's workdir or a Llava directory in Hugging Face layout; by
default the micro model that comes with the package, which knows the micro-world
alone (`python -m locvlm_jax.microworld` draws some). On a terminal the
answer appears as it is written. Boxes and points in it are read, given in
pixels of the picture (of a video, the frame in its middle) and drawn with
--draw. With --constrained the answer is a location that can always be read, the
one that the likeliest tokens write, or with --beams 4 the likeliest of several;
with it come the probability of its text and, where held-out questions say so,
the IoU to expect of it. With --expected 16 also the mean and deviation of so
many locations drawn from the model.

--detect cup,plate lists every cup and plate, of a model that was trained on it
(data.objectives.detect). --json has all boxes of an answer, each with its label
and the IoU to expect of it as its score; null where nothing says that, which is
so of boxes that a free answer has several of.
"""

import json
import sys

from absl import flags

from locvlm_jax import command

_CONFIG = command.define_config(
  "The config of a model that does not say how it was trained."
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "", "A run's workdir, or a Llava directory."
)
_OVERRIDE = command.define_override()
_IMAGES = flags.DEFINE_multi_string(
  "image", [], "The picture; more than once for several; none for text alone."
)
_VIDEO = flags.DEFINE_multi_string(
  "video", [], "A video, GIF or folder of frames; a model that was not trained"
  " on videos sees the frame in its middle.",
)  # fmt: skip
_PROMPT = flags.DEFINE_string("prompt", "", "The question.")
_DETECT = flags.DEFINE_list(
  "detect", [], "In place of a question: list every object of these categories."
)
_MAX_BOXES = flags.DEFINE_integer(
  "max_boxes", 20, "With --detect: of a category, at most.", 1
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0: greedy.", 0.0)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Sample among so many; 0: all.", 0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Sample among the likeliest.", 0.0, 1)
_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "At most so many.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the sampling.")
_STOP = flags.DEFINE_multi_string("stop", [], "Cut the answer at this text.")
_CONSTRAINED = flags.DEFINE_bool(
  "constrained", False, "Answer with a location that can be read."
)
_BEAMS = flags.DEFINE_integer(
  "beams", 1, "With --constrained: beginnings that are kept; 1 is greedy.", 1
)
_ZOOM = flags.DEFINE_float(
  "zoom", 0.0, "With --constrained: look again at a window so many times as"
  " large as the box; 3 for small objects.", 0.0,
)  # fmt: skip
_EXPECTED = flags.DEFINE_integer(
  "expected", 0, "Also the mean and deviation of so many drawn locations.", 0
)
_DRAW = flags.DEFINE_string("draw", "", "Write the picture with the location.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of json.")


def main(argv: list[str]) -> None:
  """Asks about the pictures; prints the answer, and where it points."""
  del argv
  from locvlm_jax import agreement
  from locvlm_jax.inference import model as model_lib

  pictures = (*_IMAGES.value, *_VIDEO.value)
  _check_flags(pictures)
  if _DRAW.value and not pictures:
    raise ValueError("--draw needs an --image or --video to draw on.")
  for path in pictures:
    model_lib.open_picture(path)  # what can't be read shows now
  config = None
  if _CONFIG.value:
    directory = _CHECKPOINT.value or model_lib.DEFAULT
    config = agreement.adopt(
      command.config(), directory, command.said(), _OVERRIDE.value
    )
  model = model_lib.Model.load(
    _CHECKPOINT.value,
    model_lib.Decoding(
      max_new_tokens=_TOKENS.value,
      temperature=_TEMPERATURE.value,
      top_k=_TOP_K.value,
      top_p=_TOP_P.value,
      stop=tuple(_STOP.value),
      beams=_BEAMS.value,
      max_boxes=_MAX_BOXES.value,
      zoom=_ZOOM.value,
      seed=_SEED.value,
    ),
    config,
  )
  found = _ask(model, pictures)
  if _DRAW.value:
    picture = model_lib.open_picture(pictures[0])
    for box in [x["box"] for x in found["boxes"]]:
      picture = model_lib.draw(picture, box)
    picture.save(_DRAW.value)
  if _JSON.value:
    print(json.dumps(found))
  else:
    _print(found)


def _check_flags(pictures) -> None:
  """Refuses flags that do not go together.

  Raises:
    ValueError: says which.
  """
  if not (_PROMPT.value or _DETECT.value):
    raise ValueError("--prompt is missing; --detect lists objects instead.")
  if _PROMPT.value and _DETECT.value:
    raise ValueError("--prompt asks a question, --detect lists: give one.")
  if _ZOOM.value and not (_CONSTRAINED.value and _ZOOM.value > 1):
    raise ValueError(
      f"--zoom={_ZOOM.value} needs a factor above 1, and --constrained."
    )
  if _DETECT.value and (len(pictures) != 1 or _EXPECTED.value):
    raise ValueError(
      "--detect is about one --image or --video, and without --expected."
    )


def _ask(model, pictures) -> dict:
  """The answer, its locations in pixels, and how sure of them the model is."""
  first = pictures[0] if len(pictures) == 1 else None
  if _DETECT.value:
    answer, located = model.detect(first, _DETECT.value)
    box = list(located[0].box) if located else None
    reason = "" if located else "none found"
    return {"answer": answer, "location": box, "reason": reason} | _boxes(
      located
    )
  found = {}
  if _EXPECTED.value:
    mean, deviation = model.expect(
      pictures, _PROMPT.value, _EXPECTED.value, _SEED.value
    )
    found |= {"expected": _rounded(mean), "deviation": _rounded(deviation)}
  if _CONSTRAINED.value:
    answer, probability = model.answer_location(pictures, _PROMPT.value)
    iou = model.expected_iou(probability)
    known = {} if iou is None else {"expected_iou": round(iou, 2)}
    found = {**known, "probability": float(f"{probability:.3g}"), **found}
  else:
    answer = _written(model, pictures)
    iou = model.score(first, _PROMPT.value, answer) if first else None
  location, reason = model.find(first, answer)
  box = list(location.box) if location else None
  located = model.find_all(first, answer, _PROMPT.value)
  boxes = _boxes(located, iou if iou is None else round(iou, 2))
  return {"answer": answer, "location": box, "reason": reason, **boxes, **found}


def _boxes(located, score: float | None = None) -> dict:
  """All locations of an answer; `score` is that of the only one."""
  rows = [
    {
      "label": x.label,
      "box": list(x.box),
      "score": score if x.confidence is None else round(x.confidence, 3),
    }
    for x in located
  ]
  return {"boxes": rows}


def _written(model, pictures) -> str:
  """The answer; on a terminal it is printed while it grows."""
  if not _is_streamed():
    return model.answer(pictures, _PROMPT.value)
  text = ""
  for longer in model.stream(pictures, _PROMPT.value):
    if longer.startswith(text):
      print(longer[len(text) :], end="", flush=True)
      text = longer
  print()
  return text


def _is_streamed() -> bool:
  """Whether the answer appears while it is written."""
  return sys.stdout.isatty() and not _JSON.value and not _CONSTRAINED.value


def _rounded(numbers) -> list[float]:
  """Of the model's square, in [0, 1]."""
  return [round(x, 3) for x in numbers]


def _print(found: dict) -> None:
  if not _is_streamed():
    print(found["answer"])
  for x in found["boxes"]:
    said = [x["label"], "" if x["score"] is None else f"score {x['score']}"]
    print(f"in pixels: {x['box']}", *filter(None, said), sep="  ")
  if not found["boxes"]:
    print(f"nowhere: {found['reason']}")
  for name in ("expected_iou", "probability", "expected", "deviation"):
    if name in found:
      print(f"{name}: {found[name]}")


if __name__ == "__main__":
  command.run(main, keeps_programs=True)

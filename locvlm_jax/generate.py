"""Asks a model about a picture, about several, a video, or about nothing.

  python -m locvlm_jax.generate --image photo.jpg --prompt "Where is the cup?"
  python -m locvlm_jax.generate --video clip.mp4 --prompt "What moves?" ...

The model is a run's workdir or a Llava directory in Hugging Face layout; by
default the micro model that comes with the package, which knows the micro-world
alone (`python -m locvlm_jax.microworld` draws some). On a terminal the
answer appears as it is written. Boxes and points in it are read, given in
pixels of the picture (of a video, the frame in its middle) and drawn with
--draw. With --constrained the answer is the likeliest location, which can
always be read, and its probability; with --expected 16 the mean and deviation
of so many locations drawn from the model.
"""

import json
import os
import sys

from absl import flags

from locvlm_jax import ASSETS, command
from locvlm_jax.config import Config

_CONFIG = command.define_config(
  "A config, for a model that does not say how it was trained."
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "", "A run's workdir, or a Llava directory."
)
_IMAGES = flags.DEFINE_multi_string(
  "image", [], "The picture; more than once for several; none for text alone."
)
_VIDEO = flags.DEFINE_multi_string(
  "video", [], "A video, GIF or folder of frames; a model that was not trained"
  " on videos sees the frame in its middle.",
)  # fmt: skip
_PROMPT = flags.DEFINE_string("prompt", None, "The question.")
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0: greedy.", 0.0)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Sample among so many; 0: all.", 0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Sample among the likeliest.", 0.0, 1)
_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "At most so many.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the sampling.")
_STOP = flags.DEFINE_multi_string("stop", [], "Cut the answer at this text.")
_CONSTRAINED = flags.DEFINE_bool(
  "constrained", False, "Answer with a location that can be read."
)
_EXPECTED = flags.DEFINE_integer(
  "expected", 0, "Also the mean and deviation of so many drawn locations.", 0
)
_DRAW = flags.DEFINE_string("draw", "", "Write the picture with the location.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of json.")


def main(argv: list[str]) -> None:
  """Pictures and a question -> the answer, and where it points."""
  del argv
  checkpoint = _CHECKPOINT.value or _default()
  config = _config(checkpoint)
  images = [_image(path) for path in _media()]
  if _DRAW.value and not images:
    raise ValueError("--draw needs an --image or --video to draw on.")
  answer, certainty = _answer(config, checkpoint)
  location, reason = _location(config, images[:1], answer)
  if _DRAW.value:
    _draw(images[0], location).save(_DRAW.value)
  found = {"answer": answer, "location": location, "reason": reason}
  found |= certainty
  if _JSON.value:
    print(json.dumps(found))
    return
  if not _shown():
    print(answer)
  print(f"in pixels: {location}" if location else f"nowhere: {reason}")
  for name, value in certainty.items():
    print(f"{name}: {value}")


def _shown() -> bool:
  """Whether the answer appears while it is written."""
  return sys.stdout.isatty() and not _JSON.value and not _CONSTRAINED.value


def _default() -> str:
  """The best of the models that come with the package."""
  paths = [str(ASSETS / f"micro_{n}") for n in ("reference", "base")]
  return next(p for p in paths if os.path.exists(f"{p}/config.json"))


def _config(checkpoint: str) -> Config:
  """The config that the model was trained with, set to this question.

  Raises:
    ValueError: the directory does not say, and there is no --config.
  """
  from locvlm_jax.config import freeze, plain
  from locvlm_jax.weights import origin

  given = _CONFIG.value
  fields = plain(
    command.config() if given else origin.stored_config(checkpoint)
  )
  if os.path.exists(os.path.join(checkpoint, "tokenizer.json")):
    fields["tokenizer"] = checkpoint
  fields["eval"] |= {
    "temperature": _TEMPERATURE.value,
    "max_new_tokens": _TOKENS.value,
    "seed": _SEED.value,
    "top_k": _TOP_K.value,
    "top_p": _TOP_P.value,
    "stop": _STOP.value,
    "constrained": _CONSTRAINED.value,
  }
  return freeze(fields)


def _media() -> tuple[str, ...]:
  return (*_IMAGES.value, *_VIDEO.value)


def _image(path: str):
  """The picture, or a video's frame in the middle."""
  from locvlm_jax import errors
  from locvlm_jax.data import images as images_lib
  from locvlm_jax.data import video

  try:
    if path in _VIDEO.value or video.is_video(path):
      return next(video.sample(path, 1))
    return images_lib.load_image(path)
  except images_lib.BadImage as error:
    raise errors.DataError(f"{path}: {error}") from None


def _answer(config: Config, checkpoint: str) -> tuple[str, dict]:
  """(the answer, how sure of its location the model is if it is asked)."""
  import jax

  from locvlm_jax.inference import predictor
  from locvlm_jax.inference.question import Question
  from locvlm_jax.parallel import sharding
  from locvlm_jax.weights import checkpoints

  is_run = os.path.isdir(checkpoints.checkpoint_dir(checkpoint))
  mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": -1})
  with jax.set_mesh(mesh):
    answerer = predictor.Predictor.load(
      config, mesh, checkpoint, "" if is_run else checkpoint
    )
    example = Question(str(_SEED.value), _media(), _PROMPT.value)
    certainty = {}
    if _EXPECTED.value:
      mean, deviation = answerer.expect(example, _EXPECTED.value)
      certainty = {"expected": _rounded(mean), "deviation": _rounded(deviation)}
    if _CONSTRAINED.value:
      (text,), (probability,) = answerer.locate([example])
      return text, {"probability": float(f"{probability:.3g}"), **certainty}
    return _written(answerer, example), certainty


def _rounded(numbers) -> list[float]:
  """Of the model's square, in [0, 1]."""
  return [round(x, 3) for x in numbers]


def _written(answerer, example) -> str:
  """The answer; on a terminal it is printed while it grows."""
  if not _shown():
    return answerer([example])[0]
  text = ""
  for longer in answerer.stream(example):
    if longer.startswith(text):
      print(longer[len(text) :], end="", flush=True)
      text = longer
  print()
  return text


def _location(config: Config, images, answer: str):
  """(the first location in pixels of the image or None, why there is none)."""
  if not images:
    return None, "no picture"
  (image,) = images
  from locvlm_jax.data import geometry
  from locvlm_jax.text import coords

  form = coords.Coords(**config.coords)
  value, reason = form.parse(answer)
  if value is None:
    return None, reason
  size = config.model.vision.image_size
  transform = geometry.make(config.geometry, *image.size, size)
  box = value if len(value) == 4 else (*value, *value)
  pixels = [round(v, 1) for v in transform.invert_box(box)]
  return pixels[: len(value)], ""


def _draw(image, location):
  """The picture with a frame or a ring."""
  from PIL import ImageDraw

  image = image.copy()
  if location is None:
    return image
  width = max(2, min(image.size) // 100)
  pen = ImageDraw.Draw(image)
  if len(location) == 4:
    x1, y1, x2, y2 = location
    pen.rectangle(
      (x1, y1, max(x1, x2), max(y1, y2)), outline="red", width=width
    )
  else:
    pen.circle(location, 3 * width, outline="red", width=width)
  return image


if __name__ == "__main__":
  command.run(main, required=["prompt"])

"""A trained model to ask from Python: `locvlm_jax.load(DIR)`.

  model = locvlm_jax.load()                      # the micro reference model
  model.answer("scene.jpg", "What is closest to the cup?")
  model.locate("scene.jpg", "the cup").box       # (x1, y1, x2, y2) in pixels
  model.describe("scene.jpg", (12, 30, 48, 60))
  model.generate([("a.jpg", "Where is the cup?"), ("b.jpg", "And the ball?")])

Pictures are paths or PIL images; a path may also be a video, of which a model
of images sees the frame in the middle. Pixels are those of the picture the
right way up, as viewers show it (`data/media/images.py`).
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

import jax
from PIL import Image, ImageDraw

from locvlm_jax import ASSETS, agreement, errors
from locvlm_jax.config import Config
from locvlm_jax.data import geometry
from locvlm_jax.data.media import images, video
from locvlm_jax.inference import confidence, expectation
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.confidence import Calibration
from locvlm_jax.inference.listing import listings
from locvlm_jax.inference.predictor import Decoding, Predictor
from locvlm_jax.inference.question import Picture, Question, batches
from locvlm_jax.parallel import sharding
from locvlm_jax.text import box_lists, prompts
from locvlm_jax.weights import runs

DEFAULT = str(ASSETS / "micro_reference")
# What an answer says of a location without a name of the object.
_NAMELESS = {""} | {
  text.partition("{loc}")[0].strip() for text in prompts.LOC_PRED_ANSWERS
}
_BATCH = 8  # questions at a time: each size is a program of its own


@dataclasses.dataclass(frozen=True)
class Location:
  """Where something is in a picture.

  Attributes:
    box: (x1, y1, x2, y2) in pixels of the picture, or a point (x, y).
    confidence: the IoU that the box is expected to have with the true one, by
      held-out questions (`inference.confidence`); None where the model has
      no such calibration, or it was read from a free answer (see `score`).
    probability: that of the location's text among all that can be written, the
      product over its tokens; of a list, times that a location follows there;
      None for a free answer.
    label: what it is the location of, in a list.
  """

  box: tuple[float, ...]
  confidence: float | None = None
  probability: float | None = None
  label: str = ""


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that answers one question, or many.

  Attributes:
    predictor: parameters, prompts, decoding.
    mesh: of the devices here.
    calibration: what the probability of a box is worth; None: not known.
    lists: the same of boxes in lists.
  """

  predictor: Predictor
  mesh: jax.sharding.Mesh
  calibration: Calibration | None = None
  lists: Calibration | None = None

  @classmethod
  def load(
    cls,
    directory: str | os.PathLike = "",
    decoding: Decoding | None = None,
    config: Config | None = None,
  ) -> "Model":
    """Reads a run's folder, or a Llava directory in Hugging Face layout.

    Args:
      directory: default: the micro reference model of this package.
      decoding: how answers are decoded; default: greedy, 64 tokens.
      config: of the run; default: what the directory says.

    Raises:
      ValueError: no weights there, nothing says how they were trained, or the
        config says otherwise.
    """
    directory = os.fspath(directory) or DEFAULT
    if not config:
      config = agreement.recorded(directory)
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": -1})
    with jax.set_mesh(mesh):
      predictor = Predictor.load(
        config,
        mesh,
        directory,
        llava="" if runs.is_run(directory) else directory,
      )
    decoding = decoding or Decoding(max_new_tokens=64)
    predictor = dataclasses.replace(predictor, decoding=decoding)
    # Of samples and second looks no calibration says anything.
    if decoding.temperature or decoding.zoom:
      return cls(predictor, mesh)
    sha256, load = predictor.origin["sha256"], confidence.load
    known = load(directory, sha256, decoding.beams)
    lists = load(directory, sha256, 1, confidence.LISTS)
    return cls(predictor, mesh, known, lists)

  def answer(
    self, picture: Picture | Sequence[Picture] | None, question: str
  ) -> str:
    """Answers a question about a picture, about several, or about none."""
    return self._ask([_question(picture, question)])[0]

  def stream(
    self, picture: Picture | Sequence[Picture] | None, question: str
  ) -> Iterator[str]:
    """Yields the answer as it grows; the last one is `answer`'s."""
    asked = _question(picture, question)
    with jax.set_mesh(self.mesh), _named(asked):
      yield from self.predictor.stream(_opened(asked))

  def generate(
    self, questions: Sequence[Question | tuple[Picture | None, str]]
  ) -> list[str]:
    """Answers many questions, several at a time.

    Args:
      questions: (picture, question) pairs, or `Question`s, whose `id`s have to
        differ.
    """
    asked = [
      q if isinstance(q, Question) else _question(*q, id=str(i))
      for i, q in enumerate(questions)
    ]
    answers = {}
    for part, padded in batches(asked, _BATCH):
      found = self._ask(padded)
      answers |= {q.id: a for q, a in zip(part, found, strict=False)}
    return [answers[q.id] for q in asked]

  def _ask(self, questions: Sequence[Question]) -> list[str]:
    """Answers all at once; what can't be read is named."""
    with jax.set_mesh(self.mesh):
      answers = self.predictor(list(map(_opened, questions)))
    return list(map(_read, questions, answers))

  def locate(self, picture: Picture, name: str) -> Location:
    """Says where "the cup" is, in pixels of the picture.

    The location that the model's likeliest tokens write, one after the other,
    or the likeliest of `decoding.beams`; there is always one, whether the
    picture shows a cup or not.
    """
    wording = prompts.LOC_PRED[self.predictor.spec.coords.location][0]
    question = prompts.fill(wording, obj=name)
    answer, probability = self.answer_location(picture, question)
    location, _ = self.find(picture, answer)
    return dataclasses.replace(
      location,
      confidence=self.expected_iou(probability),
      probability=probability,
    )

  def detect(
    self, picture: Picture, names: Sequence[str]
  ) -> tuple[str, list[Location]]:
    """Lists every location of some categories, in pixels of the picture.

    For models that were trained on it (`data.objectives.detect`).

    Returns:
      (the answer, its locations in their order).

    Raises:
      ValueError: no names, or sampling or beams, which lists don't take.
    """
    if not names or not all(names):
      raise ValueError(f"detect: names {list(names)}: name what to look for.")
    listings.check(self.predictor.decoding, "detect")
    asked = _question(picture, prompts.detect(names))
    asked = dataclasses.replace(asked, listed=tuple(names))
    with jax.set_mesh(self.mesh):
      (answer,) = self.predictor.list_all([_opened(asked)])
    return answer, self._listed(picture, _read(asked, answer))

  def _listed(self, picture: Picture, answer: Answer) -> list[Location]:
    """Reads the locations of an answer that lists some."""
    scores = [score for listing in answer.lists for score in listing.scores]
    known, found = self.lists, self.find_all(picture, answer)
    return [
      dataclasses.replace(
        location,
        confidence=known.expected(score) if known else None,
        probability=score,
      )
      for location, score in zip(found, scores, strict=True)
    ]

  def find_all(
    self, picture: Picture | None, answer: str, question: str = ""
  ) -> list[Location]:
    """Reads every location of an answer, in pixels of the picture.

    Its label is what the answer calls it or, where that only says "It is at",
    what the question asks for.
    """
    if picture is None:
      return []
    coords, transform = self.predictor.spec.coords, self._transform(picture)
    asked = prompts.named(question)
    listed = box_lists.read(answer, coords).listed
    if refined := getattr(answer, "refined", None):
      listed = (listed[0]._replace(value=tuple(refined)),)
    return [
      Location(
        _pixels(transform, value), label=asked if label in _NAMELESS else label
      )
      for label, value in listed
    ]

  def expected_iou(self, probability: float) -> float | None:
    """Returns the IoU to expect of a box of this probability, if known."""
    known = self.calibration
    return known.expected(probability) if known else None

  def score(
    self, picture: Picture | Sequence[Picture], question: str, answer: str
  ) -> float | None:
    """Returns the IoU to expect of the only location of a free answer.

    None where it has none or several, or nothing says what it is worth.
    """
    if not self.calibration:
      return None
    asked = _opened(_question(picture, question))
    with jax.set_mesh(self.mesh):
      found = expectation.probability(self.predictor, asked, answer)
    return None if found is None else self.expected_iou(found)

  def answer_location(
    self, picture: Picture | Sequence[Picture] | None, question: str
  ) -> tuple[str, float]:
    """Answers with a location that can be read, as `locate` does.

    Returns:
      (the answer, the probability of its location among all of them).
    """
    asked = _question(picture, question)
    with jax.set_mesh(self.mesh):
      (answer,) = self.predictor.locate([_opened(asked)])
    return _read(asked, answer), answer.probability

  def describe(self, picture: Picture, box: Sequence[float | int]) -> str:
    """Says what is in a box of the picture.

    Args:
      picture: a path or a PIL image.
      box: (x1, y1, x2, y2) in its pixels.

    Raises:
      ValueError: the box is empty, or the model does not see enough of it.
    """
    seen = self._transform(picture).apply_box(tuple(map(float, box)))
    if seen is None:
      raise ValueError(
        f"box {tuple(box)}: it is empty, or the model's square shows less than"
        " half of it (geometry)."
      )
    coords = self.predictor.spec.coords
    wording = prompts.REV_LOC[coords.location][0]
    return self.answer(picture, prompts.fill(wording, loc=coords.encode(seen)))

  def find(
    self, picture: Picture | None, answer: str
  ) -> tuple[Location | None, str]:
    """Reads the first location of an answer.

    Returns:
      (the location in pixels of the picture, ""), or (None, why there is none).
    """
    if picture is None:
      return None, "no picture"
    value, reason = self.predictor.spec.coords.parse(answer)
    value = getattr(answer, "refined", None) or value
    if value is None:
      return None, reason
    return Location(_pixels(self._transform(picture), value)), ""

  def expect(
    self,
    picture: Picture | Sequence[Picture] | None,
    question: str,
    num: int,
    seed: int = 0,
  ) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gives the mean and the deviation of `num` locations that are drawn.

    Returns:
      Both in [0, 1] of the model's square input.
    """
    asked = _question(picture, question, id=str(seed))
    with jax.set_mesh(self.mesh), _named(asked):
      return expectation.expect(self.predictor, _opened(asked), num)

  def _transform(self, picture: Picture) -> geometry.Transform:
    spec = self.predictor.spec
    size = open_picture(picture).size
    return geometry.make(spec.geometry, *size, spec.image_size)


def _pixels(
  transform: geometry.Transform, value: tuple[float, ...]
) -> tuple[float, ...]:
  """Maps a box or a point out of the model's square."""
  box = value if len(value) == 4 else (*value, *value)
  pixels = transform.invert_box(box)[: len(value)]
  return tuple(round(v, 1) for v in pixels)


def open_picture(picture: Picture) -> Image.Image:
  """Reads a picture, or the frame in the middle of a video.

  Raises:
    DataError: names what can't be read.
  """
  picture = _as_path(picture)
  try:
    if video.is_video(picture):
      return next(video.sample(picture, 1))
    return images.load_image(picture)
  except images.BadImage as error:
    raise errors.DataError(f"{picture}: {error}") from None


def draw(picture: Image.Image, location: Sequence[float] | None) -> Image.Image:
  """Draws a frame around a box, or a ring around a point, in pixels."""
  picture = picture.copy()
  width = max(2, min(picture.size) // 100)
  pen = ImageDraw.Draw(picture)
  if location and len(location) == 4:
    x1, y1, x2, y2 = location
    corners = x1, y1, max(x1, x2), max(y1, y2)
    pen.rectangle(corners, outline="red", width=width)
  elif location:
    pen.circle(location, 3 * width, outline="red", width=width)
  return picture


def _read(question: Question, answer: Answer) -> Answer:
  """Returns the answer, if there is one.

  Raises:
    DataError: names the picture that can't be used.
  """
  with _named(question):
    if answer.unreadable:
      raise images.BadImage(answer.unreadable)
  return answer


@contextlib.contextmanager
def _named(question: Question) -> Iterator[None]:
  """Names the pictures of a question in what is wrong with them."""
  try:
    yield
  except images.BadImage as error:
    names = ", ".join(map(str, question.pictures))
    raise errors.DataError(f"{names}: {error}") from None


def _question(
  picture: Picture | Sequence[Picture] | None, question: str, id: str = "0"
) -> Question:
  several = picture if isinstance(picture, (list, tuple)) else [picture]
  pictures = tuple(_as_path(p) for p in several if p is not None)
  return Question(id, pictures or None, question)


def _opened(question: Question) -> Question:
  """The question with its pictures read; what can't be read is named."""
  pictures = tuple(
    p if video.is_video(p) else open_picture(p) for p in question.pictures
  )
  return dataclasses.replace(question, image=pictures or None)


def _as_path(picture: Picture) -> Picture:
  return picture if isinstance(picture, Image.Image) else os.fspath(picture)

"""Benchmarks of questions and answers about images and videos, as published.

  pope            json lines {question_id, image, text, label}
  vqav2           {"questions": [{question_id, image_id, question}]} and
                  {"annotations": [{question_id, answer_type, answers: [...]}]},
                  the second absent for the test split
  gqa             {id: {imageId, question, answer, isBalanced, ...}}
  activitynet_qa  [{question_id, video_name, question}] and [{question_id,
                  answer, type}], joined by the id, not by their places
  msvd_qa, msrvtt_qa   [{id, video_id, question, answer}], or csv {qid, video,
                  question, answer}
  tgif_qa         tab-separated {vid_id, gif_name, question, answer, type}

json files may be compressed by gzip.
"""

import collections
import csv
import dataclasses
import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from locvlm_jax import errors
from locvlm_jax.data import leakage, reading
from locvlm_jax.data.media import video
from locvlm_jax.data.records import Record, Source

# The benchmarks about images; the others are about videos.
_OF_IMAGES = (
  "pope_random", "pope_popular", "pope_adversarial", "vqav2", "gqa",
)  # fmt: skip
_PICTURES = (*video.PICTURES, ".gif", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkQuestion(Record):
  """One question of a benchmark; `image` is None until its file is found.

  Attributes:
    stems: names, without suffix, that its image or video may have.
    text: what is asked.
    answers: of the annotators; none in a test split.
    kind: the type of question or answer, as the benchmark counts them.
    notes: what else the official score needs.
  """

  stems: tuple[str, ...]
  text: str
  answers: tuple[str, ...] = ()
  kind: str = ""
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _json(path: str) -> object:
  if not path.endswith(".gz"):
    return reading.read_json(path)
  try:
    with gzip.open(path, "rt", encoding="utf-8") as f:
      return json.load(f)
  except (OSError, EOFError, ValueError) as e:
    raise errors.DataError(f"{path}: not json in gzip ({e}).") from None


def _list(path: str) -> list[dict]:
  rows = _json(path)
  if not isinstance(rows, list):
    raise errors.DataError(f"{path}: not a list of questions.")
  return rows


def _table(path: str, delimiter: str) -> list[dict]:
  try:
    with open(path, encoding="utf-8", newline="") as f:
      return list(csv.DictReader(f, delimiter=delimiter))
  except (OSError, UnicodeDecodeError) as e:
    raise errors.DataError(f"{path}: {e}.") from None


def _stem(name: str) -> str:
  return os.path.splitext(os.path.basename(name))[0]


def pope(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads POPE's files (`RUCAIBox/POPE:output/coco`)."""
  del answers
  for i, row in enumerate(reading.read_jsonl(questions), 1):
    origin = f"{questions}: line {i}"
    image = reading.text(row, "image", origin)
    number = leakage.coco_id(image)
    stems = (_stem(image), *(_coco_stems(number) if number else ()))
    yield BenchmarkQuestion(
      id=str(reading.field(row, "question_id", origin)),
      stems=stems,
      text=reading.text(row, "text", origin),
      answers=(reading.text(row, "label", origin),),
    )


def vqav2(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads VQA's files (`visualqa.org`); without `answers`, a test split."""
  notes = {}
  if answers:
    for row in reading.section(_json(answers), "annotations", answers):
      notes[reading.field(row, "question_id", answers)] = row
  for i, row in enumerate(
    reading.section(_json(questions), "questions", questions)
  ):
    origin = f"{questions}: question {i}"
    number = reading.field(row, "question_id", origin)
    if answers and number not in notes:
      raise errors.DataError(f"{origin}: {number} has no answer in {answers}.")
    note = notes.get(number, {"answers": ()})
    image = reading.integer(row, "image_id", origin)
    yield BenchmarkQuestion(
      id=str(number),
      stems=_coco_stems(image),
      text=reading.text(row, "question", origin),
      answers=tuple(
        str(a["answer"]) for a in reading.field(note, "answers", origin)
      ),
      kind=note.get("answer_type", ""),
    )


def _coco_stems(image: int) -> tuple[str, ...]:
  parts = ("val2014", "train2014", "test2015")
  return (f"{image:012d}", *(f"COCO_{part}_{image:012d}" for part in parts))


def gqa(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads GQA's files (`cs.stanford.edu/people/dorarad/gqa`).

  `answers` is the file of valid and plausible ones, {id: {"valid": [...],
  "plausible": [...]}}, which validity and plausibility need.
  """
  rows, choices = _json(questions), _json(answers) if answers else {}
  for path, content in ((questions, rows), (answers, choices)):
    if not isinstance(content, dict):
      raise errors.DataError(f"{path}: not an object of questions.")
  for number, row in rows.items():
    origin = f"{questions}: question {number}"
    if choices and row.get("isBalanced", True):
      row = row | {"choices": reading.field(choices, number, answers)}
    answer = (row["answer"],) if "answer" in row else ()
    yield BenchmarkQuestion(
      id=number,
      stems=(str(reading.field(row, "imageId", origin)),),
      text=reading.text(row, "question", origin),
      answers=answer,
      notes=row,
    )


def activitynet_qa(
  questions: str, answers: str = ""
) -> Iterator[BenchmarkQuestion]:
  """Reads ActivityNet-QA's files (`MILVLG/activitynet-qa:dataset`)."""
  notes = {
    reading.field(row, "question_id", answers): row
    for row in (_list(answers) if answers else ())
  }
  for i, row in enumerate(_list(questions)):
    origin = f"{questions}: question {i}"
    number = reading.field(row, "question_id", origin)
    if answers and number not in notes:
      raise errors.DataError(f"{origin}: {number} has no answer in {answers}.")
    note = notes.get(number, {})
    name = reading.text(row, "video_name", origin)
    yield BenchmarkQuestion(
      id=str(number),
      stems=(f"v_{name}", name),
      text=reading.text(row, "question", origin),
      answers=(str(note["answer"]),) if note else (),
      kind=str(note.get("type", "")),
    )


def _numbered(stem: str) -> Callable[..., Iterator[BenchmarkQuestion]]:
  """Makes the reader of MSVD-QA or MSRVTT-QA.

  Format: `xudejing/video-question-answering`.

  Args:
    stem: of the videos' names, which a number follows.
  """

  def read(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
    del answers
    is_csv = questions.endswith(".csv")
    rows = _table(questions, ",") if is_csv else _list(questions)
    number, video = ("qid", "video") if is_csv else ("id", "video_id")
    for i, row in enumerate(rows):
      origin = f"{questions}: question {i}"
      name = str(reading.field(row, video, origin))
      text = reading.text(row, "question", origin).strip()
      yield BenchmarkQuestion(
        id=str(reading.field(row, number, origin)),
        stems=(f"{stem}{name}", name),
        text=text if text.endswith("?") else text + "?",
        answers=(str(reading.field(row, "answer", origin)),),
        kind=_first_word(text),
      )

  return read


def _first_word(text: str) -> str:
  """Names the type of a question: what, who, how, when, where or other."""
  word = text.split()[0].lower()
  return word if word in ("what", "who", "how", "when", "where") else "other"


_TGIF_KINDS = {"0": "object", "1": "number", "2": "color", "3": "location"}


def tgif_qa(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads FrameQA of TGIF-QA (`YunseokJANG/tgif-qa:dataset`).

  In some rows of the published file "rep" has become "FRAMEQA", as in
  "fiFRAMEQAlace"; it is put back.
  """
  del answers
  for i, row in enumerate(_table(questions, "\t")):
    origin = f"{questions}: row {i}"
    name = reading.text(row, "gif_name", origin)
    text = reading.text(row, "question", origin).replace("FRAMEQA", "rep")
    answer = reading.text(row, "answer", origin).replace("FRAMEQA", "rep")
    kind = _TGIF_KINDS.get(reading.field(row, "type", origin), "other")
    number = reading.text(row, "vid_id", origin)
    yield BenchmarkQuestion(
      id=number, stems=(name,), text=text, answers=(answer,), kind=kind
    )


READERS = {
  "pope_random": pope, "pope_popular": pope, "pope_adversarial": pope,
  "vqav2": vqav2, "gqa": gqa, "activitynet_qa": activitynet_qa,
  "msvd_qa": _numbered("vid"), "msrvtt_qa": _numbered("video"),
  "tgif_qa": tgif_qa,
}  # fmt: skip


class Questions(Source):
  """The questions of a benchmark whose image or video is in the folder.

  Those whose image or video is not there are counted by `missing`.

  Args:
    name: of `READERS`.
    questions: the file of the questions.
    answers: that of the answers, where it is another one; "": none.
    media: the folder of the images or videos.

  Raises:
    DataError: a missing or malformed file, two questions with one id, or a
      folder that has nothing of what is asked about.
  """

  def __init__(self, name: str, questions: str, answers: str, media: str):
    reading.check_directory(media)
    self.name, self.path, self.folder = name, questions, media
    found = read(name, questions, answers)
    files = _media_files(media, name in _OF_IMAGES)
    paths = [_path(media, files, q) for q in found]
    self._questions = [
      dataclasses.replace(q, image=p)
      for q, p in zip(found, paths, strict=True)
      if p
    ]
    self.missing = paths.count(None)
    if not self._questions:
      raise errors.DataError(
        f"{media}: of {len(found)} questions of {questions} it has no image or"
        f" video, such as {found[0].stems[0]}."
      )

  def __len__(self) -> int:
    return len(self._questions)

  def __getitem__(self, index: int) -> BenchmarkQuestion:
    return self._questions[index]

  def __repr__(self) -> str:
    left_out = f", {self.missing} without media" if self.missing else ""
    return f"Questions({self.path!r}, {len(self)} questions{left_out})"


def read(
  name: str, questions: str, answers: str = ""
) -> list[BenchmarkQuestion]:
  """Reads all questions of a benchmark, whether their media are here or not.

  One that is there twice, word for word, is one.

  Raises:
    DataError: a missing or malformed file, no question, or two with one id.
  """
  found = {}
  for question in READERS[name](questions, answers):
    if found.setdefault(question.id, question) != question:
      raise errors.DataError(
        f"{questions}: two questions have the id {question.id}."
      )
  if not found:
    raise errors.DataError(f"{questions}: no questions.")
  return list(found.values())


def _media_files(media: str, of_images: bool) -> dict[str, list[str]]:
  """Lists the pictures or videos of a folder by their names' stems.

  What else has the same stem, as a caption or a preview, is not among them.
  """
  found = collections.defaultdict(list)
  for name in sorted(video.listed(media)):
    if of_images:
      fits = name.lower().endswith(_PICTURES)
    else:
      fits = video.is_video(os.path.join(media, name))
    if fits:
      found[_stem(name)].append(name)
  return found


def _path(
  media: str, files: Mapping[str, list[str]], question: BenchmarkQuestion
) -> str | None:
  names = next((files[s] for s in question.stems if s in files), [])
  if len(names) > 1:
    raise errors.DataError(
      f"{media}: question {question.id} can be about {' or '.join(names)}."
      " Leave one of them there."
    )
  return os.path.join(media, names[0]) if names else None

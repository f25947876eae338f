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
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.exclude import leakage
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


def _list(path: str) -> list:
  rows = reading.read_json(path)
  if not isinstance(rows, list):
    raise errors.DataError(f"{path}: not a list of questions.")
  return rows


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
      id=reading.word(row, "question_id", origin),
      stems=stems,
      text=reading.text(row, "text", origin),
      answers=(_yes_or_no(row, origin),),
    )


def _yes_or_no(row: dict, origin: str) -> str:
  """Reads the label of a question; POPE's script compares it as it is."""
  label = reading.text(row, "label", origin).strip().lower()
  if label not in ("yes", "no"):
    raise errors.DataError(
      f"{origin}: label {row['label']!r:.50} is neither yes nor no."
    )
  return label


def vqav2(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads VQA's files (`visualqa.org`); without `answers`, a test split."""
  notes = _vqa_answers(answers) if answers else {}
  content = reading.read_json(questions)
  for i, row in enumerate(reading.section(content, "questions", questions)):
    origin = f"{questions}: question {i}"
    number = reading.word(row, "question_id", origin)
    if answers and number not in notes:
      raise errors.DataError(f"{origin}: {number} has no answer in {answers}.")
    said, kind = notes.get(number, ((), ""))
    image = reading.integer(row, "image_id", origin)
    yield BenchmarkQuestion(
      id=number,
      stems=_coco_stems(image),
      text=reading.text(row, "question", origin),
      answers=said,
      kind=kind,
    )


def _vqa_answers(path: str) -> dict[str, tuple[tuple[str, ...], str]]:
  """Reads {id of a question: (what the annotators said, type of answer)}."""
  found = {}
  rows = reading.section(reading.read_json(path), "annotations", path)
  for i, row in enumerate(rows):
    origin = f"{path}: annotation {i}"
    said = reading.field(row, "answers", origin)
    if not isinstance(said, list):
      raise errors.DataError(f"{origin}: answers {said!r:.50} is no list.")
    note = (
      tuple(_said(a, f"{origin}: answers {k}") for k, a in enumerate(said)),
      reading.word({"answer_type": "", **row}, "answer_type", origin),
    )
    _add(found, reading.word(row, "question_id", origin), note, origin)
  return found


def _add(found: dict, number: str, note: tuple, origin: str) -> None:
  """Adds what a file says of a question; twice has to be the same."""
  if found.setdefault(number, note) != note:
    raise errors.DataError(
      f"{origin}: question {number} has another answer before."
    )


def _said(answer: object, origin: str) -> str:
  if not isinstance(answer, dict):
    raise errors.DataError(
      f"{origin}: {answer!r:.50} is no object with an 'answer'."
    )
  return reading.word(answer, "answer", origin)


def _coco_stems(image: int) -> tuple[str, ...]:
  parts = ("val2014", "train2014", "test2015")
  return (f"{image:012d}", *(f"COCO_{part}_{image:012d}" for part in parts))


def gqa(questions: str, answers: str = "") -> Iterator[BenchmarkQuestion]:
  """Reads GQA's files (`cs.stanford.edu/people/dorarad/gqa`).

  `answers` is the file of valid and plausible ones, {id: {"valid": [...],
  "plausible": [...]}}, which validity and plausibility need.
  """
  rows = _objects(questions)
  choices = _objects(answers) if answers else {}
  for number, row in rows.items():
    origin = f"{questions}: question {number}"
    _check_gqa(row, origin)
    if choices and row.get("isBalanced", True):
      row = row | {"choices": _choices(choices, number, answers)}
      reading.text(reading.field(row, "types", origin), "detailed", origin)
    if "answer" in row:  # predictions are in lower case (`gqa_scores`)
      row = row | {"answer": reading.word(row, "answer", origin).lower()}
    answer = (row["answer"],) if "answer" in row else ()
    yield BenchmarkQuestion(
      id=number,
      stems=(reading.word(row, "imageId", origin),),
      text=reading.text(row, "question", origin),
      answers=answer,
      notes=row,
    )


def _objects(path: str) -> dict[str, dict]:
  """Reads {id: object}."""
  content = reading.read_json(path)
  if not isinstance(content, dict):
    raise errors.DataError(f"{path}: not an object of questions.")
  for number, row in content.items():
    if not isinstance(row, dict):
      raise errors.DataError(
        f"{path}: question {number}: {row!r:.50} is no object."
      )
  return content


def _check_gqa(row: dict, origin: str) -> None:
  """Checks what the official score reads of a question.

  Raises:
    DataError: a field is of another type.
  """
  if "types" in row:
    reading.text(row["types"], "structural", origin)
  for key, kind in (("isBalanced", bool), ("groups", dict), ("entailed", list)):
    if not isinstance(row.get(key, kind()), kind):
      raise errors.DataError(f"{origin}: {key} {row[key]!r:.50} is wrong.")
  if not isinstance(row.get("groups", {}).get("global"), str | None):
    raise errors.DataError(f"{origin}: groups.global is no text.")
  if not all(isinstance(e, str) for e in row.get("entailed", ())):
    raise errors.DataError(f"{origin}: entailed has what is no id.")


def _choices(choices: Mapping, number: str, path: str) -> dict:
  """Reads the valid and the plausible answers to a question."""
  row, origin = reading.field(choices, number, path), f"{path}: {number}"
  for key in ("valid", "plausible"):
    words = reading.field(row, key, origin)
    if not isinstance(words, list):
      raise errors.DataError(f"{origin}: {key} {words!r:.50} is no list.")
  return row


def activitynet_qa(
  questions: str, answers: str = ""
) -> Iterator[BenchmarkQuestion]:
  """Reads ActivityNet-QA's files (`MILVLG/activitynet-qa:dataset`)."""
  notes = {}
  for i, row in enumerate(_list(answers) if answers else ()):
    origin = f"{answers}: answer {i}"
    note = (
      (reading.word(row, "answer", origin),),
      reading.word({"type": "", **row}, "type", origin),
    )
    _add(notes, reading.word(row, "question_id", origin), note, origin)
  for i, row in enumerate(_list(questions)):
    origin = f"{questions}: question {i}"
    number = reading.word(row, "question_id", origin)
    if answers and number not in notes:
      raise errors.DataError(f"{origin}: {number} has no answer in {answers}.")
    said, kind = notes.get(number, ((), ""))
    name = reading.text(row, "video_name", origin)
    yield BenchmarkQuestion(
      id=number,
      stems=(f"v_{name}", name),
      text=reading.text(row, "question", origin),
      answers=said,
      kind=kind,
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
    rows = reading.read_table(questions, ",") if is_csv else _list(questions)
    number, video = ("qid", "video") if is_csv else ("id", "video_id")
    for i, row in enumerate(rows):
      origin = f"{questions}: question {i}"
      name = reading.word(row, video, origin)
      text = reading.text(row, "question", origin).strip()
      yield BenchmarkQuestion(
        id=reading.word(row, number, origin),
        stems=(f"{stem}{name}", name),
        text=text if text.endswith("?") else text + "?",
        answers=(reading.word(row, "answer", origin),),
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
  for i, row in enumerate(reading.read_table(questions, "\t")):
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

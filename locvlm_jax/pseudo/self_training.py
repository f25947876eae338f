"""Pseudo-captions of objects by the model itself (paper, section 3.4).

The model after stage 1 is asked about each object that is the only one of its
category in its image: plainly, and by its relation to other objects. The
answers, in the format of `data/object_captions.py`, stand in place of the
categories in all three objectives of stage 2. `config.pseudo` has the
questions, how an answer becomes a caption, and the filters. The wordings and
the filters are ours; the paper states none.
"""

import collections
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from locvlm_jax import files
from locvlm_jax.config import Config, plain
from locvlm_jax.data import objectives
from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Object, Record, Records
from locvlm_jax.evals import session
from locvlm_jax.evals.scorers.metrics import Unit, Units
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.inference import predictor
from locvlm_jax.inference.question import Question
from locvlm_jax.parallel import hosts
from locvlm_jax.text import coco_names, prompts

KINDS = ("plain", "relational")
FILTERS = ("empty", "long", "unnamed", "repeating", "ambiguous")
_REPEATING = re.compile(r"(\b\w.*?)(?:\W+\1\b){2}", re.IGNORECASE)
_END = re.compile(r"[.!?](?:\s|$)|\n")


@dataclasses.dataclass(frozen=True, eq=False)
class Captioning:
  """What is asked, in the form of a task of `evals`.

  Attributes:
    settings: `config.pseudo`.
  """

  settings: Any
  name: str = "self_training"
  source: str = "instances"
  units: ClassVar[Units] = dict.fromkeys((*FILTERS, "kept"), Unit.COUNT)

  def questions(
    self, records: Records, view: View, limit: int | None = None
  ) -> list[Question]:
    """Asks about each object that a question can mean, in all wordings."""
    return take(self._groups(records, view), limit)

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    kinds = [k for k in KINDS if self.settings[k]]
    for record, _ in shuffled(records, view.seed):
      shown = transform_of(record, view.geometry, view.image_size)
      for thing, _ in objectives.visible(record.objects, shown):
        if thing.id:  # without one, its captions could not be found again
          yield [self._question(record, thing, kind) for kind in kinds]

  def _question(self, record: Record, thing: Object, kind: str) -> Question:
    asked = prompts.fill(self.settings[kind][0], obj=thing.category)
    truth = {
      "annotation_id": thing.id,
      "image_id": int(record.id),
      "category": thing.category,
      "kind": kind,
    }
    return Question(f"{thing.id} {kind}", record.image, asked, truth=truth)

  def judge(self, question: Question, answer: str) -> dict[str, Any]:
    """Returns the caption, and the filter that leaves it out, or ""."""
    name = question.truth["category"]
    said = phrase(answer)
    form = self.settings[question.truth["kind"]][1]
    caption = " ".join(
      form.replace("{answer}", said).replace("{obj}", name).split()
    )
    reasons = faults(said, caption, name, self.settings.max_words)
    found = [r for r in reasons if r in self.settings.filters]
    return {"caption": caption, "left_out": found[0] if found else ""}

  def score(
    self, questions: Sequence[Question], answers: Sequence[str]
  ) -> dict[str, float]:
    """Counts the answers that were kept and left out, by reason.

    No answer is empty, whatever the reason that there is none.
    """
    judged = map(self.judge, questions, answers)
    found = collections.Counter(x["left_out"] or "kept" for x in judged)
    return {reason: float(found[reason]) for reason in sorted(found)}


def phrase(answer: str) -> str:
  """Takes the first sentence, as it stands within another one.

  >>> phrase("A red cup. It is small.")
  'a red cup'
  """
  text = " ".join(_END.split(answer.strip(), maxsplit=1)[0].split())
  text = text.strip(" .,;:!?\"'")
  first = text.partition(" ")[0]
  return text if first[1:].lower() != first[1:] else text[:1].lower() + text[1:]


def faults(said: str, caption: str, name: str, max_words: int) -> Iterator[str]:
  """Yields those of FILTERS that a caption by itself does not pass."""
  if not re.search(r"\w", said):
    yield "empty"
  if len(caption.split()) > max_words:
    yield "long"
  if not coco_names.names(caption, name):
    yield "unnamed"
  if _REPEATING.search(caption):
    yield "repeating"


def write(config: Config, workdir: str, out: str, llava: str = "") -> dict:
  """Asks the model and writes the captions; all processes have to call.

  Interrupted, the same call goes on: the answers so far are in OUT.answers/.

  Args:
    config: the resolved config; its `data.instances` are captioned.
    workdir: of the run whose parameters are asked.
    out: the jsonl.
    llava: a Hugging Face Llava directory to take the parameters from instead.

  Returns:
    The summary, with what was left out and why.

  Raises:
    ValueError: `config.pseudo` has no question, or an unknown filter.
  """
  check(config.pseudo)
  task, folder = Captioning(config.pseudo), out + ".answers"
  counts, manifest = session.ask(
    config, [task], workdir, folder, llava, _request(config)
  )
  if not counts:
    raise ValueError(
      f"{config.data.instances}: no object with an annotation id that is"
      " alone in its category."
    )
  info = {"origin": manifest["origin"], "settings": plain(config.pseudo)}
  if not hosts.is_first():
    return info
  rows = _read(os.path.join(folder, "predictions.jsonl"))
  for row in rows:
    if "unreadable" in row:
      row["result"]["left_out"] = "unreadable"
  if "ambiguous" in config.pseudo.filters:
    _mark_ambiguous(rows)
  rows.sort(key=lambda row: (row["truth"]["annotation_id"], row["id"]))
  kept = [_line(row, info) for row in rows if not row["result"]["left_out"]]
  files.write_lines(
    out, (json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
  )
  counts = collections.Counter(r["result"]["left_out"] or "kept" for r in rows)
  return {**info, "asked": len(rows), **dict(sorted(counts.items()))}


def check(settings: Any) -> None:
  """Refuses what `config.pseudo` can't mean.

  Raises:
    ValueError: says which field, and what is allowed.
  """
  if unknown := set(settings.filters) - set(FILTERS):
    raise ValueError(f"pseudo.filters: {min(unknown)!r} is not in {FILTERS}.")
  if not any(settings[kind] for kind in KINDS):
    raise ValueError("pseudo: neither plain nor relational has a question.")
  for kind in KINDS:
    pair = settings[kind]
    if pair and (len(pair) != 2 or "{answer}" not in pair[1]):
      raise ValueError(
        f"pseudo.{kind}={pair}: want (question, caption with {{answer}})."
      )


def _request(config: Config) -> session.Request:
  """Asks about the training images, once, in the model's own words."""
  return session.Request(
    files=config.data,
    decoding=dataclasses.replace(
      predictor.Decoding.of(config.eval), constrained=False
    ),
    batch_size=config.eval.batch_size,
    samples=config.pseudo.samples,
    max_bad_share=config.eval.max_bad_share,
  )


def _read(path: str) -> list[dict]:
  with open(path, encoding="utf-8") as f:
    return [json.loads(line) for line in f]


def _mark_ambiguous(rows: Sequence[Mapping]) -> None:
  """Leaves out what was said of two objects of an image."""
  said = collections.defaultdict(set)

  def key(row):
    return row["truth"]["image_id"], row["result"]["caption"].casefold()

  for row in rows:
    said[key(row)].add(row["truth"]["annotation_id"])
  for row in rows:
    if len(said[key(row)]) > 1 and not row["result"]["left_out"]:
      row["result"]["left_out"] = "ambiguous"


def _line(row: Mapping, info: Mapping) -> dict:
  return {
    **row["truth"],
    "caption": row["result"]["caption"],
    "prompt": row["question"],
    "answer": row["answer"],
    "seed": row["seed"],
    "checkpoint": info["origin"]["sha256"],
  }

"""Answers a few questions at once, by programs that are compiled at the start.

Each program is for a fixed number of rows and a fixed length of their prompts:

  greedy     the likeliest tokens; one row, or all
  detailed   rows sampled differently, with probabilities of their tokens; all
  located    one legal location; all
  listed     a legal list of locations, if the model lists; all

and what a prompt's pictures make of themselves is kept (inference/prefixes.py).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from PIL import Image

from locvlm_jax.inference import decode, prefixes, sampling
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.model import Model
from locvlm_jax.inference.question import Question
from locvlm_jax.serving.limits import Limits
from locvlm_jax.serving.rows import (
  DETAILED,
  GREEDY,
  LISTED,
  LOCATED,
  Part,
  Row,
  Token,
)

_ALTERNATIVES = 20  # log-probabilities at each place, OpenAI's most
_SHORT = 48  # tokens of a question's text; longer ones are a program apart
_MOST_KEPT = 64  # prefixes
_EVERY = 4  # tokens from one part of an answer to the next
_KINDS = GREEDY, DETAILED, LOCATED  # that every model answers


class Writer:
  """Writes the answers of one batch after the other.

  Args:
    model: that answers.
    limits: of requests; programs are compiled for the largest.
    rows: of a batch.
    kept: conversations' pictures whose prefixes are kept, at least `rows`; 0:
      as many as 4 GB hold, 64 at most.
    lists: whether lists will be asked for.

  Raises:
    ValueError: the model's format has no questions, or the limits ask for more
      positions than it has.
  """

  def __init__(
    self,
    model: Model,
    limits: Limits,
    rows: int,
    kept: int,
    lists: bool = False,
  ):
    self.model, self.limits, self.rows = model, limits, rows
    self._lists = lists
    predictor, spec = model.predictor, model.predictor.spec
    if not prefixes.allowed(spec, model.mesh):
      raise ValueError(
        f"prompt_format {spec.format.name!r} asks no questions: serve a model"
        " that was trained on conversations"
      )
    _check_positions(model, limits, lists)
    room = prefixes.room(predictor.model, spec, limits.pictures)
    kept = kept or min(_MOST_KEPT, room)
    self.prefixes = prefixes.Prefixes(
      predictor.model,
      predictor.params,
      model.mesh,
      spec,
      max(kept, rows),
      limits.pictures,
      (1, rows),
    )
    self._predictor = dataclasses.replace(
      predictor.decoded(
        max_new_tokens=limits.new_tokens,
        constrained=False,
        max_boxes=limits.boxes,
      ),
      prefixes=self.prefixes,
      lengths=(min(_SHORT, limits.prompt_tokens), limits.prompt_tokens),
    )

  def count(self, question: Question) -> int:
    """Counts the tokens of a prompt, those of its pictures included."""
    return len(self._predictor.prompt(question))

  def text_tokens(self, row: Row) -> int:
    """Counts the tokens of a prompt's text, as they count for the limit."""
    question, spec = row.question, self._predictor.spec
    pictures = spec.num_visual * len(question.pictures)
    return self.count(question) - pictures + self._opening(row)

  def _opening(self, row: Row) -> int:
    """Counts the tokens up to the first bracket of an answer."""
    if row.kind == LISTED:
      written = self._predictor.listings.written
      return max(map(len, written.beginnings("", row.question.listed[0])))
    return len(self._predictor.opening) if row.kind == LOCATED else 0

  def is_long(self, row: Row) -> bool:
    """Says which of the two lengths a row's prompt is padded to."""
    return self.text_tokens(row) > self._predictor.lengths[0]

  def write(
    self, rows: Sequence[Row], ended: Callable[[], Sequence[bool]] = lambda: ()
  ) -> Iterator[list[Part]]:
    """Yields the answers as they grow, all of one kind.

    Args:
      rows: at most `rows`.
      ended: which of them nobody waits for any more; asked now and then.
    """
    kind = rows[0].kind
    size = 1 if kind == GREEDY and len(rows) == 1 else self.rows
    filled = [*rows, *[rows[-1]] * (size - len(rows))]
    with jax.set_mesh(self.model.mesh):
      if kind == LOCATED:
        yield self._locate(filled)[: len(rows)]
      elif kind == LISTED:
        yield from self._list(filled, len(rows), ended)
      else:
        yield from self._grow(filled, len(rows), kind, ended)

  def _locate(self, rows: Sequence[Row]) -> list[Part]:
    answers = self._predictor.locate([row.question for row in rows])
    tokens = self._predictor.spec.tokenizer
    return [
      Part(a, len(tokens.encode(a)) + 1, "stop", (), (a.probability,))
      for a in answers
    ]

  def _list(self, rows: Sequence[Row], num: int, ended) -> Iterator[list[Part]]:
    """Writes lists, of which the first `num` are asked for."""
    most, questions = self.limits.prompt_tokens, [row.question for row in rows]
    rooms = [most - self.text_tokens(row) + self._opening(row) for row in rows]
    for answers in self._predictor.listings.grow(
      [question.listed for question in questions],
      functools.partial(self._predictor.batch, questions),
      rooms,
    ):
      yield [self._listed(answer) for answer in answers[:num]]
      if (given := ended()) and all(given):
        break
    yield [
      dataclasses.replace(
        self._listed(answer), finish="length" if answer.cut_off else "stop"
      )
      for answer in answers[:num]
    ]

  def _listed(self, answer: Answer) -> Part:
    """What there is of an answer of lists."""
    num = len(self._predictor.spec.tokenizer.encode(answer)) + 1
    scores = [score for listing in answer.lists for score in listing.scores]
    return Part(answer, num, "", (), tuple(scores))

  def _grow(
    self, rows: Sequence[Row], num: int, kind: str, ended
  ) -> Iterator[list[Part]]:
    """Writes rows of which the first `num` are asked for."""
    seen = [Part("", 0, "")] * num

    def over() -> list[bool]:
      given = itertools.chain(ended(), itertools.repeat(False))
      first = [bool(p.finish) or e for p, e in zip(seen, given, strict=False)]
      return first + [True] * (len(rows) - num)

    for written in self._written(rows, kind, over):
      seen = [
        part if part.finish else self._part(row, written, i)
        for i, (row, part) in enumerate(zip(rows, seen, strict=False))
      ]
      yield seen
    yield [
      part if part.finish else dataclasses.replace(part, finish="length")
      for part in seen
    ]

  def _written(self, rows, kind: str, over) -> Iterator[sampling.Written]:
    predictor = self._predictor
    how = predictor.sampling
    if kind == DETAILED:
      how = dataclasses.replace(how, temperature=1.0)
    each = sampling.Each(
      np.array([row.temperature for row in rows], np.float32),
      np.zeros(len(rows), np.int32),
      np.array([row.top_p for row in rows], np.float32),
      np.array([row.limit for row in rows], np.int32),
    )
    seeds = np.array([row.seed for row in rows], np.int32)
    return decode.write(
      predictor.model,
      predictor.params,
      predictor.batch([row.question for row in rows]),
      how,
      rng=sampling.keys(seeds) if kind == DETAILED else None,
      each=each,
      alternatives=_ALTERNATIVES if kind == DETAILED else 0,
      every=_EVERY,
      ended=over,
    )

  def _part(self, row: Row, written: sampling.Written, i: int) -> Part:
    """What there is of one row's answer."""
    spec = self._predictor.spec
    ids, finish = until_stop(
      written.ids[i][: row.limit],
      spec.tokenizer.stop_ids(spec.format),
      spec.tokenizer.pad_id,
    )
    text = spec.tokenizer.answer(ids, spec.format)
    for stop in row.stop:
      text, found, _ = text.partition(stop)
      finish = "stop" if found else finish
    if not finish and len(ids) >= row.limit:
      finish = "length"
    tokens = ()
    if written.likely is not None:
      tokens = tuple(self._token(written, i, k) for k in range(len(ids)))
    return Part(text.strip(), len(ids), finish, tokens)

  def _token(self, written: sampling.Written, i: int, k: int) -> Token:
    piece = self._piece
    likely = zip(
      written.likely[i, k], written.likely_log_probability[i, k], strict=True
    )
    return Token(
      piece(int(written.ids[i][k])),
      float(written.log_probability[i, k]),
      tuple((piece(int(t)), float(p)) for t, p in likely),
    )

  def _piece(self, id_: int) -> str:
    """The text of a token; nothing where the tokenizer has none of this id."""
    text = self._predictor.spec.tokenizer
    piece = text.piece(id_) if id_ < text.vocab_size else ""
    return piece.replace("\u2581", " ").replace("\u0120", " ")

  def compile(self) -> None:
    """Runs every program once, so that none is compiled while serving."""
    side = self._predictor.spec.image_size
    blank = [Image.new("RGB", (side, side), (k, 0, 0)) for k in range(256)]
    short, long = "?", "?"
    while self.text_tokens(Row(_ask(long))) + 8 < self.limits.prompt_tokens:
      long += " a"
    for count in (1, self.rows):
      for text, kind in itertools.product((short, long), _KINDS):
        several = [Row(_ask(text, p), kind, limit=2) for p in blank[:count]]
        list(self.write(several))
      blank = blank[count:]
    for text in (short, long) if self._lists else ():
      self._compile_lists(text)
    for count in range(2, self.limits.pictures + 1):
      list(self.write([Row(_ask(short, *blank[:count]), limit=1)]))

  def _compile_lists(self, text: str) -> None:
    """Runs the programs of lists, whatever the model sees in a blank."""
    asked = [_ask(text)] * self.rows
    sure = dataclasses.replace(self._predictor.listings, least=-1.0)
    with jax.set_mesh(self.model.mesh):
      make_batch = functools.partial(self._predictor.batch, asked)
      sure.answers([("?",)] * self.rows, make_batch)


def _check_positions(model: Model, limits: Limits, lists: bool) -> None:
  predictor, new = model.predictor, limits.new_tokens
  said = f"--max_new_tokens={new}"
  if lists:
    longest = predictor.listings.written.grammar.longest
    if (listed := limits.boxes * longest) > new:
      new = listed
      said = f"--max_boxes={limits.boxes} of {longest} tokens"
  visual = predictor.spec.num_visual * limits.pictures
  wanted = visual + limits.prompt_tokens + new
  most = predictor.model.config.llm.max_positions
  if wanted > most:
    raise ValueError(
      f"--max_pictures={limits.pictures} --max_prompt_tokens="
      f"{limits.prompt_tokens} {said}: together {wanted} positions, the model"
      f" has {most}; lower one of them"
    )


def _ask(text: str, *pictures: Image.Image) -> Question:
  return Question("0", pictures or None, text)


def until_stop(ids, stop: Sequence[int], pad: int) -> tuple[list[int], str]:
  """Returns the ids before a stop or padding, and "stop" if there was one."""
  row, stop = [int(i) for i in ids], list(stop)
  for i in range(len(row)):
    if row[i : i + len(stop)] == stop:
      return row[:i], "stop"
  while row and row[-1] == pad:
    row.pop()
  return row, ""

"""From examples to answers: parameters, prompts, pictures, decoding, text."""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import ImageOps

from locvlm_jax import agreement, assemble
from locvlm_jax.config import Config
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data.media import images
from locvlm_jax.inference import constrained as constrained_lib
from locvlm_jax.inference import decode, pictures, video_features, zoom
from locvlm_jax.inference import prefixes as prefixes_lib
from locvlm_jax.inference.answer import Answer
from locvlm_jax.inference.listing import listings
from locvlm_jax.inference.question import Picture, Question
from locvlm_jax.inference.sampling import Decoding, Sampling, is_cut_off
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.text import encoding, grammar, prompts
from locvlm_jax.weights import checksums, initial, quantizing
from locvlm_jax.weights.layouts import huggingface

# The answer whose location the grammar fills in.
_LOCATED = prompts.LOC_PRED_ANSWERS[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """A model that answers; call it with one batch of questions.

  A picture or video that can't be used is named once; a question about it gets
  an empty answer that says why (`Answer.unreadable`).

  Attributes:
    model: `LocVLM`.
    params: its parameters, on `mesh`.
    mesh: of all processes; each has to be called alike.
    spec: how questions are put.
    decoding: how answers are decoded.
    origin: where the parameters are from, their hash, and the fields in which
      they are asked otherwise than they were trained.
    skipped: why each such picture could not be used, by its path; of this
      process's rows.
    ahead: reads pictures of files in threads; None: they are read one by one,
      when they are needed.
    prefixes: keeps what prompts begin with; None: each is computed whole.
    lengths: that prompts, without their prefixes, are padded to, the least that
      is enough; empty: to `decode.padded_length`.
  """

  model: Any
  params: Mapping
  mesh: jax.sharding.Mesh
  spec: rows_lib.RowSpec
  decoding: Decoding
  origin: Mapping = dataclasses.field(default_factory=dict)
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  ahead: pictures.ReadingAhead | None = None
  prefixes: prefixes_lib.Prefixes | None = None
  lengths: tuple[int, ...] = ()

  @classmethod
  def load(
    cls, config: Config, mesh, workdir: str, llava: str = ""
  ) -> "Predictor":
    """Reads the newest checkpoint of a run, or a Llava directory.

    Args:
      config: all of it.
      mesh: of all processes; it has to be set.
      workdir: of the run.
      llava: a Hugging Face Llava directory to take the parameters from instead.

    Raises:
      ValueError: no such weights, or the config says otherwise what they mean.
    """
    overridden = agreement.check(config, llava or workdir)
    if llava:
      flat, origin = huggingface.open_llava(llava)[0], {"llava": llava}
    else:
      flat, info = initial.open_params(workdir, config.init)
      origin = {"workdir": workdir, "step": info["next_step"]}
    if overridden:
      origin["overridden"] = overridden
    model, text = assemble.model(config), assemble.load_tokenizer(config)
    wanted = params_lib.param_shapes(model)
    flat = quantizing.in_precision(flat, config.model.llm.base_weights)
    initial.check_complete(flat, wanted)
    where = sharding.param_shardings(wanted, mesh)
    kept = params_lib.kept_dtypes(wanted, (), config.model.dtype)
    params = {p: v.place(kept[p], where[p]) for p, v in flat.items()}
    spec = assemble.question_spec(config, text)
    origin["sha256"] = checksums.fingerprint(params)
    model, params = locvlm.unstack_layers(model, params_lib.unflatten(params))
    return cls(model, params, mesh, spec, Decoding.of(config.eval), origin)

  def decoded(self, **changes) -> "Predictor":
    """Changes some fields of `decoding`; the model stays the same."""
    decoding = dataclasses.replace(self.decoding, **changes)
    return dataclasses.replace(self, decoding=decoding)

  def with_features(
    self,
    questions: Iterable[Question],
    cache: str,
    threads: int,
    enter: Callable[[int], None],
  ) -> "Predictor":
    """Takes features of these questions' videos, if a cache keeps them.

    Args:
      questions: all that will be asked.
      cache: `config.video.cache`; empty: nothing is kept.
      threads: that decode videos.
      enter: called before each batch of videos, with its number.
    """
    questions = list(questions)
    if not cache or not self.spec.clips or any(x.mirrored for x in questions):
      return self
    spec = video_features.row_spec(
      cache,
      self.model,
      params_lib.flatten(self.params),
      self.spec,
      (path for x in questions for path in x.pictures),
      self.mesh,
      threads=threads,
      enter=enter,
    )
    return dataclasses.replace(self, spec=spec)

  def sharing(self, questions: Sequence[Question], rows: int) -> "Predictor":
    """Computes what questions have in common once, if they share pictures.

    Args:
      questions: all that will be asked, in batches of `question.batches`.
      rows: of a batch.
    """
    kept = prefixes_lib.shared(
      self.model, self.params, self.mesh, self.spec, questions, rows
    )
    return dataclasses.replace(self, prefixes=kept) if kept else self

  def read_ahead(self, examples: Sequence[Question]) -> None:
    """Begins to read the pictures of a batch that will be asked about."""
    if self.ahead:
      mine = examples[sharding.host_rows(len(examples))]
      if self.prefixes:
        mine = [q for q in mine if not self.prefixes.knows(q)]
      self.ahead.begin(self._read, _pictures(mine))

  def __call__(self, examples: Sequence[Question]) -> list[Answer]:
    """Answers each; if constrained, locations and lists with legal ones."""
    if self.decoding.constrained and examples[0].listed:
      return self.list_all(examples)
    if self.decoding.constrained and examples[0].location:
      return self.locate(examples)
    batch = self.batch(examples)
    ids = decode.generate(
      self.model, self.params, batch, self.sampling, rng=self._rng
    )
    answers = [self._answer(row) for row in sharding.fetch(ids)]
    return self._without_unseen(examples, batch, answers)

  def stream(self, example: Question) -> Iterator[Answer]:
    """Yields the answer to one question as it grows.

    Raises:
      BadImage: its picture can't be used.
    """
    batch = self.batch([example])
    (found,) = self._without_unseen([example], batch, [Answer("")])
    if found.unreadable:
      raise images.BadImage(found.unreadable)
    for ids in decode.stream(
      self.model, self.params, batch, self.sampling, rng=self._rng
    ):
      yield self._answer(ids[0])

  def locate(self, examples: Sequence[Question]) -> list[Answer]:
    """Answers with legal locations, which have a probability."""
    answers, factor = self._located(examples), self.decoding.zoom
    if not factor:
      return answers
    return zoom.refined(self._located, examples, answers, self.spec, factor)

  def _located(self, examples: Sequence[Question]) -> list[Answer]:
    """Answers so at the first look."""
    batch = self.batch(examples, [self.opening] * len(examples))
    found = constrained_lib.locate(
      self.model,
      self.params,
      batch,
      self._grammar,
      temperature=self.decoding.temperature,
      num_beams=self.decoding.beams,
      rng=self._rng,
    )
    texts = [
      prompts.fill(_LOCATED, loc=self._grammar.text(numbers))
      for numbers in found.numbers
    ]
    probabilities = np.exp(found.log_probability).tolist()
    answers = [
      Answer(text, probability=p)
      for text, p in zip(texts, probabilities, strict=True)
    ]
    return self._without_unseen(examples, batch, answers)

  def list_all(self, examples: Sequence[Question]) -> list[Answer]:
    """Answers with lists of locations, which say how sure the model is."""
    mine = sharding.host_rows(len(examples))
    media = None if self.prefixes else self._media(examples, mine)
    make_batch = functools.partial(self.batch, examples, media=media)
    answers = self.listings.answers([x.listed for x in examples], make_batch)
    return self._without_unseen(examples, make_batch(), answers)

  def _without_unseen(self, examples, batch, answers) -> list[Answer]:
    """Empties the answers about pictures that could not be used."""
    if "valid" not in batch:
      return list(answers)
    return [
      answer if valid else Answer("", unreadable=self._reason(example))
      for example, answer, valid in zip(
        examples, answers, sharding.fetch(batch["valid"]), strict=True
      )
    ]

  def _reason(self, example: Question) -> str:
    """Says why the pictures of a question can't be used."""
    known = (self.skipped[p] for p in example.pictures if p in self.skipped)
    return next(known, "another process could not read it")

  @functools.cached_property
  def _grammar(self) -> grammar.Grammar:
    after = _LOCATED.partition("{loc}")[2]
    return grammar.build(self.spec.coords, self.spec.tokenizer, after)

  @functools.cached_property
  def listings(self) -> listings.Listings:
    """Lists locations, at most `decoding.max_boxes` of a category."""
    written = listings.Written.of(self.spec.coords, self.spec.tokenizer)
    most = self.decoding.max_boxes
    return listings.Listings(self.model, self.params, written, most)

  @functools.cached_property
  def opening(self) -> list[int]:
    """An answer's tokens up to its bracket."""
    text = _LOCATED.partition("{loc}")[0] + "["
    return self.spec.tokenizer.encode_after(f" {text}")

  @functools.cached_property
  def _rng(self):
    return jax.random.key(self.decoding.seed)

  @functools.cached_property
  def sampling(self) -> Sampling:
    """How tokens are chosen, as `decode` takes it."""
    how, text = self.decoding, self.spec.tokenizer
    return Sampling(
      max_new_tokens=how.max_new_tokens,
      stop=tuple(text.stop_ids(self.spec.format)),
      temperature=how.temperature,
      top_k=how.top_k,
      top_p=how.top_p,
      pad_id=text.pad_id,
    )

  def _answer(self, ids) -> Answer:
    text = self.spec.tokenizer.answer(ids, self.spec.format)
    cut_off = is_cut_off(ids, self.sampling)
    for stop in self.decoding.stop:
      text, found, _ = text.partition(stop)
      cut_off &= not found
    return Answer(text.strip(), cut_off)

  def batch(self, examples: Sequence[Question], openings=None, media=None):
    """Prompts and pictures on the mesh, each host's own rows.

    Args:
      examples: the questions.
      openings: the tokens that each answer begins with; None: nothing.
      media: the pictures, if they have been read.
    """
    openings = openings or [()] * len(examples)
    prompts_ = [
      [*self.prompt(x), *begun]
      for x, begun in zip(examples, openings, strict=True)
    ]
    if self.prefixes:
      begun = self.prefixes.lengths(examples)
      prompts_ = [p[n:] for p, n in zip(prompts_, begun, strict=True)]
    longest = max(len(p) for p in prompts_)
    fitting = (n for n in self.lengths if n >= longest)
    longest = next(fitting, decode.padded_length(longest))
    pad = self.spec.tokenizer.pad_id
    tokens = np.full((len(prompts_), longest), pad, np.int32)
    for row, prompt in zip(tokens, prompts_, strict=True):
      row[: len(prompt)] = prompt
    mine = sharding.host_rows(len(examples))
    if media is None:
      media = {} if self.prefixes else self._media(examples, mine)
    batch = {
      "tokens": tokens[mine],
      **media,
      "lengths": np.array([len(p) for p in prompts_[mine]], np.int32),
      "example": np.array(
        [zlib.crc32(x.id.encode()) & 0x7FFFFFFF for x in examples[mine]],
        np.int32,
      ),
    }
    if not self.prefixes:
      return sharding.put_batch(batch, self.mesh, len(examples))
    everything = slice(None)
    batch["prefix"], batch["valid"] = self.prefixes.take(
      examples, lambda some: self._media(some, everything)
    )
    return batch

  def prompt(self, example: Question) -> list[int]:
    """Returns the tokens of a question's prompt."""
    return encoding.encode_prompt(
      self.spec.tokenizer,
      self.spec.format,
      list(example.history),
      example.question,
      self.spec.num_visual * len(example.pictures),
    ).tolist()

  def _media(self, examples, mine: slice) -> dict[str, np.ndarray | None]:
    """images [B, K, H, W, 3], or of videos [B, K, F, H, W, 3] and frames.

    None where no example of the batch has a picture; valid: whether all that a
    row shows could be read.
    """
    most = max(len(x.pictures) for x in examples)
    if not most:
      return {"images": None}
    blank, rows = self._blank(), examples[mine]
    fields = {
      name: np.tile(x, (len(rows), most, *[1] * (x.ndim - 1)))
      for name, x in blank.items()
    }
    fields["valid"] = np.ones(len(rows), bool)
    early = {}
    if self.ahead:
      early = self.ahead.take(self._read, _pictures(rows))
    for i, example in enumerate(rows):
      for k, path in enumerate(example.pictures):
        key = (path, example.mirrored, example.size)
        is_early = early and isinstance(path, str)
        found = early[key] if is_early else self._read(*key)
        fields["valid"][i] &= found is not None
        for name, x in (found or {}).items():
          fields[name][i, k] = x[0]
    return fields

  def _blank(self) -> dict[str, np.ndarray]:
    """The fields of one image or video of nothing."""
    if self.spec.clips:
      return self.spec.clips.blank()
    size = self.spec.image_size
    return {"images": np.zeros((1, size, size, 3), np.uint8)}

  def _read(
    self, path: Picture, mirrored: bool, size: tuple[int, int] = (0, 0)
  ) -> dict[str, np.ndarray] | None:
    """Those of an image, or of a video; None where it can't be used."""
    try:
      return pictures.fields(
        self.spec, path, ImageOps.mirror if mirrored else None, size
      )
    except images.BadImage as error:
      if path not in self.skipped:
        logging.warning("no answers about %s: %s", path, error)
      self.skipped[path] = str(error)
      return None


def _pictures(examples: Sequence[Question]) -> list[tuple]:
  """Lists the arguments of `Predictor._read` for pictures in files."""
  return [
    (path, example.mirrored, example.size)
    for example in examples
    for path in example.pictures
    if isinstance(path, str)
  ]

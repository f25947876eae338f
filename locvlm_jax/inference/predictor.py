"""From examples to answers: parameters, prompts, pictures, decoding, text."""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import ImageOps

from locvlm_jax import assemble
from locvlm_jax.data import clips as clips_lib
from locvlm_jax.data import geometry, images, video
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.inference import constrained, decode, video_features
from locvlm_jax.inference.question import Question
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.text import coords, encoding, grammar, prompts
from locvlm_jax.weights import checkpoints, checksums, huggingface, initial

# The answer whose location the grammar fills in.
_LOCATED = prompts.LOC_PRED_ANSWERS[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """A model that answers; call it with one batch of examples.

  A video that can't be read is told once, and gets empty answers.

  Attributes:
    config: as plain data; `config.eval` says how to decode.
    model: `LocVLM`.
    params: its parameters, on `mesh`.
    mesh: of all processes; each has to be called alike.
    spec: how questions are put.
    origin: where the parameters are from, and their hash.
    skipped: why each such video could not be read, by its path; of this
      process's rows.
  """

  config: Mapping
  model: Any
  params: Mapping
  mesh: jax.sharding.Mesh
  spec: rows_lib.RowSpec
  origin: Mapping
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)

  @classmethod
  def load(cls, config: Mapping, mesh, workdir: str, llava: str = ""):
    """The newest checkpoint of a run, or a Llava directory.

    Raises:
      ValueError: no such weights, or they are not of the config's model.
    """
    if llava:
      flat, origin = huggingface.open_llava(llava)[0], {"llava": llava}
    else:
      flat, info = checkpoints.open_params(workdir)
      origin = {"workdir": workdir, "step": info["next_step"]}
    model, text = assemble.model(config), assemble.load_tokenizer(config)
    wanted = params_lib.param_shapes(model)
    for path, value in flat.items():
      initial.check_shape(path, value, wanted)
    where = sharding.param_shardings(wanted, mesh)
    dtype = jnp.dtype(config["model"]["dtype"])
    params = {p: v.place(dtype, where[p]) for p, v in flat.items()}
    spec = assemble.question_spec(config, text)
    origin["sha256"] = checksums.fingerprint(params)
    model, params = locvlm.unstack_layers(model, params_lib.unflatten(params))
    return cls(config, model, params, mesh, spec, origin)

  def with_seed(self, seed: int) -> "Predictor":
    """The same with another `eval.seed`."""
    e = {**self.config["eval"], "seed": seed}
    return dataclasses.replace(self, config={**self.config, "eval": e})

  def with_features(self, examples: Sequence[Question], at) -> "Predictor":
    """The same with features of these examples' videos, if they are kept.

    Args:
      examples: all that will be asked.
      at: called before each batch of videos, with its number.
    """
    cache, clips = self.config["video"]["cache"], self.spec.clips
    if not cache or not clips or any(x.mirrored for x in examples):
      return self
    spec = video_features.row_spec(
      self.config,
      self.model,
      params_lib.flatten(self.params),
      self.spec,
      (path for x in examples for path in x.pictures),
      self.mesh,
      threads=self.config["data"]["threads"],
      at=at,
    )
    return dataclasses.replace(self, spec=spec)

  def __call__(self, examples: Sequence[Question]) -> list[str]:
    """An answer to each; see `config.eval`.

    With `eval.constrained`, those that ask for a location get a legal one.
    """
    if self.config["eval"]["constrained"] and examples[0].location:
      return self.locate(examples)[0]
    batch = self._batch(examples)
    ids = decode.generate(
      self.model, self.params, batch, self._sampling, rng=self._rng
    )
    return [self._text(row) for row in sharding.fetch(ids)]

  def stream(self, example: Question) -> Iterator[str]:
    """The answer to one example, as it grows."""
    batch = self._batch([example])
    for ids in decode.stream(
      self.model, self.params, batch, self._sampling, rng=self._rng
    ):
      yield self._text(ids[0])

  def locate(
    self, examples: Sequence[Question]
  ) -> tuple[list[str], list[float]]:
    """(answers that hold a legal location each, its probabilities)."""
    found = constrained.locate(
      self.model,
      self.params,
      self._batch(examples, self._opening),
      self._grammar,
      temperature=self.config["eval"]["temperature"],
      rng=self._rng,
    )
    answers = [
      prompts.fill(_LOCATED, loc=self._grammar.text(numbers))
      for numbers in found.numbers
    ]
    return answers, np.exp(found.log_probability).tolist()

  def expect(
    self, example: Question, num: int
  ) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of the location under the model, in [0, 1].

    Each number's mean and standard deviation over `num` legal locations drawn
    from the model. Where it wavers between two places, the mean lies between
    them and the deviation says so.
    """
    draws = [
      dataclasses.replace(example, id=f"{example.id}#{i}") for i in range(num)
    ]
    e = {**self.config["eval"], "temperature": 1.0}
    sampler = dataclasses.replace(self, config={**self.config, "eval": e})
    answers, _ = sampler.locate(draws)
    form = coords.Coords(**self.config["coords"])
    values = np.array([form.parse(answer)[0] for answer in answers])
    return tuple(values.mean(0).tolist()), tuple(values.std(0).tolist())

  @functools.cached_property
  def _grammar(self) -> grammar.Grammar:
    form = coords.Coords(**self.config["coords"])
    after = _LOCATED.partition("{loc}")[2]
    return grammar.build(form, self.spec.tokenizer, after)

  @functools.cached_property
  def _opening(self) -> list[int]:
    """An answer's tokens up to its bracket."""
    text = _LOCATED.partition("{loc}")[0] + "["
    return self.spec.tokenizer.encode_after(f" {text}")

  @functools.cached_property
  def _rng(self):
    return jax.random.key(self.config["eval"]["seed"])

  @functools.cached_property
  def _sampling(self) -> decode.Sampling:
    e, text = self.config["eval"], self.spec.tokenizer
    return decode.Sampling(
      max_new_tokens=e["max_new_tokens"],
      stop=tuple(text.stop_ids(self.spec.format)),
      temperature=e["temperature"],
      top_k=e["top_k"],
      top_p=e["top_p"],
      pad_id=text.pad_id,
    )

  def _text(self, ids) -> str:
    answer = self.spec.tokenizer.answer(ids, self.spec.format)
    for stop in self.config["eval"]["stop"]:
      answer = answer.partition(stop)[0]
    return answer.strip()

  def _batch(self, examples: Sequence[Question], opening: Sequence[int] = ()):
    """Prompts and pictures on the mesh, each host's own rows."""
    prompts_ = [[*self._prompt(x), *opening] for x in examples]
    longest = max(len(p) for p in prompts_)
    longest = decode.padded_length(longest)
    pad = self.spec.tokenizer.pad_id
    tokens = np.full((len(prompts_), longest), pad, np.int32)
    for row, prompt in zip(tokens, prompts_, strict=True):
      row[: len(prompt)] = prompt
    mine = sharding.host_rows(len(examples))
    batch = {
      "tokens": tokens[mine],
      **self._media(examples, mine),
      "lengths": np.array([len(p) for p in prompts_[mine]], np.int32),
      "example": np.array(
        [zlib.crc32(x.id.encode()) & 0x7FFFFFFF for x in examples[mine]],
        np.int32,
      ),
    }
    return sharding.put_batch(batch, self.mesh, len(examples))

  def _prompt(self, example: Question) -> list[int]:
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
    for i, example in enumerate(rows):
      for k, path in enumerate(example.pictures):
        found = self._read(path, example.mirrored)
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

  def _read(self, path: str, mirrored: bool) -> dict[str, np.ndarray] | None:
    """Those of an image, or of a video; None where it can't be read.

    A model of images sees the frame in the middle of a video.
    """
    kind, size = self.spec.geometry, self.spec.image_size
    change = ImageOps.mirror if mirrored else None
    if not self.spec.clips and not video.is_video(path):
      image = images.load_image(path)
      image = change(image) if change else image
      square = geometry.make(kind, *image.size, size).apply_image(image)
      return {"images": square[None]}
    clips = self.spec.clips or clips_lib.Clips(1, kind, size)
    try:
      fields, _ = clips.fields(path, change) if change else clips.fields(path)
    except images.BadImage as error:
      if path not in self.skipped:
        logging.warning("no answers about %s: %s", path, error)
      self.skipped[path] = str(error)
      return None
    return fields if self.spec.clips else {"images": fields["images"][0]}

"""The programs that answer: those of the start, and the model's own answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import row_specs
import toy_models
from paths import ASSETS
from PIL import Image

from locvlm_jax.inference.model import Model
from locvlm_jax.inference.predictor import Decoding, Predictor
from locvlm_jax.inference.question import Question
from locvlm_jax.models import locvlm
from locvlm_jax.parallel import sharding
from locvlm_jax.serving import writer as writer_lib
from locvlm_jax.serving.limits import Limits
from locvlm_jax.serving.rows import DETAILED, GREEDY, LISTED, LOCATED, Row
from locvlm_jax.serving.writer import Writer
from locvlm_jax.text import prompts, tokenizer
from locvlm_jax.text.coords import Coords

LIMITS = Limits(pictures=2, prompt_tokens=48, new_tokens=16, boxes=3)
_COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def model():
  """One layer of each kind, since every program here compiles them all."""
  vision = dataclasses.replace(
    toy_models.VISION, num_layers=2, num_heads=4, width=32
  )
  llm = dataclasses.replace(
    toy_models.LLM, num_layers=1, num_kv_heads=4, vocab_size=1024
  )
  config = dataclasses.replace(toy_models.CONFIG, vision=vision, llm=llm)
  spec = dataclasses.replace(
    row_specs.row_spec(tokenizer.Tokenizer.load(ASSETS / "micro_base")),
    image_size=vision.image_size,
    num_visual=vision.num_patches,
    coords=Coords("ivb", 96, "box"),
  )
  params = jax.tree.map(jnp.asarray, toy_models.params_of(config))
  made, params = locvlm.unstack_layers(locvlm.LocVLM(config), params)
  mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": -1})
  how = Decoding(max_new_tokens=16)
  return Model(Predictor(made, params, mesh, spec, how), mesh)


@pytest.fixture(scope="module")
def writer(model):
  made = Writer(model, LIMITS, rows=3, kept=4, lists=True)
  made.compile()
  return made


@pytest.fixture(scope="module")
def pictures():
  rng = np.random.default_rng(0)
  return [
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    for _ in range(6)
  ]


def _rows(pictures, kind=GREEDY, **fields):
  texts = ("Where is the cup?", "What objects are in the image?", "What is it?")
  return [
    Row(Question("0", p, text), kind, limit=16, **fields)
    for p, text in zip(pictures, texts, strict=False)
  ]


def _listed(picture, *names):
  question = Question("0", picture, prompts.detect(names), listed=names)
  return Row(question, LISTED, limit=16)


def _last(writer, rows, ended=lambda: ()):
  *_, parts = writer.write(rows, ended)
  return parts


def test_answers_are_the_predictors_and_nothing_is_compiled_for_them(
  model, writer, pictures
):
  asked = model.predictor.decoded(max_new_tokens=16)
  rows, found = _rows(pictures), []
  wanted = [
    asked.decoded(seed=s, temperature=t)([row.question])[0]
    for row in rows
    for s, t in ((0, 0.0), (7, 1.0))
  ]
  compiled = []

  def count(name, *_, **__):
    compiled.extend([name] if name == _COMPILED else [])

  jax.monitoring.register_event_duration_secs_listener(count)
  sampled = [
    dataclasses.replace(row, kind=DETAILED, temperature=1.0, seed=7)
    for row in rows
  ]
  for one, other in zip(_last(writer, rows), _last(writer, sampled),
                        strict=True):  # fmt: skip
    found += [one.text, other.text]
  no_picture = Row(Question("0", None, "Which is larger, 2 or 5?"), limit=4)
  both = Row(Question("0", tuple(pictures[:2]), "What is it?"), limit=4)
  for row in (no_picture, both, *_rows(pictures[3:])):
    assert _last(writer, [row])[0].finish
  _last(writer, _rows(pictures, LOCATED))
  _last(writer, [_listed(pictures[0], "cup"), _listed(pictures[1], "a", "b")])
  jax.monitoring.unregister_event_duration_listener(count)
  assert found == wanted and not compiled


def test_a_located_answer_is_the_predictors(model, writer, pictures):
  rows = _rows(pictures, LOCATED)
  wanted = model.predictor.locate([row.question for row in rows])
  parts = _last(writer, rows)
  assert [p.text for p in parts] == wanted
  for part, answer in zip(parts, wanted, strict=True):
    assert part.probabilities == pytest.approx((answer.probability,), rel=1e-3)


def test_a_list_is_the_predictors_and_ends_where_the_prompt_is_full(
  model, writer, pictures
):
  rows = [_listed(p, "cup", "ball") for p in pictures[:2]]
  asked = model.predictor.decoded(max_boxes=LIMITS.boxes)
  wanted = asked.list_all([row.question for row in rows])
  growing = list(writer.write(rows))
  for part, answer in zip(growing[-1], wanted, strict=True):
    assert part.text == answer
    scores = [s for listing in answer.lists for s in listing.scores]
    assert part.probabilities == pytest.approx(scores, rel=1e-3)
  assert growing[0][0].finish == "" and wanted[0].startswith(growing[0][0].text)
  question = dataclasses.replace(rows[0].question, listed=("cup", 60 * "a "))
  (part,) = _last(writer, [dataclasses.replace(rows[0], question=question)])
  assert (part.text, part.finish) == (growing[0][0].text, "length")


def test_greedy_and_sampled_rows_share_a_batch(writer, pictures):
  greedy = _last(writer, _rows(pictures[:1]))[0]
  mixed = _rows(pictures[:1], DETAILED) + _rows(
    pictures[:1], DETAILED, temperature=2.0, seed=3
  )
  first, second = _last(writer, mixed)
  assert first.text == greedy.text != second.text
  # The likeliest token is the one that greedy decoding takes.
  assert all(t.log_probability == t.likely[0][1] for t in first.tokens)
  assert all(len(t.likely) == 20 for t in first.tokens)


def test_a_limit_and_a_stop_end_a_row(writer, pictures):
  row = _rows(pictures[:1])[0]
  whole = _last(writer, [row])[0]
  assert (whole.finish, whole.num_tokens) == ("length", 16)
  short = _last(writer, [dataclasses.replace(row, limit=3)])[0]
  assert (short.finish, short.num_tokens) == ("length", 3)
  assert whole.text.startswith(short.text)
  stop = whole.text[4:7]
  cut = _last(writer, [dataclasses.replace(row, stop=(stop,))])[0]
  before = whole.text.partition(stop)[0].strip()
  assert (cut.text, cut.finish) == (before, "stop")


def test_a_stop_of_the_model_ends_a_row_without_being_part_of_it():
  assert writer_lib.until_stop([5, 6, 2, 0], [2], pad=0) == ([5, 6], "stop")
  assert writer_lib.until_stop([5, 9, 8, 7], [9, 8], pad=0) == ([5], "stop")
  assert writer_lib.until_stop([5, 6, 0, 0], [2], pad=0) == ([5, 6], "")


def test_limits_beyond_the_models_positions_are_refused(model):
  with pytest.raises(ValueError, match="together 2[0-9]{3} positions, .* 2048"):
    Writer(model, Limits(prompt_tokens=1990), rows=2, kept=2)


def test_rows_that_nobody_waits_for_are_written_no_further(writer, pictures):
  rows = _rows(pictures)
  parts = list(writer.write(rows, lambda: [True] * len(rows)))
  assert len(parts) <= 2

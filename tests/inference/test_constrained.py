"""Decoding under a grammar gives legal locations alone, the likeliest first."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paths import ASSETS
from toy_models import CONFIG, params_of, rows

from locvlm_jax.inference import constrained
from locvlm_jax.models import locvlm
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import grammar, tokenizer

BASE = ASSETS / "micro_base"
TEXT = tokenizer.Tokenizer.load(BASE)
MODEL = locvlm.LocVLM(
  dataclasses.replace(
    CONFIG, llm=dataclasses.replace(CONFIG.llm, vocab_size=TEXT.vocab_size)
  )
)
FORMS = list(itertools.product(coords_lib.FORMS, coords_lib.LOCATIONS))


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(jnp.asarray, params_of(MODEL.config))


def batch_of(lengths, seed=0):
  tokens, images, lengths = rows(lengths, seed=seed)
  return {"tokens": tokens, "images": images, "lengths": lengths}


def legal_numbers(coords):
  """All locations of few bins, as numbers."""
  if coords.form == "diga":
    parts = [range(coords.grid**2)]
    parts += [range(1 - coords.num_bins, coords.num_bins)] * (
      2 if coords.location == "point" else 4
    )
  else:
    parts = [range(coords.num_bins)] * (2 if coords.location == "point" else 4)
  return itertools.product(*parts)


@pytest.mark.parametrize("form, location", FORMS)
def test_all_answers_parse(params, form, location):
  coords = coords_lib.Coords(form, 224, location)
  tables = grammar.build(coords, TEXT)
  batch = batch_of([9, 20, 14, 32] * 16)
  found = constrained.locate(
    MODEL, params, batch, tables, temperature=3.0, rng=jax.random.key(1)
  )
  texts = [tables.text(n) for n in found.numbers]
  assert len(set(texts)) > 50  # at this temperature nearly at random
  for text in texts:
    assert coords.parse(text).value is not None, (text, coords.parse(text))
  assert (found.log_probability < 0).all()


@pytest.mark.parametrize("form, location", [("ivb", "box"), ("diga", "point")])
def test_greedy_takes_the_likeliest_legal_token(params, form, location):
  """Against all legal locations, written out, and full forward passes."""
  coords = coords_lib.Coords(form, 13, location, grid=2)
  tables = grammar.build(coords, TEXT)
  texts = (tables.text(n) for n in legal_numbers(coords))
  texts = {t for t in texts if coords.parse(t).value is not None}
  head = TEXT.encode_after(" [")
  legal = {tuple(TEXT.encode_after(f" {t}")[len(head) :]) for t in texts}
  batch = batch_of([9, 14])
  found = constrained.locate(MODEL, params, batch, tables)
  for row in range(2):
    written, gain = _greedy(params, batch, row, legal)
    assert TEXT.decode(head + written).strip() == tables.text(
      found.numbers[row]
    )
    np.testing.assert_allclose(found.log_probability[row], gain, atol=1e-3)


def _greedy(params, batch, row, legal):
  tokens = np.pad(batch["tokens"][row : row + 1], ((0, 0), (0, 32)))
  length, written, gain = int(batch["lengths"][row]), [], 0.0
  while tuple(written) not in legal:
    n = len(written)
    options = sorted({t[n] for t in legal if list(t[:n]) == written})
    scores = _logits(params, tokens, batch["images"][row : row + 1], length)
    scores = np.asarray(scores)[options]
    gain += scores.max() - np.log(np.exp(scores - scores.max()).sum())
    gain -= scores.max()
    written.append(options[int(scores.argmax())])
    tokens[0, length] = written[-1]
    length += 1
  return written, gain


@jax.jit
def _logits(params, tokens, images, length):
  hidden = MODEL.apply({"params": params}, tokens, images, length[None])
  return MODEL.apply({"params": params}, hidden[0, length - 1], method="logits")


def _all_locations(params, batch, row, coords, tables):
  """{numbers: log-probability} of every legal location, by full passes."""
  found = {}
  numbers = [n for n in legal_numbers(coords)]
  texts = [tables.text(n) for n in numbers]
  head = TEXT.encode_after(" [")
  legal = {
    n: TEXT.encode_after(f" {t}")[len(head) :]
    for n, t in zip(numbers, texts, strict=True)
    if coords.parse(t).value is not None
  }
  following, logs = {}, {}
  for ids in legal.values():
    for i, token in enumerate(ids):
      following.setdefault(tuple(ids[:i]), set()).add(token)
  for written, options in following.items():
    tokens = np.pad(batch["tokens"][row : row + 1], ((0, 0), (0, 32)))
    length = int(batch["lengths"][row])
    tokens[0, length : length + len(written)] = written
    scores = _logits(
      params, tokens, batch["images"][row : row + 1], length + len(written)
    )
    options = sorted(options)
    shares = jax.nn.log_softmax(np.asarray(scores)[options])
    logs |= {
      (written, o): float(v) for o, v in zip(options, shares, strict=True)
    }
  for n, ids in legal.items():
    found[n] = sum(logs[tuple(ids[:i]), t] for i, t in enumerate(ids))
  return found


def test_a_wide_beam_finds_the_likeliest_location_and_greedy_need_not(params):
  coords = coords_lib.Coords("ivb", 13, "point", grid=2)
  tables = grammar.build(coords, TEXT)
  batch = batch_of([9, 14, 11, 20, 17, 12])
  greedy, beam = (
    constrained.locate(MODEL, params, batch, tables, num_beams=n)
    for n in (1, 8)
  )
  better = beam.log_probability - greedy.log_probability
  assert (better > -1e-4).all() and (better > 5e-3).any()
  for row in range(2):
    likely = _all_locations(params, batch, row, coords, tables)
    assert np.exp([*likely.values()]).sum() == pytest.approx(1, abs=1e-3)
    best = max(likely, key=likely.get)
    assert tuple(beam.numbers[row]) == best
    np.testing.assert_allclose(
      beam.log_probability[row], likely[best], atol=1e-3
    )
    np.testing.assert_allclose(
      greedy.log_probability[row],
      likely[tuple(int(v) for v in greedy.numbers[row])],
      atol=1e-3,
    )


def test_more_beams_than_legal_tokens_and_rows_without_a_picture(params):
  tables = grammar.build(coords_lib.Coords("diga", 8, "box", grid=2), TEXT)
  batch = batch_of([9, 20]) | {"valid": np.array([True, False])}
  found = constrained.locate(MODEL, params, batch, tables, num_beams=30)
  assert np.isfinite(found.log_probability[0])
  text = tables.text(found.numbers[0])
  assert tables.coords.parse(text).value is not None


def test_batched_equals_single(params):
  tables = grammar.build(coords_lib.Coords("ivb", 96, "box"), TEXT)
  batch = batch_of([9, 20, 14, 32])
  together = constrained.locate(MODEL, params, batch, tables)
  for i in range(4):
    alone = constrained.locate(
      MODEL, params, {k: v[i : i + 1] for k, v in batch.items()}, tables
    )
    np.testing.assert_array_equal(alone.numbers[0], together.numbers[i])
    np.testing.assert_allclose(
      alone.log_probability[0], together.log_probability[i], atol=1e-4
    )


def test_a_number_keeps_its_bounds():
  """No prefix is legal that only leads beyond the bounds."""
  tables = grammar.build(coords_lib.Coords("ivb", 224, "box"), TEXT)
  low = {int(n): i for i, n in enumerate(tables.whole) if tables.is_whole[i]}
  assert [tuple(x) for x in tables.intervals[low[22]]] == [
    (22, 22),
    (220, 223),
    (1, 0),
  ]
  assert [tuple(x) for x in tables.intervals[low[23]]] == [
    (23, 23),
    (1, 0),
    (1, 0),
  ]


def test_bad_options_are_named(params):
  tables = grammar.build(coords_lib.Coords("ivb", 96, "box"), TEXT)
  with pytest.raises(ValueError, match="temperature -1"):
    constrained.locate(MODEL, params, {}, tables, temperature=-1.0)
  with pytest.raises(ValueError, match="rng"):
    constrained.locate(MODEL, params, {}, tables, temperature=1.0)
  for options in ({"num_beams": 0}, {"num_beams": 2, "temperature": 1.0}):
    with pytest.raises(ValueError, match="beams . at temperature"):
      constrained.locate(MODEL, params, {}, tables, **options)

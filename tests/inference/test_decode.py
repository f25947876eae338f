"""Generation equals the full forward pass, row by row, in any batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import CONFIG, LLM, params_of, rows

from locvlm_jax.inference import decode
from locvlm_jax.inference import sampling as sampling_lib
from locvlm_jax.models import llama, locvlm

MODEL = locvlm.LocVLM(CONFIG)
NEVER = LLM.vocab_size  # an id that is never generated
LENGTHS = [9, 20, 14, 32]


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(jnp.asarray, params_of(CONFIG))


def batch_of(lengths, **extra):
  tokens, images, lengths = rows(lengths)
  return {"tokens": tokens, "images": images, "lengths": lengths, **extra}


def take(batch, index):
  return {k: v[index] for k, v in batch.items()}


def generate(params, batch, rng=None, **changes):
  options = {"max_new_tokens": 6, "stop": (NEVER,)} | changes
  sampling = decode.Sampling(**options)
  return np.asarray(decode.generate(MODEL, params, batch, sampling, rng=rng))


@jax.jit
def next_logits(params, tokens, images, lengths):
  h = MODEL.apply({"params": params}, tokens, images, lengths)
  logits = MODEL.apply({"params": params}, h, method="logits")
  return logits[jnp.arange(len(lengths)), lengths - 1]


def by_full_passes(params, batch, num):
  """Greedy tokens, each from a forward pass over the whole row so far."""
  tokens = np.pad(batch["tokens"], ((0, 0), (0, num)))
  lengths, out = batch["lengths"].copy(), []
  for _ in range(num):
    logits = next_logits(params, tokens, batch["images"], lengths)
    out.append(np.argmax(logits, axis=-1))
    tokens[np.arange(len(tokens)), lengths] = out[-1]
    lengths += 1
  return np.stack(out, axis=1)


def test_greedy_equals_full_forward_passes_on_ragged_prompts(params):
  batch = batch_of(LENGTHS)
  ours = generate(params, batch)
  np.testing.assert_array_equal(ours, by_full_passes(params, batch, 6))
  assert len(np.unique(ours)) > 4  # a constant would prove little


def test_logits_after_prefill_and_steps_equal_the_full_pass(params):
  batch = batch_of(LENGTHS)

  @functools.partial(jax.jit, static_argnames="method")
  def run(*args, method):
    return decode.bound_apply(MODEL, params)(*args, method=method)

  cache = llama.empty_cache(LLM, 4, 40, "float32")
  inputs = (batch["tokens"], batch["images"], batch["lengths"])
  hidden, cache = run(*inputs, cache, method="prefill")
  tokens = np.pad(batch["tokens"], ((0, 0), (0, 8)))
  lengths = batch["lengths"].copy()
  for token in (5, 40, 9):
    ours = run(hidden, method="logits")
    full = next_logits(params, tokens, batch["images"], lengths)
    np.testing.assert_allclose(ours, full, atol=1e-4)
    hidden, cache = run(
      jnp.full((4, 1), token), cache, jnp.asarray(lengths), method="decode_step"
    )
    hidden = hidden[:, 0]
    tokens[np.arange(4), lengths] = token
    lengths += 1


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_batched_equals_single(params, temperature):
  batch = batch_of(LENGTHS, example=np.array([7, 3, 11, 5], np.int32))
  options = {"temperature": temperature, "rng": jax.random.key(0)}
  together = generate(params, batch, **options)
  for i, row in enumerate(together):
    alone = generate(params, take(batch, slice(i, i + 1)), **options)
    np.testing.assert_array_equal(alone[0], row)


def test_a_sample_does_not_depend_on_its_place(params):
  batch = batch_of(LENGTHS, example=np.array([7, 3, 11, 5], np.int32))
  options = {"temperature": 0.8, "rng": jax.random.key(0)}
  order = np.array([2, 0, 3, 1])
  np.testing.assert_array_equal(
    generate(params, take(batch, order), **options),
    generate(params, batch, **options)[order],
  )


def test_samples_follow_the_softmax(params):
  n = 400
  batch = {k: np.repeat(v, n, axis=0) for k, v in batch_of([12]).items()}
  logits = next_logits(
    params, batch["tokens"][:1], batch["images"][:1], batch["lengths"][:1]
  )[0]
  wanted = np.asarray(jax.nn.softmax(logits / 0.5))
  drawn = generate(
    params, batch, max_new_tokens=1, temperature=0.5, rng=jax.random.key(0)
  )
  found = np.bincount(drawn[:, 0], minlength=LLM.vocab_size) / n
  # Four standard deviations of a share of n draws.
  assert (abs(found - wanted) <= 4 * np.sqrt(wanted / n) + 1e-3).all()
  assert (found > 0).sum() > 3


def test_low_temperature_is_greedy_and_other_keys_differ(params):
  batch = batch_of(LENGTHS)
  cold = generate(params, batch, temperature=1e-4, rng=jax.random.key(0))
  np.testing.assert_array_equal(cold, generate(params, batch))
  a, b = (
    generate(params, batch, temperature=2.0, rng=jax.random.key(k))
    for k in (0, 1)
  )
  assert (a != b).any()


def test_rows_end_at_eos_and_are_padded(params):
  batch = batch_of(LENGTHS)
  free = generate(params, batch)
  eos = int(free[1, 2])
  ended = generate(params, batch, stop=(eos,), pad_id=0)
  for before, after in zip(free, ended, strict=True):
    at = np.flatnonzero(before == eos)
    end = at[0] + 1 if at.size else len(before)
    np.testing.assert_array_equal(after[:end], before[:end])
    assert (after[end:] == 0).all()
  assert (ended[1, 3:] == 0).all()


def test_invalid_rows_stay_empty(params):
  valid = np.array([True, False, True, False])
  out = generate(params, batch_of(LENGTHS, valid=valid))
  assert (out[~valid] == 0).all()
  np.testing.assert_array_equal(
    out[valid], generate(params, batch_of(LENGTHS))[valid]
  )


def test_text_only_prompts(params):
  batch = batch_of(LENGTHS)
  batch["tokens"] = np.where(batch["tokens"] < 0, 9, batch["tokens"])
  with_image = generate(params, batch)
  np.testing.assert_array_equal(
    generate(params, batch | {"images": None}), with_image
  )


def test_the_same_shapes_are_compiled_once(params):
  generate(params, batch_of([9, 20]))
  before = decode._generate._cache_size()
  generate(params, batch_of([30, 12]), stop=(5,))
  assert decode._generate._cache_size() == before


@pytest.mark.parametrize(
  "options, message",
  [
    ({"temperature": -1.0}, "temperature -1.0"),
    ({"temperature": 0.2}, "rng"),
    ({"max_new_tokens": 0}, "max_new_tokens 0"),
    ({"top_p": 0.0}, "top_p 0.0"),
    ({"top_k": -1}, "top_k -1"),
    ({"stop": ()}, "stop is empty"),
  ],
)
def test_bad_options_are_named(params, options, message):
  with pytest.raises(ValueError, match=message):
    generate(params, batch_of([9]), **options)


@pytest.mark.parametrize(
  "options, kept",
  [({"top_k": 3}, 3), ({"top_p": 0.4}, None), ({"top_k": 1}, 1)],
)
def test_samples_come_from_the_likeliest_tokens(params, options, kept):
  n = 300
  batch = {k: np.repeat(v, n, axis=0) for k, v in batch_of([12]).items()}
  logits = next_logits(
    params, batch["tokens"][:1], batch["images"][:1], batch["lengths"][:1]
  )[0]
  likely = np.asarray(jax.nn.softmax(logits))
  order = np.argsort(-likely)
  if kept is None:
    kept = int((np.cumsum(likely[order]) < options["top_p"]).sum()) + 1
  drawn = generate(
    params,
    batch,
    max_new_tokens=1,
    temperature=1.0,
    rng=jax.random.key(0),
    **options,
  )
  assert set(drawn[:, 0]) == set(order[:kept])


def kept_by_transformers(logits, top_k, top_p):
  """Which tokens its two filters leave, one after the other, in float64."""
  logits = np.array(logits, np.float64)
  logits[logits < np.sort(logits)[-top_k]] = -np.inf
  order = np.argsort(logits)  # the least likely first
  shares = np.exp(logits - logits.max())
  reached = np.cumsum(shares[order] / shares.sum())
  removed = order[:-1][reached[:-1] <= 1 - top_p]
  logits[removed] = -np.inf
  return np.isfinite(logits)


def kept_by_us(logits, top_k, top_p):
  arrays = logits[None], np.int32(top_k), np.float32(top_p)
  return np.isfinite(
    jax.jit(sampling_lib.keep_likely)(*map(jnp.asarray, arrays))[0]
  )


def test_top_k_and_top_p_together_leave_what_transformers_leaves():
  rng = np.random.default_rng(0)
  for _ in range(300):
    logits = rng.normal(0, 3, 40).astype(np.float32)
    top_k, top_p = int(rng.integers(1, 40)), float(rng.uniform(0.05, 0.99))
    wanted = kept_by_transformers(logits, top_k, top_p)
    np.testing.assert_array_equal(kept_by_us(logits, top_k, top_p), wanted)


def test_tokens_as_likely_as_the_last_of_top_k_stay():
  logits = np.array([3.0, 1.0, 1.0, 0.0], np.float32)
  assert kept_by_us(logits, 2, 1.0).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
  "ids, cut_off",
  [
    ([5, 6, 7], True),
    ([5, 2, 0], False),
    ([5, 6, 2], False),
    ([0, 0, 0], False),  # a row that was never asked
  ],
)
def test_a_row_without_its_stop_was_cut_off(ids, cut_off):
  sampling = decode.Sampling(max_new_tokens=3, stop=(2,), pad_id=0)
  assert sampling_lib.is_cut_off(ids, sampling) == cut_off


@pytest.mark.parametrize("every", [1, 4, 50])
def test_a_stream_grows_into_what_generate_returns(params, every):
  batch = batch_of(LENGTHS)
  whole = generate(params, batch, max_new_tokens=9)
  sampling = decode.Sampling(max_new_tokens=9, stop=(NEVER,))
  parts = list(decode.stream(MODEL, params, batch, sampling, every=every))
  assert len(parts) == -(-9 // every)
  np.testing.assert_array_equal(parts[-1], whole)
  for i, part in enumerate(parts, 1):
    np.testing.assert_array_equal(part[:, : i * every], whole[:, : i * every])


def test_a_stream_ends_with_its_rows(params):
  batch = batch_of([20])
  first = int(generate(params, batch)[0, 0])
  sampling = decode.Sampling(max_new_tokens=9, stop=(first,))
  parts = list(decode.stream(MODEL, params, batch, sampling, every=1))
  assert len(parts) == 1


def test_log_likelihood_is_that_of_single_steps(params):
  batch = batch_of(LENGTHS)
  answers = generate(params, batch, max_new_tokens=3)
  wanted, lengths = np.zeros(4), batch["lengths"].copy()
  tokens = np.pad(batch["tokens"], ((0, 0), (0, 3)))
  mask = np.zeros(tokens.shape, bool)
  for answer in answers.T:
    logits = next_logits(params, tokens, batch["images"], lengths)
    wanted += np.asarray(jax.nn.log_softmax(logits))[np.arange(4), answer]
    tokens[np.arange(4), lengths], mask[np.arange(4), lengths] = answer, True
    lengths += 1
  found = decode.log_likelihood(
    MODEL,
    params,
    {
      "tokens": tokens,
      "images": batch["images"],
      "lengths": lengths,
      "loss_mask": mask,
    },
  )
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_prompts_are_padded_little_and_to_few_lengths():
  lengths = [decode.padded_length(n) for n in range(1, 2049)]
  assert lengths == sorted(lengths) and len(set(lengths)) == 40
  for n, length in enumerate(lengths, 1):
    assert 0 <= length - n < max(16, n / 8) and length % 16 == 0
    assert decode.padded_length(length) == length

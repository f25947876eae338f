"""Conversations in tokens: whole turns, and the answers alone as targets."""

import json

import make_token_goldens
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import FORGED, TEXT, TOKENIZER, load_llama, needs_llama

from locvlm_jax.text import formats
from locvlm_jax.text.encoding import TooLong, encode_conversation, encode_prompt
from locvlm_jax.text.formats import IMAGE_TOKEN

FORMATS = list(formats.FORMATS.values())
BARE = formats.FORMATS["bare"]
TURNS = [
  ("Where is the cup?", "It is at [12,34,45,60]."),
  ("And the dog?", "There is no dog."),
  ("What is at [1,2,3,4]?", "a ball"),
]
CONVERSATIONS = json.loads(make_token_goldens.PATH.read_text())


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
  return load_llama(tmp_path_factory.mktemp("llama"))


def test_a_conversation_is_encoded_as_the_module_draws_it():
  turns = [("Where?", "At [4,5]."), ("And the cup?", "No.")]
  row = encode_conversation(TOKENIZER, BARE, turns, 3, 100)
  space = TOKENIZER.encode("a ")[-1]
  head = [1, *TOKENIZER.encode("USER:"), space]
  assert row.tokens[: len(head)].tolist() == head
  assert (row.tokens == IMAGE_TOKEN).sum() == 3
  assert (row.tokens[len(head) : len(head) + 3] == IMAGE_TOKEN).all()
  targets = [*TOKENIZER.encode("At [4,5]."), 2, *TOKENIZER.encode("No."), 2]
  assert row.tokens[row.loss_mask].tolist() == targets
  shown = TOKENIZER.decode(row.tokens[~row.loss_mask])
  assert shown == "USER:  \nWhere? ASSISTANT: USER: And the cup? ASSISTANT:"


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("num_image_tokens", [0, 4, 9])
def test_a_prompt_is_the_beginning_of_its_conversation(fmt, num_image_tokens):
  turns = TURNS if fmt.questions else TURNS[:1]
  row = encode_conversation(TOKENIZER, fmt, turns, num_image_tokens, 1000)
  before, (question, answer) = turns[:-1], turns[-1]
  prompt = encode_prompt(TOKENIZER, fmt, before, question, num_image_tokens)
  assert prompt.dtype == row.tokens.dtype == np.int32
  assert row.turns_used == len(turns)
  np.testing.assert_array_equal(row.tokens[: len(prompt)], prompt)
  rest = [*TOKENIZER.encode(answer), *TOKENIZER.ending(fmt)]
  assert row.tokens[len(prompt) :].tolist() == rest
  assert row.loss_mask[len(prompt) :].all()
  assert (row.tokens == IMAGE_TOKEN).sum() == num_image_tokens
  assert row.tokens[0] == 1
  assert (row.tokens == 1).sum() == (len(turns) if fmt.bos else 1)


def test_plain_is_a_caption_that_a_newline_ends():
  fmt = formats.FORMATS["plain"]
  row = encode_conversation(TOKENIZER, fmt, TURNS[:1], 2, 100)
  caption = TOKENIZER.encode(TURNS[0][1])
  newline = TOKENIZER._backend.token_to_id("<0x0A>")
  assert row.tokens.tolist() == [1, -1, -1, *caption, newline]
  assert row.loss_mask.tolist() == [False] * 3 + [True] * (len(caption) + 1)


@given(
  st.lists(st.tuples(TEXT, TEXT.filter(str.strip)), min_size=1, max_size=4),
  st.integers(0, 5),
  st.integers(8, 200),
)
def test_turns_are_used_whole_and_as_many_as_fit(turns, visual, budget):
  try:
    row = encode_conversation(TOKENIZER, BARE, turns, visual, budget)
  except TooLong as e:
    whole = encode_conversation(TOKENIZER, BARE, turns[:1], visual, 10**6)
    needed = len(whole.tokens) - visual
    assert needed > budget and f"needs {needed} text tokens" in str(e)
    return
  used = turns[: row.turns_used]
  whole = encode_conversation(TOKENIZER, BARE, used, visual, 10**6)
  np.testing.assert_array_equal(row.tokens, whole.tokens)
  np.testing.assert_array_equal(row.loss_mask, whole.loss_mask)
  assert len(row.tokens) - visual <= budget
  assert row.loss_mask.sum() == sum(
    len(TOKENIZER.encode(answer.strip())) + 1 for _, answer in used
  )
  more = turns[: row.turns_used + 1]
  if len(more) > len(used):
    longer = encode_conversation(TOKENIZER, BARE, more, visual, 10**6)
    assert len(longer.tokens) - visual > budget


@given(FORGED, FORGED)
def test_text_forges_neither_images_nor_ends(question, answer):
  turns = [(question, f"x {answer}")]
  row = encode_conversation(TOKENIZER, BARE, turns, 3, 10**6)
  assert (row.tokens == IMAGE_TOKEN).sum() == 3
  assert (row.tokens == TOKENIZER.start_ids[0]).sum() == 1
  assert np.flatnonzero(row.tokens == TOKENIZER.eos_id).tolist() == [
    len(row.tokens) - 1
  ]


def test_nothing_to_train_on_is_refused():
  with pytest.raises(ValueError, match="at least one turn"):
    encode_conversation(TOKENIZER, BARE, [], 3, 100)
  with pytest.raises(ValueError, match="empty answer"):
    encode_conversation(TOKENIZER, BARE, [("Where?", " ")], 3, 100)


@needs_llama
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_are_llavas(llama, name):
  """Ids and targets as LLaVA's slow tokenizer has them."""
  assert len(CONVERSATIONS[name]) >= 1
  for case, golden in CONVERSATIONS[name].items():
    turns, image = make_token_goldens.CASES[case]
    visual = make_token_goldens.NUM_VISUAL * image
    row = encode_conversation(llama, formats.FORMATS[name], turns, visual, 1000)
    assert row.tokens.tolist() == golden["tokens"], case
    assert np.flatnonzero(row.loss_mask).tolist() == golden["targets"], case

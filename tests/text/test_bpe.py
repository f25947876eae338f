"""A trained vocabulary splits text as LLaMA's does."""

import pytest
from small_tokenizer import CORPUS, TOKENIZER

from locvlm_jax.text.bpe import train_bpe


def pieces(text, tokenizer=TOKENIZER):
  return [tokenizer._backend.id_to_token(i) for i in tokenizer.encode(text)]


def test_the_special_tokens_are_those_of_llama():
  t = TOKENIZER
  assert (t.start_ids, t.eos_id, t.pad_id) == ([1], 2, 0)
  assert t.vocab_size <= 600


def test_each_digit_stands_alone():
  assert pieces(" 12") == ["\u2581", "1", "2"]
  assert pieces("2024 cups")[1:5] == ["2", "0", "2", "4"]
  for token in TOKENIZER._backend.get_vocab():
    if not token.startswith("<0x"):
      assert token.isdigit() <= (len(token) == 1), token


def test_bytes_carry_what_the_vocabulary_lacks():
  assert pieces("\u00e9") == ["\u2581", "<0xC3>", "<0xA9>"]
  assert pieces("a\n")[-1] == "<0x0A>"


def test_a_vocabulary_has_room_for_its_bytes():
  with pytest.raises(ValueError, match="vocab_size 300 is below 354"):
    train_bpe(CORPUS, 300)

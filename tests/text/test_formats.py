"""Conversation formats are under their names, and LLaVA's word for word."""

from small_tokenizer import TOKENIZER

from locvlm_jax.text import formats
from locvlm_jax.text.encoding import encode_conversation


def test_formats_are_under_their_names():
  assert set(formats.FORMATS) == {"plain", "v0", "v1", "llama_2", "bare"}
  for name, fmt in formats.FORMATS.items():
    assert fmt.name == name and fmt.end


def test_v1_is_llavas_text():
  """LLaVA:llava/conversation.py, conv_vicuna_v1, rendered by hand."""
  turns = [
    ("Where is the cup?", "It is at [12,34,45,60]."),
    ("And the dog?", "There is no dog."),
  ]
  row = encode_conversation(TOKENIZER, formats.FORMATS["v1"], turns, 0, 1000)
  assert TOKENIZER.decode(row.tokens) == (
    "A chat between a curious user and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the user's"
    " questions. USER: Where is the cup? ASSISTANT: It is at [12,34,45,60]."
    " USER: And the dog? ASSISTANT: There is no dog."
  )

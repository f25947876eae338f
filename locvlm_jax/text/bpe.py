"""Trains a BPE vocabulary that splits text as LLaMA's does."""

import json
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from locvlm_jax.text import formats, prompts, sentencepiece_model
from locvlm_jax.text import tokenizer as tokenizer_lib

_SPECIALS = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2, as in LLaMA
_BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
_PRINTABLE = [chr(i) for i in range(33, 127)]


def wordings() -> list[str]:
  """Returns the questions and answers of the objectives, as texts to train on.

  Each comes often enough that its words become whole pieces.
  """
  templates = [
    *prompts.LOC_PRED["box"],
    *prompts.LOC_PRED["point"],
    *prompts.LOC_PRED_ANSWERS,
    *prompts.NEG_PRED_ANSWERS,
    *prompts.REV_LOC["box"],
    *prompts.REV_LOC["point"],
    *prompts.HELD_OUT,
  ]
  lines = [prompts.fill(t, obj="ball", a="ball", b="cup") for t in templates]
  bare = formats.FORMATS["bare"]
  return [f"{bare.start}{x}{bare.assistant} [ At" for x in lines] * 200


def train_bpe(texts: Iterable[str], vocab_size: int) -> tokenizer_lib.Tokenizer:
  """Learns a BPE vocabulary that is split as LLaMA's is.

  Words start with a mark for their space, each digit stands alone, and what
  the vocabulary lacks falls back to bytes: " 12" is "▁", "1", "2".

  Args:
    texts: lines of plain text; conversation formats included, if the model
      is to see "USER:" as few tokens.
    vocab_size: at most; specials, 256 bytes and ASCII come first.

  Raises:
    ValueError: no room for the part that comes first.
  """
  fixed = len(_SPECIALS) + len(_BYTES) + len(_PRINTABLE) + 1
  if vocab_size < fixed:
    raise ValueError(
      f"vocab_size {vocab_size} is below {fixed}, which the special tokens,"
      " bytes and ASCII characters need; raise it"
    )
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = _splitter()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[*_SPECIALS, *_BYTES],
    initial_alphabet=[*_PRINTABLE, sentencepiece_model.SPACE],
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  model = json.loads(backend.to_str())["model"]
  return _llama_like(model["vocab"], model["merges"])


def _splitter() -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Metaspace(
        replacement=sentencepiece_model.SPACE, prepend_scheme="first"
      ),
      pre_tokenizers.Digits(individual_digits=True),
      # Or else "cup?" and "cup." become pieces of their own, which a small
      # corpus can't teach to be the same cup.
      pre_tokenizers.Split(tokenizers.Regex("[?.,;!]"), "isolated"),
    ]
  )


def _llama_like(vocab: dict[str, int], merges: list) -> tokenizer_lib.Tokenizer:
  """Makes a tokenizer whose bytes, unlike its specials, are plain tokens."""
  model = models.BPE(
    vocab=vocab,
    merges=[tuple(m) for m in merges],
    unk_token="<unk>",
    fuse_unk=True,
    byte_fallback=True,
  )
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = _splitter()
  backend.decoder = decoders.Sequence(
    [
      decoders.Replace(sentencepiece_model.SPACE, " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  backend.add_special_tokens(
    [tokenizers.AddedToken(t, normalized=False) for t in _SPECIALS]
  )
  unk, bos, eos = _SPECIALS
  backend.post_processor = processors.TemplateProcessing(
    single=f"{bos} $A",
    pair=f"{bos} $A {bos}:1 $B:1",
    special_tokens=[(bos, vocab[bos])],
  )
  roles = dict(zip(tokenizer_lib.ROLES, (bos, eos, unk, unk), strict=True))
  return tokenizer_lib.Tokenizer(backend, roles)

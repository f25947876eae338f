"""Conversations as token ids with their loss mask.

A row is built from pieces that are tokenized one by one, so the mask comes
from the spans of the pieces and never from tokenizing a part again (which is
how LLaVA masked whole samples by accident, LLaVA:llava/train/train.py). With
the format "v1" or "bare", three visual tokens (-1) and two turns:

  piece   <s> USER:  -1 -1 -1 \\nWhere? ASSISTANT:  At [4,5]. </s>
  target   .   . .    .  .  .  .  .  .    .  .      x  x x x  x

  piece   USER: And the cup? ASSISTANT:  No. </s>
  target   .  .   .  .  .  .   .   .     x x  x
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from locvlm_jax.text import formats, prompts
from locvlm_jax.text import tokenizer as tokenizer_lib


class TooLong(ValueError):
  """A conversation whose first turn doesn't fit into the text budget."""


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A conversation in tokens.

  Attributes:
    tokens: int32 [n], IMAGE_TOKEN at visual positions.
    loss_mask: bool [n], True where the token is a target.
    turns_used: how many turns fitted into the budget.
    cut_off: how many tokens of the only turn did not.
    segments: int32 [n], the branch of each token of a tree (see `tree.py`);
      None: there is none.
  """

  tokens: Int32[np.ndarray, " n"]
  loss_mask: Bool[np.ndarray, " n"]
  turns_used: int
  cut_off: int = 0
  segments: Int32[np.ndarray, " n"] | None = None


def encode_conversation(
  tokenizer: tokenizer_lib.Tokenizer,
  fmt: formats.Format,
  turns: Sequence[prompts.Turn],
  num_image_tokens: int,
  max_text_tokens: int,
  cut: bool = False,
) -> Encoded:
  """Encodes a row for training: as many whole turns as fit.

  Args:
    tokenizer: text to ids.
    fmt: the conversation format.
    turns: questions and answers; the format "plain" takes the first answer
      as the caption.
    num_image_tokens: visual tokens of the row, 0 for text alone.
    max_text_tokens: budget of tokens that are not visual, specials included.
    cut: whether a first turn that doesn't fit is cut off at the budget, as
      LLaVA does; where its question alone fills it, there is no target.

  Raises:
    TooLong: the first turn doesn't fit, and is not to be cut.
    ValueError: no turns, or an answer without text.
  """
  if not turns:
    raise ValueError("a conversation needs at least one turn; it has none")
  tokens = encode_head(tokenizer, fmt, num_image_tokens)
  mask, used = [False] * len(tokens), 0
  for question, answer in turns if fmt.questions else turns[:1]:
    asked = _question(tokenizer, fmt, question, used, num_image_tokens)
    answered = _answer(tokenizer, fmt, answer)
    length = len(tokens) + len(asked) + len(answered) - num_image_tokens
    if length > max_text_tokens:
      break
    tokens += asked + answered
    mask += [False] * len(asked) + [True] * len(answered)
    used += 1
  if not used and not cut:
    raise TooLong(_too_long(turns[0], length, max_text_tokens))
  if not used:
    mask += [False] * len(asked) + [True] * len(answered)
    tokens += asked + answered
  end = max_text_tokens + num_image_tokens
  return Encoded(
    np.array(tokens[:end], np.int32),
    np.array(mask[:end], bool),
    max(used, 1),
    max(len(tokens) - end, 0),
  )


def encode_prompt(
  tokenizer: tokenizer_lib.Tokenizer,
  fmt: formats.Format,
  turns_before: Sequence[prompts.Turn],
  question: str,
  num_image_tokens: int,
) -> Int32[np.ndarray, " n"]:
  """Encodes a prompt; the answer's first token is the next to be generated.

  It is the beginning of encode_conversation([*turns_before, (question, a)]).

  Args:
    tokenizer: text to ids.
    fmt: the conversation format; "plain" ignores the question.
    turns_before: answered turns, such as in-context examples.
    question: the one to be answered.
    num_image_tokens: visual tokens, 0 for text alone.
  """
  tokens = encode_head(tokenizer, fmt, num_image_tokens)
  for i, (asked, answer) in enumerate(turns_before):
    tokens += _question(tokenizer, fmt, asked, i, num_image_tokens)
    tokens += _answer(tokenizer, fmt, answer)
  i = len(turns_before)
  tokens += _question(tokenizer, fmt, question, i, num_image_tokens)
  return np.array(tokens, np.int32)


def encode_head(
  tokenizer: tokenizer_lib.Tokenizer, fmt: formats.Format, num_image_tokens: int
) -> list[int]:
  """Encodes BOS and what comes up to the image, if there is one.

  Every prompt about as many pictures in this format begins with it.
  """
  if not num_image_tokens:
    return list(tokenizer.start_ids)
  image = [formats.IMAGE_TOKEN] * num_image_tokens
  return [*tokenizer.start_ids, *tokenizer.encode(fmt.start), *image]


def _question(tokenizer, fmt, question, index, num_image_tokens) -> list[int]:
  """Encodes a question up to its answer; the first one follows the image."""
  if not fmt.questions:
    return []
  bos = tokenizer.start_ids if fmt.bos and index else []
  first = "\n" if num_image_tokens else fmt.start
  before = fmt.user if index else first
  return [*bos, *tokenizer.encode(before + question.strip() + fmt.assistant)]


def _answer(tokenizer, fmt, answer: str) -> list[int]:
  """Encodes the space before an answer, the answer and its stop."""
  if not answer.strip():
    raise ValueError("a turn has an empty answer; leave the turn out")
  text = " " + answer.strip() if fmt.questions else answer.strip()
  encode = tokenizer.encode_after if fmt.questions else tokenizer.encode
  return [*encode(text), *tokenizer.ending(fmt)]


def _too_long(turn: prompts.Turn, length: int, limit: int) -> str:
  question, answer = turn
  return (
    f"the first turn needs {length} text tokens, {limit} are allowed:"
    f" {question[:40]!r} -> {answer[:40]!r}; raise the text length"
  )

"""Questions about one image as a tree: they share it, and see nothing else.

With two visual tokens and two questions:

  tokens    <s> USER: -1 -1  \\nWhere? [4,5].</s>  \\nIs it red? No.</s>
  segments   -1  -1   -1 -1     1       1   1         2        2  2

What comes up to the image is SHARED; a branch is what else the row of its
question alone would have. With the positions of that row (see
`models/kernels/segments.py`), a branch computes what the row would.
"""

from collections.abc import Sequence

import numpy as np

from locvlm_jax.text import encoding, formats, prompts
from locvlm_jax.text import tokenizer as tokenizer_lib

SHARED = -1


def encode_tree(
  tokenizer: tokenizer_lib.Tokenizer,
  fmt: formats.Format,
  turns: Sequence[prompts.Turn],
  num_image_tokens: int,
  max_text_tokens: int,
  cut: bool = False,
  *,
  most: int,
) -> encoding.Encoded:
  """Encodes as many whole turns as fit, each as a branch.

  A later turn that is too long is left out, and so are those after it.

  Args:
    tokenizer, fmt, turns, num_image_tokens: as of a conversation.
    max_text_tokens: budget of the row.
    cut: whether a first turn that doesn't fit is cut off.
    most: budget of what a turn alone would have as a row.

  Raises:
    TooLong: the first turn doesn't fit, and is not to be cut.
    ValueError: the format has no questions, whose caption would be predicted
      from the image, or there are no turns.
  """
  if not fmt.questions:
    raise ValueError(
      f"data.tree={most}: a format without questions has no branches; set"
      " data.tree=0 or prompt_format=v1."
    )
  shared = len(encoding.encode_head(tokenizer, fmt, num_image_tokens))
  left = max_text_tokens + num_image_tokens - shared
  budget, branches = min(most, max_text_tokens), []
  for turn in turns:
    try:
      one = encoding.encode_conversation(
        tokenizer, fmt, [turn], num_image_tokens, budget, cut and not branches
      )
    except encoding.TooLong:
      if branches:
        break
      raise
    left -= len(one.tokens) - shared
    if left < 0:
      break
    branches.append(one)
  return _joined(branches, shared)


def _joined(
  branches: Sequence[encoding.Encoded], shared: int
) -> encoding.Encoded:
  """Puts rows that begin alike behind one another, the beginning once."""
  first = branches[0]

  def joined(name: str) -> np.ndarray:
    start = getattr(first, name)[:shared]
    rest = (getattr(one, name)[shared:] for one in branches)
    return np.concatenate([start, *rest])

  sizes = [shared, *(len(one.tokens) - shared for one in branches)]
  return encoding.Encoded(
    joined("tokens"),
    joined("loss_mask"),
    len(branches),
    first.cut_off,
    np.repeat([SHARED, *range(1, len(sizes))], sizes).astype(np.int32),
  )

"""Questions about one image as a tree: they share it, and see nothing else.

  tokens    <s> USER: -1 -1 \\nWhere? ASSISTANT: [4,5].</s> \\nIs it? ASSISTANT: No.
  segments   -1  -1   -1 -1    1       1          1            2       2        2

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
) -> encoding.Encoded:
  """Encodes as many whole turns as fit, each as a branch.

  The arguments are those of `encoding.encode_conversation`.

  Raises:
    TooLong: the first turn doesn't fit, and is not to be cut.
    ValueError: the format has no questions, whose caption would be predicted
      from the image, or there are no turns.
  """
  if not fmt.questions:
    raise ValueError(
      "data.tree=True: a format without questions has no branches; set"
      " data.tree=False or prompt_format=v1."
    )
  rest = (num_image_tokens, max_text_tokens)
  alone = [
    encoding.encode_conversation(tokenizer, fmt, [t], *rest, cut or i > 0)
    for i, t in enumerate(turns)
  ]
  shared = len(encoding.encode_head(tokenizer, fmt, num_image_tokens))
  parts = [np.full(shared, SHARED, np.int32)]
  tokens, mask = [alone[0].tokens[:shared]], [alone[0].loss_mask[:shared]]
  left = max_text_tokens + num_image_tokens - shared
  for one in alone:
    size = len(one.tokens) - shared
    if size > left or (len(parts) > 1 and one.cut_off):
      break
    left -= size
    parts.append(np.full(size, len(parts), np.int32))
    tokens.append(one.tokens[shared:])
    mask.append(one.loss_mask[shared:])
  return encoding.Encoded(
    np.concatenate(tokens),
    np.concatenate(mask),
    len(parts) - 1,
    alone[0].cut_off,
    np.concatenate(parts),
  )

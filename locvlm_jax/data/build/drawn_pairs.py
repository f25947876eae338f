"""Draws a data set of so many pairs from all that there are.

The paper's Localize-Instruct has 200K question-answer pairs, fewer than the
images of train2017 give.
"""

import collections
import json
from collections.abc import Sequence

import numpy as np


def draw(lines: Sequence[str], num: int, seed: int) -> list[str]:
  """Draws `num` of the lines, evenly and by seed, in the order they have.

  Raises:
    ValueError: there are fewer.
  """
  if len(lines) < num:
    raise ValueError(
      f"--num_pairs={num}: there are {len(lines)} pairs; raise --max_pairs, or"
      " give more images."
    )
  rng = np.random.default_rng((seed, num))
  chosen = np.sort(rng.choice(len(lines), num, replace=False))
  return [lines[i] for i in chosen]


def count(lines: Sequence[str]) -> collections.Counter:
  """Counts the pairs of lines by their objective."""
  return collections.Counter(
    objective
    for line in lines
    for objective in json.loads(line)["provenance"]["objectives"]
  )

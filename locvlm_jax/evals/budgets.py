"""How many tokens an answer to a task may have.

`eval.max_new_tokens`, but for the tasks that `eval.max_new_tokens_of` names:
with ("*_qa=1024", "gqa=16") the first entry that fits a task decides.
"""

import dataclasses
import fnmatch
import re
from typing import Any

from locvlm_jax.evals.tasks import EVALS

_ENTRY = re.compile(r"([\w*?]+)=([1-9][0-9]{0,5})")
_FIELD = "eval.max_new_tokens_of"


@dataclasses.dataclass(frozen=True)
class Budgets:
  """The most tokens of an answer: of most tasks, and of some.

  Attributes:
    usual: of a task that no entry fits.
    entries: (name of a task or pattern, tokens).
  """

  usual: int
  entries: tuple[tuple[str, int], ...] = ()

  @classmethod
  def of(cls, evaluation: Any) -> "Budgets":
    """Reads `config.eval`.

    Raises:
      ValueError: an entry is no TASK=TOKENS, or fits no task.
    """
    entries = tuple(map(_entry, evaluation.max_new_tokens_of))
    return cls(evaluation.max_new_tokens, entries)

  def tokens(self, task: str) -> int:
    """Returns the most tokens of an answer to `task`."""
    fitting = (n for p, n in self.entries if fnmatch.fnmatchcase(task, p))
    return next(fitting, self.usual)


def _entry(text: str) -> tuple[str, int]:
  if not (found := _ENTRY.fullmatch(text)):
    raise ValueError(f"{_FIELD}: {text!r} is not like 'gqa=128'.")
  pattern, number = found.groups()
  if not fnmatch.filter(EVALS, pattern):
    raise ValueError(
      f"{_FIELD}: {text!r} fits no task; there are {', '.join(EVALS)}."
    )
  return pattern, int(number)

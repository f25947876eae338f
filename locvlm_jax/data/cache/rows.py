"""The records of one file, checked, as a cache keeps them."""

import dataclasses
import json
import os
from collections.abc import Callable

from locvlm_jax import files
from locvlm_jax.data.cache import entries, texts

_FACTS = "facts.json"


@dataclasses.dataclass(frozen=True)
class Rows:
  """Records as text, which are parsed when they are asked for.

  Attributes:
    texts: each record as json.
    names: of the file that each is about; "": none.
    facts: what else was found out about the file; json can hold it.
  """

  texts: texts.Texts
  names: texts.Texts
  facts: dict

  def __len__(self) -> int:
    return len(self.texts)

  def __getitem__(self, index: int) -> dict:
    return json.loads(self.texts[index])

  def save(self, folder: str) -> None:
    """Writes them to a folder, which is there."""
    self.texts.save(os.path.join(folder, "texts"))
    self.names.save(os.path.join(folder, "names"))
    files.write_json(os.path.join(folder, _FACTS), self.facts)

  @classmethod
  def load(cls, folder: str) -> "Rows":
    """Opens what `save` has written.

    Raises:
      DataError: it is damaged.
    """
    try:
      with open(os.path.join(folder, _FACTS), encoding="utf-8") as f:
        facts = json.load(f)
      texts_, names = (
        texts.Texts.load(os.path.join(folder, name))
        for name in ("texts", "names")
      )
    except (OSError, ValueError) as e:
      reason = f"is damaged ({e}): remove it, and it is made again."
      raise files.damaged(folder, reason) from None
    return cls(texts_, names, facts)


def read_once(path: str, maker: str, read: Callable[[], Rows]) -> Rows:
  """Reads a large file once, for all processes and later starts.

  Args:
    path: of the file.
    maker: see `entries.find_or_make`.
    read: reads and checks it.
  """
  folder = entries.find_or_make(path, maker, lambda to: read().save(to))
  return read() if folder is None else Rows.load(folder)

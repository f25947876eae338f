"""Many texts as two arrays, which processes share by mapping their files.

texts    "a cup", "", "two"
bytes    a _ c u p t w o
ends     5, 5, 8
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_BYTES, _ENDS = "bytes.npy", "ends.npy"


class Texts(Sequence):
  """A list of texts that takes no more memory than their bytes.

  Args:
    content: uint8, all texts one after the other in UTF-8.
    ends: int64, where each of them ends.
  """

  def __init__(self, content: np.ndarray, ends: np.ndarray):
    self._content, self._ends = content, ends

  @classmethod
  def of(cls, texts: Iterable[str]) -> "Texts":
    """Packs texts."""
    content, ends = bytearray(), []
    for text in texts:
      content += text.encode()
      ends.append(len(content))
    return cls(np.frombuffer(content, np.uint8), np.array(ends, np.int64))

  @classmethod
  def load(cls, folder: str) -> "Texts":
    """Maps what `save` has written; nothing is read before it is asked for.

    Raises:
      OSError, ValueError: the files are missing or damaged.
    """
    parts = (os.path.join(folder, name) for name in (_BYTES, _ENDS))
    return cls(*(np.load(path, mmap_mode="r") for path in parts))

  def save(self, folder: str) -> None:
    """Writes the texts below a folder, which is made."""
    os.makedirs(folder)
    np.save(os.path.join(folder, _BYTES), self._content)
    np.save(os.path.join(folder, _ENDS), self._ends)

  def __len__(self) -> int:
    return len(self._ends)

  def __getitem__(self, index: int) -> str:
    end = int(self._ends[index])
    begin = int(self._ends[index - 1]) if index % len(self) else 0
    return self._content[begin:end].tobytes().decode()

  def __iter__(self) -> Iterator[str]:
    content = memoryview(self._content)
    ends = self._ends.tolist()
    for begin, end in itertools.pairwise([0, *ends]):
      yield str(content[begin:end], "utf-8")

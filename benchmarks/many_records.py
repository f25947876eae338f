"""What many records cost: to open their file, again, and to stream them.

The file holds conversations without an image, alike but for their number. It is
written to a temporary folder, as is what the reader keeps of it, and both are
removed.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

from locvlm_jax import ASSETS
from locvlm_jax.bench import timing
from locvlm_jax.data import rows, stream
from locvlm_jax.data.records import Batch
from locvlm_jax.data.sources import conversations
from locvlm_jax.text import coords, formats, tokenizer

ROWS = 1600  # that are streamed after the first batch
_BATCH = 32
_RECORD = (
  '{"conversations":[{"from":"human","value":"Where is the cup?"},'
  '{"from":"gpt","value":"At the left."}]}'
)


@dataclasses.dataclass(frozen=True)
class Costs:
  """What a file of so many records costs, in CPU seconds of all threads.

  Attributes:
    first: to open the file and draw a batch, for the first time.
    later: the same in a process that comes later.
    rows: to draw `ROWS` more.
    memory: bytes of the first process at its peak.
    size: bytes of the file.
  """

  first: float
  later: float
  rows: float
  memory: float
  size: float


@functools.cache
def costs(num: int) -> Costs:
  """Measures a file of `num` records, each start in a process of its own."""
  with tempfile.TemporaryDirectory(prefix="locvlm_records_") as folder:
    path = os.path.join(folder, "records.json")
    write(path, num)
    first, _, memory = timing.in_subprocess(_opened, path, folder)
    later, drawn, _ = timing.in_subprocess(_opened, path, folder)
    return Costs(first, later, drawn, memory, os.path.getsize(path))


def write(path: str, num: int) -> None:
  """Writes a list of `num` conversations, a few thousand at a time."""
  with open(path, "w", encoding="utf-8") as f:
    f.write("[" + _RECORD)
    for begin in range(1, num, 4096):
      f.write((",\n" + _RECORD) * min(4096, num - begin))
    f.write("]")


def _opened(path: str, folder: str) -> tuple[float, float, float]:
  """Returns (seconds to the first batch, of `ROWS` more, peak of memory)."""
  os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
  began = time.process_time()
  batches = _stream(path)
  next(batches)
  opened = time.process_time()
  for _ in itertools.islice(batches, ROWS // _BATCH):
    pass
  drawn = time.process_time() - opened
  return opened - began, drawn, _peak()


def _peak() -> float:
  """Reads the most bytes that this process has had.

  Not getrusage's number, which a new process takes over from its parent.
  """
  with open("/proc/self/status", encoding="utf-8") as f:
    (line,) = [x for x in f if x.startswith("VmHWM")]
  return 1024.0 * int(line.split()[1])


def _stream(path: str) -> Iterator[Batch]:
  """Makes the batches that a run would train on."""
  spec = rows.RowSpec(
    tokenizer=tokenizer.Tokenizer.load(str(ASSETS / "micro_base")),
    format=formats.FORMATS["v1"],
    coords=coords.Coords(),
    geometry="square",
    image_size=96,
    num_visual=64,
    text_length=64,
    max_pairs=1,
    weights=(1.0, 1.0, 1.0),
  )
  order = stream.StreamSpec({"text": 1.0}, _BATCH, 0, window=8, threads=1)
  source = conversations.Conversations(path, str(pathlib.Path(path).parent))
  return stream.train_iterator({"text": source}, rows.RowMaker(spec), order)

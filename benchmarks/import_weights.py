"""Times the import of a LLaMA checkpoint onto four devices, and its memory.

  python -m benchmarks.import_weights --size 1B [--keep DIR]

Writes a checkpoint of random bfloat16 numbers, imports it onto four simulated
CPU devices (fsdp 2 x tensor 2) and prints the rate beside that of `cat FILES >
/dev/null`: with the files evicted from the page cache, and with the files in
it. For the first import it also prints the peak of the process's own memory
beyond the result.
"""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from absl import flags

from locvlm_jax import command

_SIZE = flags.DEFINE_enum(
  "size", "1B", ["tiny", "1B", "7B"], "Size of the model."
)
_KEEP = flags.DEFINE_string("keep", "", "Folder to write to and keep.")
_SHAPES = {
  "tiny": {"width": 256, "num_layers": 4, "num_heads": 4, "mlp_width": 704},
  "1B": {"width": 2048, "num_layers": 22, "num_heads": 16, "mlp_width": 5632},
  "7B": {"width": 4096, "num_layers": 32, "num_heads": 32, "mlp_width": 11008},
}


def llama_config(size: str):
  """Returns a LLaMA with as many key/value heads as query heads."""
  from locvlm_jax.models import llama

  shape = _SHAPES[size]
  heads = shape["num_heads"]
  return llama.LlamaConfig(
    **shape, num_kv_heads=heads, head_dim=shape["width"] // heads
  )


def write_random(directory: str, config) -> None:
  """Writes a checkpoint, one file for each layer and one for the rest."""
  import ml_dtypes
  import numpy as np
  import safetensors.numpy

  from locvlm_jax.weights.layouts import config_json, tables

  rng = np.random.default_rng(0)
  files: dict[str, dict] = {}
  for leaf in tables.llama_leaves(config):
    part = "rest" if leaf.layer is None else f"{leaf.layer:03}"
    files.setdefault(f"model-{part}.safetensors", {})[leaf.key] = leaf
  for name, leaves in files.items():
    tensors = {
      key: (rng.random(leaf.stored_shape, np.float32) - 0.5).astype(
        ml_dtypes.bfloat16
      )
      for key, leaf in leaves.items()
    }
    safetensors.numpy.save_file(tensors, os.path.join(directory, name))
  index = {key: name for name, leaves in files.items() for key in leaves}
  for name, content in (
    ("model.safetensors.index.json", {"weight_map": index}),
    ("config.json", config_json.llama_json(config)),
  ):
    with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
      json.dump(content, f)


def _files(directory: str) -> list[str]:
  names = sorted(n for n in os.listdir(directory) if n.endswith("tensors"))
  return [os.path.join(directory, name) for name in names]


def evict(paths: list[str]) -> None:
  """Evicts files from the page cache."""
  for path in paths:
    with open(path, "rb") as f:
      os.fsync(f.fileno())
      os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cat(paths: list[str]) -> float:
  """Returns the seconds that `cat` takes."""
  began = time.monotonic()
  with open(os.devnull, "wb") as null:
    subprocess.run(["cat", *paths], stdout=null, check=True)
  return time.monotonic() - began


class Memory(threading.Thread):
  """The peak of this process's anonymous memory, in bytes.

  Pages of files that are mapped belong to the page cache, and are not counted.
  """

  def __init__(self):
    super().__init__(daemon=True)
    self.peak, self._done = self.now(), threading.Event()

  @staticmethod
  def now() -> int:
    with open("/proc/self/status", encoding="ascii") as f:
      (line,) = (x for x in f if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

  def run(self) -> None:
    while not self._done.wait(0.005):
      self.peak = max(self.peak, self.now())

  def __exit__(self, *_) -> None:
    self._done.set()
    self.join()

  def __enter__(self):
    self.start()
    return self


def load(directory: str):
  """Imports a checkpoint.

  Returns:
    Seconds, peak bytes beyond the result, and bytes of the result.
  """
  import jax

  from locvlm_jax.parallel import sharding
  from locvlm_jax.weights.layouts import huggingface

  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  before = Memory.now()
  with Memory() as memory:
    began = time.monotonic()
    tensors, _ = huggingface.open_llama(directory)
    places = sharding.param_shardings(
      {f"llm/{path}": tensor for path, tensor in tensors.items()}, mesh
    )
    placed = {
      path: tensor.place(tensor.dtype, places[f"llm/{path}"])
      for path, tensor in tensors.items()
    }
    jax.block_until_ready(placed)
    seconds = time.monotonic() - began
  size = sum(x.nbytes for x in placed.values())
  return seconds, memory.peak - before - size, size


def main(argv: list[str]) -> None:
  """Prints a line for each state of the page cache."""
  del argv
  os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
  config = llama_config(_SIZE.value)
  directory = _KEEP.value or tempfile.mkdtemp()
  os.makedirs(directory, exist_ok=True)
  try:
    if not _files(directory):
      write_random(directory, config)
    paths = _files(directory)
    total = sum(os.path.getsize(path) for path in paths)
    print(f"{_SIZE.value}: {total / 1e9:.2f} GB in {len(paths)} files")
    for state in ("first", "evicted", "cached"):
      if state != "cached":
        evict(paths)
      theirs = cat(paths)
      if state != "cached":
        evict(paths)
      ours, extra, _ = load(directory)
      peak = f"  peak beyond the result {extra / 2**20:,.0f} MiB"
      print(
        f"{state:9s}  cat {total / theirs / 1e9:5.2f} GB/s  import"
        f" {total / ours / 1e9:5.2f} GB/s ({theirs / ours:.0%})"
        f"{peak if state == 'first' else ''}",
        flush=True,
      )
  finally:
    if not _KEEP.value:
      shutil.rmtree(directory)


if __name__ == "__main__":
  command.run(main)

"""Whether all of a model can be trained with the memory at hand."""

import concurrent.futures
import math
import multiprocessing
import os

from locvlm_jax.weights.layouts import huggingface

# Bytes of each parameter that is trained by AdamW (float32 master, gradient,
# two moments), and of one that stays as it is (bfloat16).
_TRAINED, _FROZEN = 16, 2
_ACTIVATIONS = 1.25  # what a step keeps besides, roughly
_GIB = 1 << 30


def parameters(llava: str) -> int:
  """Counts the parameters of a Llava of Hugging Face; reads no weights."""
  tensors, _ = huggingface.open_llava(llava)
  return sum(math.prod(t.shape) for t in tensors.values())


def at_hand() -> int:
  """Counts the bytes of this machine's devices, in a process of its own.

  A process that has looked at a device keeps it from others.
  """
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(_of_devices).result()


def _of_devices() -> int:
  import jax  # late: this runs in a process of its own

  stats = [d.memory_stats() for d in jax.local_devices()]
  if all(stats):
    return sum(s["bytes_limit"] for s in stats)
  return host_bytes("/proc/meminfo")


def host_bytes(meminfo: str) -> int:
  """Counts the bytes that programs can still have, with what files cache.

  Args:
    meminfo: Linux's /proc/meminfo; where it does not say, or is not there,
      the free pages are counted.
  """
  lines = []
  if os.path.exists(meminfo):
    with open(meminfo, encoding="ascii") as f:
      lines = [line.split() for line in f]
  known = [int(x[1]) << 10 for x in lines if x[:1] == ["MemAvailable:"]]
  free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  return known[0] if known else free


def choose(count: int, available: int) -> tuple[bool, str]:
  """Decides between all parameters and a LoRA.

  Args:
    count: of the model's parameters.
    available: bytes.

  Returns:
    (whether a LoRA is trained, why).

  Raises:
    ValueError: there is too little memory for either; names both numbers.
  """
  full, frozen = (n * count * _ACTIVATIONS for n in (_TRAINED, _FROZEN))
  said = f"{count / 1e6:,.0f} M parameters; {available / _GIB:.1f} GiB at hand"
  if full <= available:
    return False, f"all of adapter and LLM are trained: {said}"
  if frozen <= available:
    why = f"a LoRA is trained, as all would take {full / _GIB:.1f} GiB"
    return True, f"{why}: {said}"
  raise ValueError(
    f"{said}: even a LoRA would take {frozen / _GIB:.1f}. Name a smaller"
    " --model, or a machine with more."
  )

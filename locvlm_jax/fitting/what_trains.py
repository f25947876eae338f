"""Whether all of a model can be trained with the memory at hand, or a LoRA.

It goes by the estimate that `plan --device` prints and `train` begins with, of
the very config that `train` is going to be given.
"""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Sequence
from typing import Any

import jax

from locvlm_jax import agreement, assemble, command
from locvlm_jax.config import Config
from locvlm_jax.parallel import sharding
from locvlm_jax.training import program
from locvlm_jax.training.room import memory, proposals
from locvlm_jax.training.room.layout import Layout


def choose(whole: Sequence[str], lora: Sequence[str]) -> tuple[bool, str]:
  """Does as `decide`, for the devices here, in a process of its own.

  A process that has looked at a device keeps it from others.

  Args:
    whole: the flags of `train` with which adapter and LLM are trained.
    lora: those with which a LoRA is.
  """
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(_choose, whole, lora).result()


def _choose(whole: Sequence[str], lora: Sequence[str]) -> tuple[bool, str]:
  return decide(config_of(whole), config_of(lora), memory_at_hand())


def config_of(words: Sequence[str]) -> Config:
  """Makes the config that `train` makes of the same flags."""
  config, said, override = command.parsed(words)
  return agreement.adopt_start(config, said, override)


def memory_at_hand() -> int:
  """Counts the bytes of a device here; a CPU has the machine's."""
  of_host = host_bytes("/proc/meminfo") // jax.local_device_count()
  return program.device_memory() or of_host


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


def decide(whole: Config, lora: Config, has: int) -> tuple[bool, str]:
  """Decides between all of adapter and LLM, and a LoRA.

  Args:
    whole: the config with which all are trained.
    lora: that with which a LoRA is.
    has: bytes of each of the devices here.

  Returns:
    (whether a LoRA is trained, why).

  Raises:
    ValueError: there is too little memory for either; names all numbers.
  """
  room, at_hand = proposals.SAFE * has, f"{_gib(has)} of a device are at hand"
  needs = _needs(whole)
  if needs <= room:
    return False, (
      f"all of adapter and LLM are trained: by an estimate a step needs"
      f" {_gib(needs)}, and {at_hand}"
    )
  both = f"{_gib(needs)} for all of adapter and LLM"
  needs = _needs(lora)
  if needs <= room:
    return True, (
      f"a LoRA is trained: by an estimate a step needs {both},"
      f" {_gib(needs)} for a LoRA, and {at_hand}"
    )
  raise ValueError(
    f"by an estimate a step needs {both}, {_gib(needs)} for a LoRA, and only"
    f" {at_hand}. {_advice(lora, has)}"
  )


def _needs(config: Config) -> int:
  """Estimates the bytes that a step needs of each device."""
  layout, where = Layout.of(config), _devices(config)
  return memory.memory(config, layout, **where).total


def _devices(config: Config) -> dict[str, Any]:
  """Says of what kind the devices here are, and how they are arranged."""
  mesh = sharding.make_mesh(assemble.mesh_sizes(config))
  kind = mesh.devices.flat[0].device_kind
  return {"device_kind": kind, "shards": dict(mesh.shape)}


def _advice(config: Config, has: int) -> str:
  found = proposals.find(config, has, **_devices(config))
  if not found:
    return "Name a smaller --model, or use a machine with more."
  return f"A LoRA fits with {found.flags('--set ')}."


def _gib(size: int) -> str:
  return f"{size / 2**30:.2f} GiB"

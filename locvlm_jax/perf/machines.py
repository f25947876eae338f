"""Describes machines that are not present, to compile and plan for them.

A topology names a kind of device, and their number or arrangement:

  h200:1    a100:8    a100:2x8 (two nodes of eight)
  v5e:4x4   v6e:4x4   v4:2x2x2   v5p:2x2x4 (as Google names slices)
"""

import dataclasses
import math
import os
import re
import sys
import types
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Device:
  """One device, by its vendor's data sheet.

  Attributes:
    name: what jax's `device_kind` begins with.
    memory: bytes that a program can use.
    bandwidth: bytes a second of its memory.
    links: bytes a second that it sends within its node or slice.
    network: bytes a second that it sends to other nodes; 0 if it can't.
    cores: streaming multiprocessors of an NVIDIA GPU; 0 for a TPU.
    capability: compute capability of an NVIDIA GPU.
  """

  name: str
  memory: int
  bandwidth: float
  links: float
  network: float = 0.0
  cores: int = 0
  capability: tuple[int, int] = (0, 0)

  @property
  def is_gpu(self) -> bool:
    return self.cores > 0


_MIB = 2**20
_PCIE3, _PCIE4 = 16e9, 32e9  # bytes a second to the other cards of a host
# Memory of TPUs: what libtpu reports as available when a program needs more.
# Of NVIDIA GPUs: what they report, less one GiB for CUDA and NCCL.
DEVICES = {
  "a100": Device("NVIDIA A100-SXM4-80GB", 85_100_068_864 - GIB, 2.04e12,
                 300e9, 25e9, 108, (8, 0)),
  "a100-40": Device("NVIDIA A100-SXM4-40GB", 42_505_273_344 - GIB, 1.555e12,
                    300e9, 25e9, 108, (8, 0)),
  "b200": Device("NVIDIA B200", 179 * GIB - GIB, 7.7e12,
                 900e9, 50e9, 148, (10, 0)),
  "t4": Device("Tesla T4", 15_360 * _MIB - GIB, 0.32e12,
               _PCIE3, 0.0, 40, (7, 5)),
  "l4": Device("NVIDIA L4", 23_034 * _MIB - GIB, 0.3e12,
               _PCIE4, 0.0, 58, (8, 9)),
  "a10g": Device("NVIDIA A10G", 23_028 * _MIB - GIB, 0.6e12,
                 _PCIE4, 0.0, 80, (8, 6)),
  "rtx3090": Device("NVIDIA GeForce RTX 3090", 24_576 * _MIB - GIB, 0.936e12,
                    _PCIE4, 0.0, 82, (8, 6)),
  "rtx4090": Device("NVIDIA GeForce RTX 4090", 24_564 * _MIB - GIB, 1.008e12,
                    _PCIE4, 0.0, 128, (8, 9)),
  "rtx5090": Device("NVIDIA GeForce RTX 5090", 32_607 * _MIB - GIB, 1.792e12,
                    2 * _PCIE4, 0.0, 170, (12, 0)),
  "l40s": Device("NVIDIA L40S", 46_068 * _MIB - GIB, 0.864e12,
                 _PCIE4, 0.0, 142, (8, 9)),
  "a6000": Device("NVIDIA RTX A6000", 49_140 * _MIB - GIB, 0.768e12,
                  _PCIE4, 0.0, 84, (8, 6)),
  "h100": Device("NVIDIA H100 80GB HBM3", 85_045_215_232 - GIB, 3.35e12,
                 450e9, 50e9, 132, (9, 0)),
  "h200": Device("NVIDIA H200", 151_397_597_184 - GIB, 4.8e12,
                 450e9, 50e9, 132, (9, 0)),
  "v4": Device("TPU v4", 125 * GIB // 4, 1.23e12, 150e9),
  "v5e": Device("TPU v5 lite", 63 * GIB // 4, 0.82e12, 100e9),
  "v5p": Device("TPU v5", 9574 * GIB // 100, 2.77e12, 300e9),
  "v6e": Device("TPU v6 lite", 125 * GIB // 4, 1.64e12, 224e9),
}  # fmt: skip

# TPUs whose slices have three dimensions; those of the others have two.
_THREE_DIMENSIONAL = ("v4", "v5p")

# XLA's description of a GPU to compile for: its GpuTargetConfig as text.
# The names are XLA's, the numbers NVIDIA's.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared_optin}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} feature_extension: {extension} }}
  dnn_version: "9.10.0"
  driver_version: "13.0.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  name: "{name}"
  device_interconnect_info {{ active_links: {nvlinks} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""
_GENERATIONS = {
  8: {"shared": 167_936, "shared_optin": 166_912, "fpus": 64, "clock": 1.41,
      "l2": 40 * 2**20, "extension": "NONE", "nvlinks": 12},
  9: {"shared": 233_472, "shared_optin": 232_448, "fpus": 128, "clock": 1.98,
      "l2": 50 * 2**20, "extension": "ACCELERATED_FEATURES", "nvlinks": 18},
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Machine:
  """A machine of one kind of device.

  Attributes:
    topology: its name, such as "a100:2x8".
    device: its kind of device.
    shape: the arrangement, such as (2, 8): nodes and devices of each, or the
      dimensions of a TPU slice.
  """

  topology: str
  device: Device
  shape: tuple[int, ...]

  @property
  def num(self) -> int:
    """The number of devices."""
    return math.prod(self.shape)

  @property
  def nodes(self) -> int:
    """The number of nodes; 1 for a TPU slice."""
    return self.shape[0] if self.device.is_gpu and len(self.shape) > 1 else 1


def parse(topology: str) -> Machine:
  """Reads the name of a topology, such as "a100:2x8".

  Raises:
    ValueError: an unknown kind of device, or not an arrangement of its devices.
  """
  kind, _, shape = topology.partition(":")
  if kind not in DEVICES:
    raise ValueError(
      f"topology {topology!r}: {kind!r} is not one of {', '.join(DEVICES)};"
      " write, for example, a100:8, a100:2x8 or v5e:4x4."
    )
  device = DEVICES[kind]
  dims = tuple(map(int, shape.split("x"))) if _is_shape(shape) else ()
  slice_dims = 3 if kind in _THREE_DIMENSIONAL else 2
  allowed = (1, 2) if device.is_gpu else (slice_dims,)
  if len(dims) not in allowed or not math.prod(dims):
    form = {1: "8 or 2x8", 2: "4x4", 3: "2x2x4"}[allowed[0]]
    raise ValueError(
      f"topology {topology!r}: {shape!r} is no arrangement of {kind}; write"
      f" it as {form}."
    )
  return Machine(topology, device, dims)


def device(name: str) -> Device:
  """Finds a kind of device, or makes one of so much memory.

  Args:
    name: of `DEVICES`; or a size, as 24GB, of which CUDA takes one GiB.

  Raises:
    ValueError: it is neither.
  """
  if name.lower() in DEVICES:
    return DEVICES[name.lower()]
  size = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:GB|GiB)?", name, re.IGNORECASE)
  if size and float(size[1]) > 1:
    return Device("", int((float(size[1]) - 1) * GIB), math.inf, math.inf)
  raise ValueError(
    f"device {name!r}: neither a size, as 24GB, nor one of"
    f" {', '.join(DEVICES)}."
  )


def _is_shape(text: str) -> bool:
  return re.fullmatch(r"\d+(x\d+)*", text) is not None


def devices(machine: Machine) -> list[Any]:
  """Makes jax devices of the machine to compile for; nothing runs on them.

  Raises:
    ValueError: the compiler for that machine is not installed.
  """
  from jax.experimental import topologies

  try:
    if machine.device.is_gpu:
      described = topologies.get_topology_desc(
        platform="cuda",
        topology=_processes(machine),
        target_config=_description(machine.device),
      )
    else:
      megacore = len(machine.shape) == 3
      cores = {"chip_config_name": "megacore"} if megacore else {}
      described = topologies.get_topology_desc(
        platform="tpu", topology_name=machine.topology, **cores
      )
  except Exception as e:  # each compiler has its own way to be absent
    raise ValueError(_advice(machine, e)) from e
  return described.devices


def prepare(machine: Machine) -> None:
  """Keeps jax's compilers from looking for devices; call it before jax starts.

  Sets environment variables. For a TPU, CUDA's plugin is not even asked: it
  would complain that there is no GPU.
  """
  os.environ["JAX_PLATFORMS"] = "cpu"
  if not machine.device.is_gpu:
    for name in ("xla_cuda12", "xla_cuda13"):
      absent = types.ModuleType(f"jax_plugins.{name}")
      absent.initialize = lambda: None
      sys.modules[absent.__name__] = absent
  os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  # Without these libtpu asks a metadata server where it runs, and warns.
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")


def _advice(machine: Machine, error: Exception) -> str:
  return (
    f"topology {machine.topology}: no compiler for {machine.device.name}:"
    f" install it with pip install 'locvlm_jax[plan]'"
    f" (jax says: {str(error).strip().splitlines()[0][:200]})."
  )


def _processes(machine: Machine) -> str:
  """Returns "slices x processes in a slice x devices of a process"."""
  return f"1x{machine.nodes}x{machine.num // machine.nodes}"


def _description(device: Device) -> str:
  """Returns the GpuTargetConfig of a GPU."""
  major, minor = device.capability
  if (major, minor) not in ((8, 0), (9, 0)):
    raise ValueError(
      f"{device.name}: no description to compile for it; --device estimates"
    )
  return _GPU.format(
    name=device.name,
    cores=device.cores,
    major=major,
    memory=device.memory + GIB,
    bandwidth=int(device.bandwidth),
    **_GENERATIONS[major],
  )

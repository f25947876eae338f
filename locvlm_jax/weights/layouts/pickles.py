"""PyTorch's .bin files, read without running what a pickle asks for.

Such a file is a zip: NAME/data.pkl describes the tensors, NAME/data/0, 1, ...
hold their numbers. A pickle may call any function of any module. The reader
here knows the few names that a dict of tensors needs, each as a function of
its own, and refuses every other before anything is called.
"""

import collections
import dataclasses
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

from locvlm_jax import errors, files

_MAX_DESCRIPTION = 64 << 20  # bytes; a real one has about 100 a tensor
_STORAGES = {
  "DoubleStorage": np.float64, "FloatStorage": np.float32,
  "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16,
  "LongStorage": np.int64, "IntStorage": np.int32, "BoolStorage": np.bool_,
  "ByteStorage": np.uint8,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Storage:
  """A flat array of the file."""

  key: str
  dtype: np.dtype
  size: int


@dataclasses.dataclass(frozen=True)
class _View:
  """A tensor: a window on a storage; offset and strides in elements."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  @property
  def end(self) -> int:
    """One after the last element that it reaches."""
    if 0 in self.shape:
      return self.offset
    steps = zip(self.shape, self.strides, strict=True)
    return self.offset + 1 + sum((n - 1) * step for n, step in steps)


def _rebuild(storage, offset, shape, strides, *_) -> _View:
  view = _View(storage, offset, tuple(shape), tuple(strides))
  if min((offset, *view.shape, *view.strides)) < 0 or view.end > storage.size:
    raise pickle.UnpicklingError(f"a tensor outside of its storage: {view}")
  return view


def _parameter(view, *_) -> _View:
  return view


_KNOWN = {
  ("collections", "OrderedDict"): collections.OrderedDict,
  ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
  ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Unpickler(pickle.Unpickler):
  """Gives `_View`s for tensors; calls nothing but `_KNOWN`."""

  def find_class(self, module, name):
    if module == "torch" and name in _STORAGES:
      return name  # a string: nothing in it that a pickle could change
    try:
      return _KNOWN[module, name]
    except KeyError:
      raise pickle.UnpicklingError(
        f"it asks for {module}.{name}, which a file of weights has no need of"
      ) from None

  def persistent_load(self, pid):
    kind, name, key, _, size = pid
    if kind != "storage" or name not in _STORAGES:
      raise pickle.UnpicklingError(f"an unknown object {pid!r}")
    return _Storage(str(key), np.dtype(_STORAGES[name]), int(size))


class File:
  """The tensors of one .bin file; nothing but their description is read.

  Args:
    path: written by `torch.save` of PyTorch 1.6 or later.

  Raises:
    DataError: not such a file, truncated, or a pickle that wants more.
  """

  def __init__(self, path: str):
    self.path = path
    try:
      with zipfile.ZipFile(path) as archive:
        self._tensors = self._describe(archive)
        self._offsets = self._locate(archive)
    except OSError as error:
      raise errors.DataError(errors.describe(error)) from None
    except zipfile.BadZipFile as error:
      why = f"{error}: truncated, or older than PyTorch 1.6"
      raise files.damaged(path, why) from error
    except Exception as error:  # a broken pickle can raise anything
      raise files.damaged(path, error) from error

  def keys(self) -> list[str]:
    return list(self._tensors)

  def shape(self, key: str) -> tuple[int, ...]:
    return self._tensors[key].shape

  def dtype(self, key: str) -> np.dtype:
    return self._tensors[key].storage.dtype

  def read(self, key: str, index: tuple[slice, ...]) -> np.ndarray:
    view = self._tensors[key]
    dtype = view.storage.dtype
    if 0 in view.shape:
      return np.zeros(view.shape, dtype)[index]
    start = self._offsets[view.storage.key] + view.offset * dtype.itemsize
    flat = np.memmap(self.path, dtype, "r", start, view.end - view.offset)
    strides = [s * dtype.itemsize for s in view.strides]
    tensor = np.lib.stride_tricks.as_strided(flat, view.shape, strides)
    return np.array(tensor[index])

  def _describe(self, archive: zipfile.ZipFile) -> dict[str, _View]:
    (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
    self._root = name.removesuffix("data.pkl")
    if archive.getinfo(name).file_size > _MAX_DESCRIPTION:
      raise ValueError(f"{name} is larger than {_MAX_DESCRIPTION} bytes")
    with archive.open(name) as f:
      content = _Unpickler(f).load()
    if not isinstance(content, dict):
      raise ValueError(f"it holds a {type(content).__name__}, not a dict")
    for key, value in content.items():
      if not (isinstance(key, str) and isinstance(value, _View)):
        raise ValueError(
          f"{key!r:.100} is a {type(value).__name__}, not a tensor: write the"
          " dict of tensors alone"
        )
    return dict(content)

  def _locate(self, archive: zipfile.ZipFile) -> dict[str, int]:
    """Where in the file each storage begins."""
    storages = {v.storage.key: v.storage for v in self._tensors.values()}
    offsets = {}
    for key, storage in storages.items():
      info = archive.getinfo(f"{self._root}data/{key}")
      size = storage.size * storage.dtype.itemsize
      if info.compress_type != zipfile.ZIP_STORED or info.file_size < size:
        raise ValueError(f"{info.filename} is compressed or too short")
      offsets[key] = _data_offset(self.path, info)
      if offsets[key] + size > os.path.getsize(self.path):
        raise ValueError(f"{info.filename} ends outside of the file")
    return offsets


def _data_offset(path: str, info: zipfile.ZipInfo) -> int:
  """After the local header, whose extra field the directory does not give."""
  with open(path, "rb") as f:
    f.seek(info.header_offset)
    header = f.read(30)
  name_length, extra_length = struct.unpack("<HH", header[26:30])
  return info.header_offset + len(header) + name_length + extra_length

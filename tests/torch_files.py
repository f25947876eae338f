"""Writes PyTorch's .bin files without PyTorch, for the tests."""

import collections
import io
import pickle
import zipfile

import ml_dtypes
import numpy as np

_STORAGES = {
  np.dtype(np.float32): b"FloatStorage",
  np.dtype(np.int64): b"LongStorage",
  np.dtype(ml_dtypes.bfloat16): b"BFloat16Storage",
}


class _Tensor:
  """Pickled as torch._utils._rebuild_tensor_v2(storage, ...)."""

  def __init__(self, key: str, array: np.ndarray):
    self.key, self.array = key, array


class _Pickler(pickle._Pickler):
  """The Python pickler, which can be made to name what is not installed."""

  dispatch = dict(pickle._Pickler.dispatch)

  def save_tensor(self, tensor):
    array = tensor.array
    storage = _STORAGES[array.dtype]
    self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
    self.write(b"(")
    self.save("storage")
    self.write(b"ctorch\n" + storage + b"\n")
    for value in (tensor.key, "cpu", array.size):
      self.save(value)
    self.write(b"tQ")  # a persistent id
    strides = tuple(s // array.itemsize for s in array.strides)
    for value in (0, array.shape, strides, False, collections.OrderedDict()):
      self.save(value)
    self.write(b"tR")

  dispatch[_Tensor] = save_tensor


def write(path: str, tensors: dict[str, np.ndarray]) -> None:
  """As `torch.save(tensors, path)` of PyTorch 1.6 or later.

  An array whose memory is a transposed one keeps its strides.
  """
  described = {
    name: _Tensor(str(i), x) for i, (name, x) in enumerate(tensors.items())
  }
  description = io.BytesIO()
  _Pickler(description, protocol=2).dump(described)
  write_raw(path, description.getvalue(), list(tensors.values()))


def write_raw(path: str, description: bytes, arrays: list) -> None:
  """A .bin file with this data.pkl."""
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", description)
    for i, array in enumerate(arrays):
      numbers = array.ravel(order="K").tobytes()
      archive.writestr(f"archive/data/{i}", numbers)

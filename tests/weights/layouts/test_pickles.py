"""PyTorch's files: read without executing anything that is in them."""

import os
import pathlib
import pickle

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch_files
from model_kinds import same

from locvlm_jax.weights.layouts import huggingface, pickles


def _as_bin(directory, dtype=np.float32):
  """Replaces the safetensors file of a directory by PyTorch's."""
  path = pathlib.Path(directory, "model.safetensors")
  tensors = safetensors.numpy.load_file(path)
  path.unlink()
  tensors = {k: v.astype(dtype) for k, v in tensors.items()}
  torch_files.write(str(path.with_name("pytorch_model.bin")), tensors)
  return tensors


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_pytorch_files_are_read(llama_dir, dtype):
  before, _ = huggingface.load_llama(llama_dir)
  _as_bin(llama_dir, dtype)
  after, _ = huggingface.load_llama(llama_dir)
  same(after, jax.tree.map(lambda x: x.astype(dtype), before))


def test_strides_of_pytorch_files(tmp_path):
  x = np.arange(24, dtype=np.float32).reshape(4, 6)
  path = str(tmp_path / "x.bin")
  torch_files.write(path, {"a": x, "b": x.T, "c": x[:0]})
  file = pickles.File(path)
  assert [file.shape(k) for k in "abc"] == [(4, 6), (6, 4), (0, 6)]
  np.testing.assert_array_equal(file.read("a", np.s_[1:3, 2:]), x[1:3, 2:])
  np.testing.assert_array_equal(file.read("b", np.s_[1:3, 2:]), x.T[1:3, 2:])


class _Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (self.path,)


def test_a_pickle_is_not_executed(llama_dir, tmp_path):
  _as_bin(llama_dir)
  target = str(tmp_path / "made")
  torch_files.write_raw(
    os.path.join(llama_dir, "pytorch_model.bin"),
    pickle.dumps({"model.norm.weight": _Malicious(target)}),
    [],
  )
  with pytest.raises(ValueError, match=r"pytorch_model.bin: .*\.mkdir"):
    huggingface.load_llama(llama_dir)
  assert not os.path.exists(target)


def test_broken_pytorch_files_are_named(llama_dir):
  _as_bin(llama_dir)
  path = pathlib.Path(llama_dir, "pytorch_model.bin")
  path.write_bytes(path.read_bytes()[:-400])
  with pytest.raises(ValueError, match="pytorch_model.bin: .*truncated"):
    huggingface.load_llama(llama_dir)


def test_a_view_outside_of_its_storage_is_refused(tmp_path):
  path = str(tmp_path / "x.bin")
  x = np.zeros((8, 8), np.float32)
  beyond = np.lib.stride_tricks.as_strided(x, (8, 8), (64, 4))
  torch_files.write(path, {"a": beyond})
  with pytest.raises(ValueError, match="outside of its storage"):
    pickles.File(path)

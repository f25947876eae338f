"""Tensors from files onto devices, each device its own part."""

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import SingleDeviceSharding
from model_kinds import ALL, name_of, same
from toy_models import CONFIG, params_of

from locvlm_jax.parallel import sharding
from locvlm_jax.weights import placement
from locvlm_jax.weights.layouts import export, huggingface, tensor_files


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("config", ALL[1:], ids=name_of)
@pytest.mark.parametrize("shape", [{}, {"fsdp": 2, "tensor": 2}, {"data": 4}])
def test_tensors_go_to_their_devices(config, dtype, shape, tmp_path):
  params = params_of(config, np.float32)
  export.save_llava(str(tmp_path / "out"), params, config)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  wanted = traverse_util.flatten_dict(params, sep="/")
  assert tensors.keys() == wanted.keys()
  places = dict.fromkeys(wanted, SingleDeviceSharding(jax.devices()[0]))
  if shape:
    mesh = sharding.make_mesh(shape)
    places = sharding.param_shardings(wanted, mesh)
  for path, tensor in tensors.items():
    placed = tensor.place(dtype, places[path])
    assert placed.sharding == places[path]
    same(np.asarray(placed), np.asarray(wanted[path]).astype(dtype))


@pytest.mark.parametrize("layers", [1, 2])
def test_layers_go_to_their_devices_in_runs(layers, tmp_path, monkeypatch):
  """What keeps host memory small where devices have a memory of their own."""
  params = params_of(CONFIG)
  export.save_llava(str(tmp_path / "out"), params, CONFIG)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  wanted = traverse_util.flatten_dict(params, sep="/")
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  places = sharding.param_shardings(wanted, mesh)
  monkeypatch.setattr(
    placement.Tensor,
    "_layers_at_a_time",
    lambda self, *_: min(layers, len(self.parts)),
  )
  for path in ("llm/layers/mlp/gate", "vision/layers/attention/q", "llm/head"):
    placed = tensors[path].place(np.float32, places[path])
    assert placed.sharding == places[path]
    same(np.asarray(placed), np.asarray(wanted[path]))


def test_a_device_reads_its_own_slice(tmp_path, monkeypatch):
  params = params_of(CONFIG)
  export.save_llava(str(tmp_path / "out"), params, CONFIG)
  tensors, _ = huggingface.open_llava(str(tmp_path / "out"))
  shapes = []
  original = tensor_files._Safetensors.read

  def spy(self, key, index):
    part = original(self, key, index)
    shapes.append(part.shape)
    return part

  monkeypatch.setattr(tensor_files._Safetensors, "read", spy)
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  tensor = tensors["llm/layers/mlp/gate"]  # [L, D, F], stored as [F, D]
  num_layers, width, hidden = tensor.shape
  tensor.place(
    np.float32,
    sharding.param_shardings({"llm/layers/mlp/gate": tensor}, mesh)[
      "llm/layers/mlp/gate"
    ],
  )
  assert shapes == [(hidden // 2, width // 2)] * 4 * num_layers

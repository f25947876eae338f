"""The variables by which processes find each other."""

import pytest

from locvlm_jax import errors
from locvlm_jax.parallel import environment
from locvlm_jax.parallel.environment import Processes

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "localhost:1234"}


def read(count, index=None, **more):
  names = {"JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": index}
  given = {k: v for k, v in names.items() if v is not None}
  return environment.processes(given | more)


def test_one_process_is_what_is_meant_where_nothing_is_set():
  assert read(None) == read("") == read("1") == Processes()
  assert read("", "", JAX_COORDINATOR_ADDRESS="") == Processes()
  assert read("1", "0", **ADDRESS) == Processes()


def test_several_processes_are_read():
  assert read("auto") == Processes(count=0)
  assert read("2", "1", **ADDRESS) == Processes(2, 1, "localhost:1234")
  (address,) = ("[::1]:1234",)
  found = read("2", "0", JAX_COORDINATOR_ADDRESS=address)
  assert found.coordinator == address


@pytest.mark.parametrize(
  "given, message",
  [
    (("2",), "JAX_PROCESS_ID is not set"),
    (("2", "1"), "JAX_COORDINATOR_ADDRESS='': use host:port"),
    (("2", "2"), "JAX_PROCESS_ID=2: use 0 to 1, since JAX_NUM_PROCESSES=2"),
    (("2", "one"), "JAX_PROCESS_ID='one': use 0 to 1"),
    (("two", "0"), "JAX_NUM_PROCESSES='two': use 1, 2"),
    (("0", "0"), "JAX_NUM_PROCESSES='0'"),
    (("-1", "0"), "JAX_NUM_PROCESSES='-1'"),
    ((None, "1"), "JAX_PROCESS_ID='1' is set and JAX_NUM_PROCESSES is not"),
  ],
)
def test_a_wrong_variable_is_named(given, message):
  with pytest.raises(ValueError, match=message):
    read(*given)


@pytest.mark.parametrize(
  "ids, count, message",
  [
    ("gpu0", "2", "='gpu0': use numbers of GPUs"),
    ("0,", "2", "='0,': use numbers"),
    ("-1", "auto", "='-1': use numbers"),
    ("1, 1", "2", "names a GPU twice"),
    ("0", None, "='0' is set and JAX_NUM_PROCESSES='': a single process"),
  ],
)
def test_wrong_devices_of_a_process_are_named(ids, count, message):
  with pytest.raises(ValueError, match="JAX_LOCAL_DEVICE_IDS.*" + message):
    read(count, "0", JAX_LOCAL_DEVICE_IDS=ids, **ADDRESS)


def test_a_process_may_have_some_devices_of_its_host():
  found = read("2", "1", JAX_LOCAL_DEVICE_IDS="0, 3", **ADDRESS)
  assert found == Processes(2, 1, "localhost:1234")


@pytest.mark.parametrize("address", ["", "node", "node:", ":1", "n:x", "n:0"])
def test_an_address_needs_host_and_port(address):
  with pytest.raises(ValueError, match="JAX_COORDINATOR_ADDRESS="):
    read("2", "0", JAX_COORDINATOR_ADDRESS=address)


@pytest.mark.parametrize("raised", ["assert False", "raise RuntimeError('no')"])
def test_a_kind_of_device_that_is_not_there_is_one_line(raised, monkeypatch):
  where = "site-packages/jax/_src/xla_bridge.py"
  with pytest.raises((AssertionError, RuntimeError)) as caught:
    exec(compile(raised, where, "exec"), {})
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  assert errors.code(caught.value) == errors.BAD_CONFIG
  assert "JAX_PLATFORMS='cuda': no such" in errors.describe(caught.value)

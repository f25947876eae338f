"""Checkpoints: damage is found, named and moved aside; what stays and why."""

import gc
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from locvlm_jax import errors
from locvlm_jax.parallel import sharding
from locvlm_jax.weights import checkpoints, checksums, retention

# What Orbax leaves behind when a read fails.
pytestmark = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def _leave_nothing_behind():
  yield
  gc.collect()


def _items(step: int) -> dict:
  """An item with every kind of leaf, another at every step."""
  key = jax.random.key(step)
  return {
    "params": {
      "trainable": {"a/b": jax.random.normal(key, (64, 64))},
      "frozen": {"c": jax.random.normal(key, (512,)).astype(jnp.bfloat16)},
    },
    "optimizer": {"step": jnp.int32(step), "done": jnp.zeros((3,), bool)},
  }


def _checkpoints(path, **change) -> checkpoints.Checkpoints:
  return checkpoints.Checkpoints(str(path), **change)


def _saved(path, steps=(10, 20), **change) -> str:
  saved = _checkpoints(path, **change)
  for step in steps:
    saved.save(step, _items(step), {"next_step": step, "config": {"x": [1]}})
  saved.close()
  return str(path)


def _newest(path):
  saved = _checkpoints(path)
  found = saved.newest(_items(0), lambda info: None)
  saved.close()
  return found


def _same(tree, other) -> bool:
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def _largest(folder: str) -> str:
  """The file that holds the arrays."""
  files = [
    os.path.join(d, f)
    for d, _, fs in os.walk(folder)
    for f in fs
    if os.path.basename(d) == "d"
  ]
  return max(files, key=os.path.getsize)


def _flip(path: str, bit: int) -> None:
  with open(path, "r+b") as f:
    f.seek(bit // 8)
    byte = f.read(1)[0]
    f.seek(bit // 8)
    f.write(bytes([byte ^ 1 << bit % 8]))


def _bit_flip(step: str) -> None:
  path = _largest(f"{step}/params")
  _flip(path, 8 * (os.path.getsize(path) // 2) + 3)


def _truncate(step: str) -> None:
  path = _largest(f"{step}/params")
  os.truncate(path, os.path.getsize(path) // 2)


def _empty(step: str) -> None:
  shutil.rmtree(step)
  os.mkdir(step)


def _partial_copy(step: str) -> None:
  shutil.rmtree(f"{step}/optimizer")


def _garbage_json(step: str) -> None:
  with open(f"{step}/info/metadata", "w") as f:
    f.write('{"next_step": ')


def _other_json(step: str) -> None:
  with open(f"{step}/info/metadata") as f:
    text = f.read()
  with open(f"{step}/info/metadata", "w") as f:
    f.write(text.replace('"next_step": 20', '"next_step": 28'))


def _link(step: str) -> None:
  shutil.rmtree(step)
  os.symlink(os.path.join(os.path.dirname(step), "10"), step)


DAMAGE = {
  "bit flip": _bit_flip,
  "truncated": _truncate,
  "deleted file": lambda step: os.remove(_largest(f"{step}/params")),
  "deleted manifest": lambda s: os.remove(f"{s}/params/manifest.ocdbt"),
  "empty directory": _empty,
  "partial copy": _partial_copy,
  "no commit file": lambda step: os.remove(f"{step}/commit_success.txt"),
  "garbage json": _garbage_json,
  "other json": _other_json,
  "link": _link,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_moved_aside_and_the_step_before_used(
  kind, tmp_path, capsys
):
  path = _saved(tmp_path / "c")
  DAMAGE[kind](f"{path}/20")
  step, items = _newest(path)
  assert step == 10 and _same(items, _items(10))
  assert "checkpoint 20: " in capsys.readouterr().out
  assert not os.path.lexists(f"{path}/20")
  name = "unfinished" if kind == "empty directory" else "20"
  assert os.listdir(f"{path}.damaged") == [name]
  # The step can be saved again.
  _saved(path, steps=(20,))
  step, items = _newest(path)
  assert step == 20 and _same(items, _items(20))


def test_every_flipped_bit_of_the_arrays_is_found(tmp_path):
  """20 places of the data file; Orbax alone notices none or one of them."""
  path = _saved(tmp_path / "c", steps=(10,))
  file = _largest(f"{path}/10/params")
  saved = _checkpoints(path)
  like, rng = _items(0)["params"], np.random.default_rng(0)
  good = saved.restore(10, "params", like)
  for bit in rng.integers(0, 8 * os.path.getsize(file), 20):
    _flip(file, int(bit))
    try:
      assert _same(saved.restore(10, "params", like), good)  # unused byte
    except AssertionError:
      raise
    except Exception:
      pass
    _flip(file, int(bit))
  assert _same(saved.restore(10, "params", like), good)


def test_no_good_checkpoint_never_starts_from_nothing(tmp_path):
  path = _saved(tmp_path / "c")
  _bit_flip(f"{path}/10")
  _truncate(f"{path}/20")
  with pytest.raises(errors.NoCheckpoint, match="holds 10, 20"):
    _newest(path)
  with pytest.raises(errors.NoCheckpoint):  # nor at the next attempt
    _newest(path)


def test_a_first_save_cut_short_is_no_checkpoint(tmp_path):
  path = tmp_path / "c"
  (path / "10" / "params").mkdir(parents=True)
  assert _newest(path) is None
  assert os.listdir(f"{path}.damaged") == ["unfinished"]


def test_opened_arrays_are_checked_too(tmp_path):
  path = _saved(tmp_path / "c", steps=(10,))
  saved = _checkpoints(path, read_only=True)
  array = saved.open(10, "params")["a/b"]
  expected = np.asarray(_items(10)["params"]["trainable"]["a/b"])
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  assert np.array_equal(array.read(), expected)
  assert array.place(jnp.bfloat16, where).dtype == jnp.bfloat16
  with open(_largest(f"{path}/10/params"), "r+b") as f:
    f.write(os.urandom(os.path.getsize(f.name)))
  for read in (array.read, lambda: array.place(jnp.float32, where)):
    with pytest.raises(Exception):  # noqa: B017  Orbax's or ours
      read()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool"])
def test_checksum_is_of_the_values_not_of_the_mesh(dtype):
  x = jnp.arange(64).reshape(8, 8).astype(dtype)
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  for spec in ((), ("fsdp",), ("fsdp", "tensor"), (None, "tensor")):
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    moved = jax.device_put(x, where)
    assert checksums._audit(moved)[0] == checksums._audit(x)[0], spec
  if dtype != "bool":  # two words that change places
    y = x.at[0, 0].set(x[0, 1]).at[0, 1].set(x[0, 0])
    assert checksums._audit(y)[0] != checksums._audit(x)[0]


def test_not_finite_is_never_saved(tmp_path):
  saved = _checkpoints(tmp_path / "c")
  items = _items(1)
  items["params"]["frozen"]["c"] = jnp.array([1.0, jnp.inf])
  with pytest.raises(errors.NotFinite, match="frozen/c"):
    saved.save(1, items, {})
  saved.close()
  assert os.listdir(tmp_path / "c") == []


def test_what_stays(tmp_path):
  keep = retention.Retention(latest=2, best=1, metric="loss", pinned=(3, 5))
  saved = _checkpoints(tmp_path / "c", every=2, keep=keep)
  losses = {2: 9.0, 3: 8.0, 4: 1.0, 5: 5.0, 6: 6.0, 8: 7.0, 10: 8.0}
  for step in range(1, 11):
    metrics = {"loss": losses.get(step, 0.0)}
    saved.save(step, _items(step), {}, metrics=metrics)
  saved.close()
  # The best, the pinned and the last two.
  assert _checkpoints(tmp_path / "c").steps == [3, 4, 5, 8, 10]


def test_more_is_better(tmp_path):
  keep = retention.Retention(latest=1, best=1, metric="-accuracy")
  saved = _checkpoints(tmp_path / "c", keep=keep)
  for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.1)):
    saved.save(step, _items(step), {}, metrics={"accuracy": accuracy})
  saved.close()
  assert _checkpoints(tmp_path / "c").steps == [2, 3]


def test_failed_save_is_noticed_before_the_next(tmp_path, monkeypatch):
  saved = _checkpoints(tmp_path / "c", every=10)
  saved.save(10, _items(10), {})
  saved.wait()

  def full(self, *args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(
    checkpoints.ocp.CheckpointManager, "_finalize_checkpoint", full
  )
  with pytest.raises(errors.SaveFailed, match="No space left.*MiB free"):
    saved.save(20, _items(20), {})
    for step in range(21, 30):
      jax.block_until_ready(jnp.ones((200, 200)) @ jnp.ones((200, 200)))
      saved.wait() if step == 29 else saved.save(step, _items(step), {})


def test_room_for_one_more_checkpoint_is_checked_at_the_start(
  tmp_path, monkeypatch, capsys
):
  saved = _checkpoints(tmp_path / "c")
  usage = shutil.disk_usage(tmp_path)
  saved.check_room(_items(0))
  assert capsys.readouterr().out == ""
  free = 50_000
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
  saved.check_room(_items(0))  # two fit, and three are kept for a moment
  said = capsys.readouterr().out
  assert "3 checkpoints of 17,415 bytes" in said and "2 fit into" in said
  free = 17_000
  with pytest.raises(errors.SaveFailed, match="a checkpoint of 17,415 bytes"):
    saved.check_room(_items(0))

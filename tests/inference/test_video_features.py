"""Features of videos on disk: the same numbers, made once."""

import dataclasses
import functools
import os
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from toy_models import CONFIG, params_of

from locvlm_jax.data import clips as clips_lib
from locvlm_jax.data import images
from locvlm_jax.inference import video_features
from locvlm_jax.models import locvlm
from locvlm_jax.models import params as params_lib
from locvlm_jax.models import video as video_lib
from locvlm_jax.parallel import sharding

MODEL = locvlm.LocVLM(
  dataclasses.replace(CONFIG, video=video_lib.VideoConfig(3, 4, 2))
)
CLIPS = clips_lib.Clips(3, "square", 16)


@pytest.fixture(scope="module")
def params():
  return params_of(CONFIG)


@pytest.fixture
def films(tmp_path):
  """Three GIFs, the last of which is damaged."""
  paths = []
  for i in range(3):
    frames = [Image.new("RGB", (20, 10), (90 * i, 40 * t, 9)) for t in range(4)]
    paths.append(str(tmp_path / f"{i}.gif"))
    frames[0].save(paths[-1], save_all=True, append_images=frames[1:])
  data = pathlib.Path(paths[-1]).read_bytes()
  pathlib.Path(paths[-1]).write_bytes(data[:-9])
  return paths


def cache_of(tmp_path, params, clips=CLIPS, model=MODEL):
  return video_features.open_cache(
    str(tmp_path / "cache"), model, params_lib.flatten(params), clips
  )


def fill(cache, params, paths, **mesh):
  mesh = sharding.make_mesh(mesh or {"data": 2, "tensor": 2})
  video_features.fill(cache, MODEL, params, paths, mesh, threads=2)


@pytest.fixture
def reads(monkeypatch):
  """Names of the videos that were decoded."""
  seen, read = [], clips_lib.Clips.read

  def counted(self, path, *change):
    seen.append(os.path.basename(path))
    return read(self, path, *change)

  monkeypatch.setattr(clips_lib.Clips, "read", counted)
  return seen


def test_an_entry_is_what_the_tower_makes(tmp_path, params, films):
  cache = cache_of(tmp_path, params)
  fill(cache, params, films)
  for path in films[:2]:
    got, size = cache.fields(path)
    assert got["images"].shape == cache.blank()["images"].shape
    assert got["images"].dtype == np.float16 and size == (20, 10)
    clip, num, _ = CLIPS.read(path)
    given = video_lib.VideoBatch(clip[None, None], np.array([[num]], np.int32))
    run = jax.jit(functools.partial(MODEL.apply, method="visual_features"))
    wanted = run({"params": params}, given)
    np.testing.assert_allclose(got["images"], wanted[0], rtol=1e-3, atol=1e-3)
  one, other = (cache.fields(p)[0]["images"] for p in films[:2])
  assert abs(one - other).max() > 0.01


def test_damaged_videos_are_told_and_left_out(tmp_path, params, films, caplog):
  cache = cache_of(tmp_path, params)
  fill(cache, params, films)
  assert films[2] in caplog.text and not cache.has(films[2])
  with pytest.raises(images.BadImage, match="cut off"):
    cache.fields(films[2])
  with pytest.raises(images.BadImage, match="no features of it"):
    cache.fields(str(tmp_path / "absent.gif"))


def test_what_is_there_is_not_made_again(tmp_path, params, films, reads):
  fill(cache_of(tmp_path, params), params, films[:2] * 2)
  assert sorted(reads) == ["0.gif", "1.gif"]
  cache = cache_of(tmp_path, params)
  fill(cache, params, films[:2])
  assert len(reads) == 2
  os.utime(films[1], ns=(1, 1))  # another file of the same name
  assert cache.has(films[0]) and not cache.has(films[1])
  fill(cache, params, films[:2])
  assert reads[2:] == ["1.gif"]


def test_another_tower_or_sampling_has_its_own(tmp_path, params, films):
  fill(cache_of(tmp_path, params), params, films[:1])
  rest = dict(params_lib.flatten(params))
  rest["adapter/linear_1"] = rest["adapter/linear_1"] + 1
  assert cache_of(tmp_path, params_lib.unflatten(rest)).has(films[0])
  rest["vision/patch"] = rest["vision/patch"] + 1
  assert not cache_of(tmp_path, params_lib.unflatten(rest)).has(films[0])
  for clips in (
    clips_lib.Clips(2, "square", 16),
    clips_lib.Clips(3, "pad", 16),
  ):
    assert not cache_of(tmp_path, params, clips).has(films[0])
  wider = video_lib.VideoConfig(3, 5)
  model = locvlm.LocVLM(dataclasses.replace(MODEL.config, video=wider))
  assert not cache_of(tmp_path, params, model=model).has(films[0])


def test_an_entry_is_whole_or_not_there(tmp_path, films, params, monkeypatch):
  cache = cache_of(tmp_path, params)

  def fails(f, **arrays):
    f.write(b"half")
    raise OSError("disk full")

  monkeypatch.setattr(np, "savez", fails)
  with pytest.raises(OSError, match="disk full"):
    cache.put(films[0], np.zeros(cache.shape, np.float16), (1, 1))
  assert not cache.has(films[0])
  assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
  monkeypatch.undo()
  cache.put(films[0], np.zeros(cache.shape, np.float16), (1, 1))
  entry = next(p for p in (tmp_path / "cache").rglob("*.npz"))
  entry.write_bytes(entry.read_bytes()[:100])
  with pytest.raises(images.BadImage, match="damaged"):
    cache.fields(films[0])
  assert not cache.has(films[0])

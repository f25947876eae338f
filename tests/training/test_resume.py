"""Which config, data and version a run goes on with."""

import json
import os
import pathlib
import shutil

import pytest
from changed import changed

from configs import micro
from locvlm_jax import errors
from locvlm_jax.config import Config
from locvlm_jax.training import data_hashes, resume, setup


@pytest.fixture
def world(microworld, tmp_path) -> pathlib.Path:
  """A copy, since the tests move it and change it."""
  return pathlib.Path(shutil.copytree(microworld(4, 4), tmp_path / "world"))


def _config(world, **fields) -> Config:
  config = micro.get_config("stage2,tiny")
  config.root = str(world)
  return changed(config, **fields)


def _begun(config: Config) -> dict:
  """What a checkpoint of the run says of itself."""
  return resume.run_info(config, 1, setup.Data.open(config).hashes)


def _resumed(config: Config, info: dict) -> None:
  resume.check_same_run(config, info, "WORKDIR", setup.Data.open(config).hashes)


def test_a_folder_that_has_moved_is_no_other_run(world, tmp_path, monkeypatch):
  """Nor is another working directory, or a tokenizer that lies elsewhere."""
  info = _begun(_config(world))
  moved = world.rename(tmp_path / "elsewhere")
  words = shutil.copytree(micro.BASE, tmp_path / "words")
  _resumed(_config(moved, tokenizer=str(words)), info)
  words = os.path.abspath(words)
  monkeypatch.chdir(tmp_path)
  _resumed(_config("elsewhere", tokenizer=words), info)


def test_other_content_at_the_same_place_is_another_run(world):
  config = _config(world)
  info = _begun(config)
  for path, field in (
    ("images/train/*", "data.*images"),
    ("annotations/text_train.json", "data.text"),
  ):
    files = sorted(world.glob(path))
    before = [f.read_bytes() for f in files]
    for file in files:
      file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(
      errors.Mismatch, match=f"other data: {field}=.*has hash"
    ):
      _resumed(config, info)
    for file, content in zip(files, before, strict=True):
      file.write_bytes(content)
  _resumed(config, info)


def test_leaving_out_other_records_is_another_run(world, tmp_path, capsys):
  """Whatever the file is called that they are tested by."""
  notes = world / "annotations" / "instances_train.json"
  content = json.loads(notes.read_text())
  for name, images in (("one", content["images"][:1]), ("none", [])):
    part = {"images": images, "annotations": [], "categories": []}
    (tmp_path / f"{name}.json").write_text(json.dumps(part))
  one = _config(world, **{"eval.novel": str(tmp_path / "one.json")})
  none = _config(world, **{"eval.novel": str(tmp_path / "none.json")})
  info = _begun(one)
  _resumed(one, info)
  with pytest.raises(errors.Mismatch, match="data.exclude=.*has hash none"):
    _resumed(none, info)
  del info["data"]["excluded"]  # as in earlier checkpoints
  _resumed(one, info)
  assert "does not say which records it left out" in capsys.readouterr().out


def test_a_picture_that_was_missing_tells_nothing(world):
  config = _config(world)
  info = _begun(config)
  min((world / "images/train").iterdir()).unlink()
  _resumed(config, info)
  assert data_hashes.differ("a b", "a c") and data_hashes.differ("a b", "a")
  assert not data_hashes.differ("a -", "a c")


def test_a_run_without_these_hashes_is_held_to_its_paths(world, tmp_path):
  """As the checkpoints of earlier versions are."""
  config = _config(world)
  info = _begun(config)
  info["data"] = {name: info["data"][name] for name in ("instances", "text")}
  info["data"]["conversations"] = _begun(config)["data"]["conversations"]
  _resumed(config, info)
  moved = world.rename(tmp_path / "elsewhere")
  with pytest.raises(ValueError, match="another config .*data/images: "):
    _resumed(_config(moved), info)


def test_a_run_goes_on_after_an_upgrade(world, capsys):
  """Fields that later versions add do nothing unless they are set."""
  config = _config(world)
  info = _begun(config)
  del info["config"]["optim"]["mu_dtype"], info["config"]["lora"]
  _resumed(config, info)
  said = capsys.readouterr().out
  assert "new since WORKDIR began: optim/mu_dtype='float32'" in said
  for field, before, now in (
    ("lora.rank", "0", 2),
    ("lora.dropout", "0.0", 0.05),
  ):
    where = field.replace(".", "/")
    with pytest.raises(ValueError, match=f"config .{where}: {before} -> {now}"):
      _resumed(changed(config, **{field: now}), info)


def test_a_lora_of_before_had_no_dropout_and_one_learning_rate(world):
  config = _config(world, **{"lora.rank": 2})
  info = _begun(config)
  del info["config"]["lora"]["dropout"], info["config"]["optim"]["adapter_lr"]
  _resumed(config, info)
  for field, value in (("lora.dropout", 0.05), ("optim.adapter_lr", 2e-5)):
    said = f"{field.replace('.', '/')}: 0.0 -> {value}"
    with pytest.raises(ValueError, match=said):
      _resumed(changed(config, **{field: value}), info)


def test_a_field_that_this_version_has_not_is_named_with_the_version(world):
  config = _config(world)
  info = _begun(config)
  info["config"]["optim"]["momentum"] = 0.9
  info["version"] = "0.0.7"
  with pytest.raises(
    ValueError, match="optim/momentum=0.9, which this .*locvlm_jax 0.0.7, or"
  ):
    _resumed(config, info)

"""Commands that ask a model keep what they compile."""

import os

import pytest

from locvlm_jax.perf import compile_cache

VARIABLES = (
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_COMPILATION_CACHE_MAX_SIZE",
  "JAX_ENABLE_COMPILATION_CACHE",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def folder(monkeypatch, tmp_path):
  """The user's cache directory, with none of JAX's variables set."""
  for name in VARIABLES:
    monkeypatch.setenv(name, "")  # so that it is restored after the test
    monkeypatch.delenv(name)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  return tmp_path / "locvlm_jax"


def test_programs_are_kept_for_this_version_and_processor_and_told_once(
  folder, capsys
):
  compile_cache.use()
  (made,) = folder.iterdir()
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(made)
  assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
  said = capsys.readouterr()
  assert str(made) in said.err and not said.out
  del os.environ["JAX_COMPILATION_CACHE_DIR"]
  compile_cache.use()
  assert list(folder.iterdir()) == [made] and not capsys.readouterr().err


@pytest.mark.parametrize(
  "name, value",
  [
    ("JAX_ENABLE_COMPILATION_CACHE", "false"),
    ("JAX_COMPILATION_CACHE_DIR", "elsewhere"),
    ("JAX_COMPILATION_CACHE_DIR", ""),
  ],
)
def test_a_cache_that_the_user_has_chosen_stays(
  folder, monkeypatch, name, value
):
  monkeypatch.setenv(name, value)
  compile_cache.use()
  assert os.environ[name] == value and not folder.exists()
  assert "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ


def test_where_it_cannot_be_written_nothing_is_kept(folder, capsys):
  folder.write_text("a file in its place")
  compile_cache.use()
  assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
  assert not capsys.readouterr().err


def test_another_processor_has_a_folder_of_its_own(folder, monkeypatch):
  compile_cache.use()
  monkeypatch.setattr(compile_cache, "_processor", lambda: "other")
  del os.environ["JAX_COMPILATION_CACHE_DIR"]
  compile_cache.use()
  assert len(list(folder.iterdir())) == 2

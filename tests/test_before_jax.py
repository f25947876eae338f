"""What commands set for jax, and that the user's own settings stay."""

import os

import pytest

from locvlm_jax import before_jax

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
  before_jax.keep_compiled()
  (made,) = folder.iterdir()
  assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(made)
  assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
  said = capsys.readouterr()
  assert str(made) in said.err and not said.out
  del os.environ["JAX_COMPILATION_CACHE_DIR"]
  before_jax.keep_compiled()
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
  before_jax.keep_compiled()
  assert os.environ[name] == value and not folder.exists()
  assert "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ


def test_where_it_cannot_be_written_nothing_is_kept(folder, capsys):
  folder.write_text("a file in its place")
  before_jax.keep_compiled()
  assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
  assert not capsys.readouterr().err


def test_another_processor_has_a_folder_of_its_own(folder, monkeypatch):
  before_jax.keep_compiled()
  monkeypatch.setattr(before_jax, "_processor", lambda: "other")
  del os.environ["JAX_COMPILATION_CACHE_DIR"]
  before_jax.keep_compiled()
  assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
  "flags, plugins, expected",
  [
    ("", (), "--xla_cpu_prefer_vector_width=512"),
    ("--xla_a=1", (), "--xla_a=1 --xla_cpu_prefer_vector_width=512"),
    ("--xla_cpu_prefer_vector_width=256", (), None),
    ("", ("libtpu",), None),
    ("", ("jax_plugins",), None),
  ],
)
def test_vectors_are_wide_where_there_is_nothing_but_a_cpu(
  monkeypatch, flags, plugins, expected
):
  monkeypatch.setenv("XLA_FLAGS", flags)
  monkeypatch.setattr(
    before_jax.importlib.util, "find_spec", lambda name: name in plugins
  )
  before_jax.widen_vectors()
  assert os.environ["XLA_FLAGS"] == (flags if expected is None else expected)

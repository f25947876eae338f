"""What commands set for jax, and that the user's own settings stay."""

import ctypes
import os
import types

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


@pytest.fixture
def plugins(monkeypatch):
  """The accelerators that jax could find: none, until a test adds one."""
  found = set()
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(
    before_jax.importlib.util, "find_spec", lambda name: name in found
  )
  return found


@pytest.mark.parametrize(
  "flags, plugin, expected",
  [
    ("", "", "--xla_cpu_prefer_vector_width=512"),
    ("--xla_a=1", "", "--xla_a=1 --xla_cpu_prefer_vector_width=512"),
    ("--xla_cpu_prefer_vector_width=256", "", None),
    ("", "libtpu", None),
    ("", "jax_plugins", None),
  ],
)
def test_vectors_are_wide_where_there_is_nothing_but_a_cpu(
  monkeypatch, plugins, flags, plugin, expected
):
  plugins.add(plugin)
  monkeypatch.setenv("XLA_FLAGS", flags)
  before_jax.widen_vectors()
  assert os.environ["XLA_FLAGS"] == (flags if expected is None else expected)


@pytest.fixture
def calls(monkeypatch, plugins):
  """What mallopt is called with; this process's allocator stays as it is."""
  made = []

  def mallopt(number: int, value: int) -> int:
    made.append((number, value))
    return 1

  library = types.SimpleNamespace(mallopt=mallopt, malloc=lambda size: 0)
  monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
  monkeypatch.setattr(before_jax, "_use_huge_pages", lambda libc: None)
  for name, _ in before_jax.SETTINGS.values():
    monkeypatch.delenv(name, raising=False)
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  return made


def test_on_a_cpu_freed_memory_is_kept(calls):
  assert before_jax.keep_memory()
  assert (-4, 0) in calls and (-1, -1) in calls  # no mapping, no trimming


@pytest.mark.parametrize(
  "name, value",
  [
    ("MALLOC_ARENA_MAX", "2"),
    ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2"),
    ("JAX_PLATFORMS", "cuda"),
  ],
)
def test_the_users_allocator_and_that_of_an_accelerators_host_stay(
  calls, monkeypatch, name, value
):
  monkeypatch.setenv(name, value)
  assert not before_jax.keep_memory() and not calls


def test_where_jax_may_find_an_accelerator_but_is_told_not_to_it_is_a_cpu(
  calls, plugins, monkeypatch
):
  plugins.add("jax_plugins")
  assert not before_jax.keep_memory()
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert before_jax.keep_memory()


def test_another_c_library_is_left_alone(calls, monkeypatch):
  monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace())
  assert not before_jax.keep_memory() and not calls


def test_the_heap_is_marked_for_huge_pages_once_and_given_back():
  told = []

  class Library:
    """A C library in which a block of any size begins at 5 MiB."""

    class malloc:  # noqa: N801
      def __new__(cls, size):
        return 5 << 20

    def madvise(self, start, size, advice):
      told.append((start.value >> 20, size.value >> 20))

    def free(self, block):
      told.append(block.value >> 20)

  before_jax._use_huge_pages(Library())
  assert told == [(6, (8 << 10) - 3), 5]

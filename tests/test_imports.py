"""Imports point one way: every module imports from its own row or above it."""

import ast
import pathlib
import subprocess
import sys

import pytest
from paths import ROOT

PACKAGE = ROOT / "locvlm_jax"
# A module imports what stands in its own row or in a row above it. The last
# row is that of the commands: the modules that `python -m` runs, wherever they
# lie, and nothing imports them.
ROWS = (
  {"before_jax", "config", "errors", "files", "jobs", "progress", "command"},
  {"text"},
  {"microworld"},
  {"data"},
  {"parallel"},
  {"models"},
  {"perf"},
  {"weights"},
  {"agreement", "assemble", "checks", "provenance"},
  {"inference"},
  {"evals"},
  {"serving"},
  {"training"},
  {"pseudo"},
  {"reports"},
  {"experiments", "fitting"},
  {"bench"},
)
# What these may not import from outside: loader workers run the first three,
# and the models know nothing of how they are trained and fed.
FORBIDDEN = {
  **dict.fromkeys(
    ("text", "microworld", "data"),
    {"jax", "flax", "optax", "ml_collections", "tensorflow", "torch"},
  ),
  **dict.fromkeys(
    ("parallel", "models"),
    {"optax", "ml_collections", "grain", "clu", "tensorflow", "torch"},
  ),
}
# What a bare GPU image lacks, and what has to work without it.
ABSENT = ("grain", "clu", "tensorflow", "ml_collections", "torch")
BARE = (
  "models.locvlm", "training.step", "training.optimizer", "inference.decode",
  "inference.constrained", "weights.layouts.huggingface", "bench.train",
  "bench.decode",
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def _is_command(path: pathlib.Path) -> bool:
  return 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


def _row(path: pathlib.Path) -> int:
  """The number of the module's row."""
  if _is_command(path):
    return len(ROWS)
  part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  (row,) = [i for i, parts in enumerate(ROWS) if part in parts]
  return row


def _imported(path: pathlib.Path) -> set[str]:
  """Full names of all that a file imports, at any depth."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def _file(name: str) -> pathlib.Path | None:
  """The file of a module, or of the module that has `name`."""
  parts = name.split(".")[1:]
  for length in (len(parts), len(parts) - 1):
    stem = PACKAGE.joinpath(*parts[:length])
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
      if length and path.exists():
        return path
  return None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
  if path == PACKAGE / "__init__.py":
    return
  for name in _imported(path):
    part = path.relative_to(PACKAGE).parts[0]
    assert name.split(".")[0] not in FORBIDDEN.get(part, ()), name
    other = _file(name) if name.startswith("locvlm_jax.") else None
    if other and other != PACKAGE / "__init__.py":
      assert not _is_command(other), f"{name} is a command"
      assert _row(other) <= _row(path), f"{name} is in a row below"


def test_configs_import_nothing_but_configs():
  for path in sorted((ROOT / "configs").glob("*.py")):
    outside = {name.split(".")[0] for name in _imported(path)}
    assert outside <= {"ml_collections", "configs", "os"}, (path, outside)


def test_model_step_and_decoding_need_no_package_that_a_gpu_image_lacks():
  absent = "".join(f"sys.modules[{name!r}] = None\n" for name in ABSENT)
  imports = "".join(f"import locvlm_jax.{name}\n" for name in BARE)
  program = f"import sys\n{absent}{imports}"
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def test_asking_a_llava_waits_for_neither_orbax_nor_pallas():
  """Each takes a third to a half of a second of every start."""
  code = (
    "import sys, locvlm_jax.inference.model\n"
    "late = ('orbax.checkpoint', 'jax.experimental.pallas')\n"
    "assert not [m for m in late if m in sys.modules]\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-2000:]

"""Each imported package is declared, and each pinned one is imported."""

import ast
import re
import sys
import tomllib

import pytest
from paths import ROOT

# Packages whose name is not that of the module.
PACKAGES = {
  "PIL": "pillow",
  "absl": "absl-py",
  "google.protobuf": "protobuf",
  "orbax": "orbax-checkpoint",
  "yaml": "pyyaml",
}
# Those that only a part of the users need, with the extra that has them.
EXTRAS = {
  "av": "video",
  "clu": "tensorboard",
  "lmms-eval": "lmms",
  "pycocoevalcap": "meteor",
  "starlette": "serve",
  "tensorflow-datasets": "tfds",
  "torch": "pseudo",
  "uvicorn": "serve",
}
# Those that are pinned though nothing imports them, with the reason.
NOT_IMPORTED = {
  "beartype": "jaxtyping imports it while tests run, by its name",
  "pytest-xdist": "pytest -n",
  "ruff": "a command",
  "tensorboard": "a command, which shows what clu wrote",
  "tensorflow-cpu": "clu writes metrics with it",
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
USERS = ("locvlm_jax", "tests", "configs")  # folders that import packages


def _imported(*folders: str) -> set[str]:
  """Finds the packages that the files of folders import, at any depth."""
  names = set()
  paths = [path for f in folders for path in (ROOT / f).rglob("*.py")]
  for path in paths:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
      if isinstance(node, ast.Import):
        names |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names.add(node.module)
  return {_package(n) for n in names if _top(n) not in sys.stdlib_module_names}


def _top(module: str) -> str:
  return module.split(".")[0]


def _package(module: str) -> str:
  """Names a module's package: google.protobuf.message -> protobuf."""
  parts = 2 if _top(module) == "google" else 1
  name = ".".join(module.split(".")[:parts])
  return _normal(PACKAGES.get(name, name))


def _normal(requirement: str) -> str:
  """Finds a requirement's package: jax[cuda12]>=0.10 -> jax."""
  name = re.match(r"[\w.\-]+", requirement.strip())[0]
  return re.sub(r"[._]", "-", name).lower()


def _declared(*extras: str) -> set[str]:
  """Lists what pyproject.toml installs, always or with these extras."""
  project = PYPROJECT["project"]
  found = list(project["dependencies"])
  for extra in extras:
    found += project["optional-dependencies"][extra]
  return set(map(_normal, found))


def _pinned() -> set[str]:
  text = (ROOT / "requirements.txt").read_text("utf-8")
  lines = (line.split("#")[0].strip() for line in text.splitlines())
  return {_normal(line) for line in lines if line}


@pytest.mark.parametrize(
  "package", sorted(_imported("locvlm_jax") - {"locvlm-jax"})
)
def test_what_the_package_imports_is_declared(package):
  extra = [EXTRAS[package]] if package in EXTRAS else []
  assert package in _declared(*extra)


def test_what_tests_and_configs_import_is_declared():
  ours = {"locvlm-jax", "configs", "benchmarks"} | {
    _normal(path.stem) for path in (ROOT / "tests").rglob("*.py")
  }
  declared = _declared(*PYPROJECT["project"]["optional-dependencies"])
  assert _imported("tests", "configs") - ours <= declared


def test_what_is_always_installed_is_pinned():
  assert _declared() <= _pinned()


def test_what_is_pinned_is_imported_or_has_a_reason():
  assert _pinned() - _imported(*USERS) == set(NOT_IMPORTED)

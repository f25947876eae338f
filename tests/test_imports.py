"""Imports point only down the list of layers."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "locvlm_jax"

# Module or package -> layer; a module may import lower layers, its own layer
# only within its package, and what OWN_LAYER names.
LAYERS = {
  "faults": 0,
  "coords": 1, "geometry": 1, "prompts": 1, "tokenizer": 1,
  "data": 2, "grammar": 2,
  "sharding": 3, "models": 4,
  "hosts": 5, "guards": 5, "metrics": 5, "optim": 5, "hlo": 5, "targets": 5,
  "xplane": 5, "tracing": 5,
  "train_step": 6, "decode": 6, "constrained": 6, "checkpoint": 6, "weights": 6,
  "lora": 7, "features": 7,
  "evals": 7,
  "answering": 8, "asking": 8, "build": 8, "command": 8, "validation": 8,
  "train": 9, "evaluate": 9, "reproduce": 9, "report": 9, "convert": 9,
  "train_tokenizer": 9, "generate": 9, "overlap": 9, "build_data": 9,
  "pseudo_label": 9, "self_training": 8, "segmenter": 8,
  "bench": 9, "plan": 9, "profile": 9,
}  # fmt: skip
OWN_LAYER = {
  ("tokenizer", "prompts"), ("constrained", "decode"),
  ("build", "command"), ("answering", "build"),
  ("asking", "answering"), ("asking", "build"),
  ("self_training", "asking"), ("self_training", "build"),
  ("validation", "answering"), ("validation", "build"),
  ("weights", "checkpoint"), ("metrics", "optim"),
}  # fmt: skip
# What each layer may not import from outside, anywhere in the file.
FORBIDDEN = {
  1: {"jax", "flax", "optax", "grain", "ml_collections", "tensorflow"},
  2: {"jax", "flax", "optax", "ml_collections", "tensorflow"},
  3: {"optax", "ml_collections", "grain", "clu", "tensorflow", "torch"},
  4: {"optax", "ml_collections", "grain", "clu", "tensorflow", "torch"},
  5: {"ml_collections", "grain", "clu", "tensorflow", "torch"},
  6: {"ml_collections", "grain", "clu", "tensorflow", "torch"},
}
# On top of all, wherever they lie.
COMMANDS = {"data/inspect.py", "evals/score.py"}
FILES = sorted(PACKAGE.rglob("*.py"))


def _part(module: str) -> str:
  """locvlm_jax.data.coco -> data."""
  return module.split(".")[1] if "." in module else ""


def _imported(path: pathlib.Path) -> set[str]:
  """Full names of all modules that a file imports, at any depth."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add(node.module)
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
  me = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
  if me == "__init__":
    return
  if str(path.relative_to(PACKAGE)) in COMMANDS:
    return
  assert me in LAYERS, f"{me}: give it a layer in this test"
  for name in _imported(path):
    outside = name.split(".")[0]
    assert outside not in FORBIDDEN.get(LAYERS[me], ()), (path, name)
    other = _part(name) if name.startswith("locvlm_jax") else ""
    if other and other in LAYERS and other != me:
      down = LAYERS[other] < LAYERS[me] or (me, other) in OWN_LAYER
      assert down, f"{path} imports {name}, which is not below it"


def test_configs_import_nothing_but_configs():
  for path in sorted((ROOT / "configs").glob("*.py")):
    outside = {name.split(".")[0] for name in _imported(path)}
    assert outside <= {"ml_collections", "configs", "os"}, (path, outside)


def test_every_part_has_a_layer():
  parts = {p.stem for p in PACKAGE.glob("*.py")} | {
    p.parent.name for p in PACKAGE.glob("*/__init__.py")
  }
  assert parts - {"__init__"} <= LAYERS.keys(), parts - LAYERS.keys()

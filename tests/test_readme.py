"""What the README names exists, and what exists is on its file map."""

import re

from paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = README[README.index("## File map") :]


def test_make_targets_exist():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
  assert {"demo", "test"} <= named
  for target in named:
    assert re.search(rf"^{target}:", makefile, re.M), target


def test_commands_exist():
  named = set(re.findall(r"python -m (locvlm_jax[\w.]+)", README))
  assert "locvlm_jax.train" in named
  for module in named:
    path = ROOT / module.replace(".", "/")
    found = path.with_suffix(".py"), path / "__main__.py"
    assert any(p.is_file() for p in found), module


def test_configs_and_their_words_exist():
  import importlib

  for name, words in re.findall(r"configs/(\w+)\.py(?::([\w,]+))?", README):
    importlib.import_module(f"configs.{name}").get_config(words)


def test_flags_in_the_readme_are_fields():
  from configs import base

  fields = base.get_config()
  for name in set(re.findall(r"--config\.([a-z][\w.]*)", README)):
    value = fields
    for key in name.rstrip(".").split("."):
      assert key in value, name
      value = value[key]


def test_file_map_is_complete():
  for path in (ROOT / "locvlm_jax").iterdir():
    if path.name.startswith(("_", ".")):
      continue
    assert path.stem in MAP or f"{path.name}/" in MAP, path.name


def test_pictures_exist():
  for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
    assert (ROOT / path).is_file(), path


def test_config_flags_that_the_makefile_uses_exist():
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  for name in re.findall(r"configs/(\w+)\.py", makefile):
    assert (ROOT / "configs" / f"{name}.py").is_file(), name

"""What the README and the pages of docs/ say exists, and nothing is left out.

Every page is held to the same checks: its commands and their flags, configs and
their words, fields, targets of make, paths, links and pictures exist.
"""

import ast
import fnmatch
import functools
import importlib
import inspect
import pathlib
import re

import ml_collections
import pytest
from paths import ROOT
from test_imports import ROWS

from locvlm_jax import errors

PAGES = (
  "README.md", "launch/README.md", "tests/README.md",
  *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")),
  *sorted(
    str(p.relative_to(ROOT)) for p in ROOT.glob("benchmarks/results/*.md")
  ),
)  # fmt: skip
PACKAGE = ROOT / "locvlm_jax"
FOLDERS = "locvlm_jax|configs|launch|benchmarks|tests|docs"
MOST_LINES = 182  # of the README

each_page = pytest.mark.parametrize("page", PAGES)


@functools.cache
def _text(page: str) -> str:
  return (ROOT / page).read_text(encoding="utf-8")


def _modules(page: str) -> list[tuple[str, str]]:
  """(module, the rest of its line) of each `python -m` of a page."""
  joined = _text(page).replace("\\\n", " ")
  name = r"(?:locvlm_jax|benchmarks)(?:\.[a-z]\w*)+"
  return re.findall(rf"python -m ({name})([^\n`|]*)", joined)


def _files(module: str) -> list[pathlib.Path]:
  """The file of a command, or all of the package that is one."""
  path = ROOT / module.replace(".", "/")
  if (path / "__main__.py").is_file():
    return sorted(path.glob("*.py"))
  return [f for f in (path.with_suffix(".py"),) if f.is_file()]


def _section(page: str, heading: str) -> str:
  """What stands between a heading and the next one of its level."""
  return re.split(r"^## ", _text(page).split(f"## {heading}\n")[1], flags=re.M)[
    0
  ]


def _slugs(page: pathlib.Path) -> set[str]:
  """The anchors of a page's headings, as GitHub makes them."""
  titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
  kept = (re.sub(r"[^\w\- ]", "", t.lower()) for t in titles)
  return {t.replace(" ", "-") for t in kept}


# ---------------------------------------------------------------- every page


@each_page
def test_links_and_pictures_lead_somewhere(page):
  links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", _text(page))
  for path, anchor in links:
    if path.startswith("http"):
      continue
    found = (ROOT / page).parent / path if path else ROOT / page
    assert found.exists(), path
    assert not anchor or anchor in _slugs(found), f"{path}#{anchor}"


@each_page
def test_paths_that_are_named_exist(page):
  names = rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w)(?![\w{{*])"
  for path in re.findall(names, _text(page)):
    if "NAME" not in path:
      assert (ROOT / path).exists(), path


@each_page
def test_make_targets_that_are_named_exist(page):
  makefile = _text("Makefile")
  named = r"(?:^|`)make ([a-z-]+)(?=`|\s*#|$)"
  for target in re.findall(named, _text(page), re.M):
    assert re.search(rf"^{target}\b.*:", makefile, re.M), target


@each_page
def test_commands_that_are_named_exist(page):
  for module, _ in _modules(page):
    assert _files(module), module


@each_page
def test_a_command_is_given_flags_that_it_has(page):
  common = (PACKAGE / "command.py").read_text(encoding="utf-8")
  for module, line in _modules(page):
    source = common + "".join(f.read_text("utf-8") for f in _files(module))
    for flag in re.findall(r"(?:^|\s)--(\w+)", line):
      assert re.search(rf'"(--)?{flag}"', source), f"{module} --{flag}"


@each_page
def test_configs_that_are_named_know_their_words(page):
  found = re.findall(r"configs/([a-z]\w*)\.py(?::([\w,]+))?", _text(page))
  for name, words in found:
    importlib.import_module(f"configs.{name}").get_config(words)


@each_page
def test_fields_that_are_named_are_in_the_base_config(page):
  from configs import base

  fields = base.get_config()
  # `model.answer` is of the Python API.
  groups = "|".join(
    k
    for k, v in fields.items()
    if isinstance(v, ml_collections.ConfigDict) and k != "model"
  )
  flags = re.findall(r"--config\.([a-z][\w.]*\w)", _text(page))
  named = re.findall(rf"`(?:config\.)?((?:{groups})\.[a-z][\w.]*)", _text(page))
  for name in {*flags, *named}:
    if name == "root" or name.endswith(".json") or _files(f"locvlm_jax.{name}"):
      continue
    functools.reduce(lambda c, key: c[key], name.split("."), fields)


def test_configs_that_the_makefile_uses_exist():
  for name in re.findall(r"configs/(\w+)\.py", _text("Makefile")):
    assert (ROOT / "configs" / f"{name}.py").is_file(), name


# ---------------------------------------------------------------- the README


def test_the_readme_stays_a_front_page():
  assert len(_text("README.md").splitlines()) <= MOST_LINES


def test_the_readme_shows_how_to_try_and_test_it():
  named = set(re.findall(r"^make ([a-z-]+)", _text("README.md"), re.M))
  assert {"demo", "test"} <= named


def test_every_page_of_docs_is_linked_from_the_readme():
  for page in PAGES:
    if page.startswith("docs/"):
      assert f"({page})" in _text("README.md"), page


def test_every_command_is_in_the_table_of_commands():
  table = _section("README.md", "Commands")
  listed = set(re.findall(r"^\| `([\w.]+)` \|", table, re.M))
  found = set()
  for path in PACKAGE.rglob("*.py"):
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"):
      parts = path.relative_to(PACKAGE).with_suffix("").parts
      found.add(".".join(p for p in parts if p != "__main__"))
  assert listed == found


def test_every_part_of_the_package_is_on_the_map():
  shown = _section("README.md", "Map") + _section("README.md", "Commands")
  for path in PACKAGE.iterdir():
    if not path.name.startswith(("_", ".")):
      known = (f"{path.name}/", f" {path.name}", f"`{path.stem}`")
      assert any(name in shown for name in known), path.name


def test_the_python_api_that_is_shown_exists():
  (code,) = re.findall(r"```python\n(.*?)```", _text("README.md"), re.S)
  for name in re.findall(r"\blocvlm_jax\.(\w+)\(", code):
    assert _defined("locvlm_jax/__init__.py", name), name
  for name in re.findall(r"\bmodel\.(\w+)\(", code):
    assert _defined("locvlm_jax/inference/model.py", f"Model.{name}"), name


# ------------------------------------------------------------------ the docs


def test_words_in_the_table_of_configs_are_known():
  rows = re.findall(
    r"^\| `configs/(\w+)\.py` \|.*\| (.*) \|$", _text("docs/training.md"), re.M
  )
  assert rows
  for name, words in rows:
    for word in re.findall(r"`(\w+)`", words):
      importlib.import_module(f"configs.{name}").get_config(word)


def test_every_exit_code_is_in_the_table():
  table = _section("docs/scaling.md", "Exit codes")
  listed = set(map(int, re.findall(r"^\| (\d+) \|", table, re.M)))
  faults = inspect.getmembers(errors, inspect.isclass)
  codes = {fault.code for _, fault in faults if issubclass(fault, errors.Fault)}
  assert listed == {0, errors.BAD_CONFIG, *codes}


def test_every_task_is_in_the_table_of_tasks():
  from locvlm_jax.evals.tasks import EVALS

  table = _section("docs/evaluation.md", "Tasks")
  listed = re.findall(r"`([\w*]+)`", table)
  for name in EVALS:
    assert any(fnmatch.fnmatchcase(name, pattern) for pattern in listed), name


def test_rows_of_imports_are_those_that_are_tested():
  lines = re.findall(
    r"^\d+\. (`.+`)$", _section("docs/design.md", "Rows of imports"), re.M
  )
  assert [set(re.findall(r"`(\w+)`", line)) for line in lines] == list(ROWS)


def _steps(title: str) -> list[tuple[str, str]]:
  """(file, qualified name) of each line of a list in docs/design.md."""
  block = _text("docs/design.md").split(f"<!-- {title} -->")[1]
  lines = block.split("<!-- end -->")[0].strip("\n`").splitlines()
  found = [re.fullmatch(r"\d+\. (\S+): ([\w.]+) +- \S.*", x) for x in lines]
  assert all(found), lines
  return [match.groups() for match in found]


def _defined(path: str, name: str) -> bool:
  """Whether a file defines a function or class of this qualified name."""
  body = ast.parse(_text(path)).body
  for part in name.split("."):
    named = [n for n in body if getattr(n, "name", None) == part]
    if not named:
      return False
    body = named[0].body
  return True


@pytest.mark.parametrize("title", ["life of a batch", "life of a question"])
def test_every_function_on_the_way_of_a_batch_exists(title):
  for path, name in _steps(title):
    assert _defined(path, name), f"{path}: {name}"


def test_the_life_of_a_batch_is_short():
  steps = _steps("life of a batch")
  assert len(steps) <= 15
  assert len({path for path, _ in steps}) <= 10

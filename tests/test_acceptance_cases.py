"""The tests that the acceptance cases name exist."""

import importlib.util

from paths import ROOT


def test_every_test_of_an_acceptance_case_exists():
  path = ROOT / "tests/acceptance/run.py"
  spec = importlib.util.spec_from_file_location("acceptance_run", path)
  run = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(run)
  for _, _, tests in run.CASES.values():
    for name in tests:
      file, _, test = name.partition("::")
      text = (ROOT / "tests" / file).read_text(encoding="utf-8")
      assert f"def {test or 'test_'}" in text, name

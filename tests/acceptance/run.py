"""Runs the acceptance cases and writes their table into tests/README.md.

  python tests/acceptance/run.py [NUMBER ...]

Some cases are tests of the quick suite, which are run here too.
"""

import datetime
import os
import pathlib
import re
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS.parent))  # as `python -m pytest` does
RUNS = "acceptance/test_runs.py::test_"

# Number -> (what is done, what has to follow, the tests).
CASES = {
  1: ("defective images of every kind",
      "repaired as a reference decodes them, or masked, counted and named",
      ("data/media/test_images.py::test_images_of_any_mode",
       "data/media/test_images.py::test_exif_says_which_way_up_a_picture_is",
       "data/media/test_images.py::test_images_that_cannot_be_used",
       "data/test_rows.py::test_truncated_image_is_skipped_counted_and_named",
       "data/test_rows.py::test_image_of_another_size_is_skipped")),
  4: ("defective COCO annotations",
      "refused with file and record named, or used by a written rule",
      ("data/sources/test_coco.py::test_bad_annotations_name_file_and_record",
       "data/sources/test_coco.py::test_missing_folder_and_broken_json",
       "data/sources/test_coco.py::test_crowd_is_present_and_never_a_target",
       "test_commands.py::test_an_annotation_that_is_wrong_is_named",
       "test_commands.py::test_a_file_that_is_no_json_is_named")),
  7: ("1, 2 and 4 hosts, any number of reader threads",
      "the same batches",
      ("data/test_stream.py::test_stream_is_the_same_for_any_hosts_threads_and_start",
       "data/test_packing.py::test_sorted_rows_are_alike_on_hosts_and_after_a_restart",
       )),
  17: ("secrets in the environment, a run, an evaluation, a crash",
       "none is in any file", (RUNS + "no_secret_is_written",)),
  18: ("20 kills at random moments",
       "resumed from the newest checkpoint; same bits as unbroken",
       (RUNS + "kill_anywhere",)),
  19: ("resumed on 1, 2 and 4 processes, and on one device",
       "same examples; same bits on 2 and 4 processes, loss within 1e-6",
       (RUNS + "resume_on_other_processes",)),
  20: ("ten kinds of damage to the newest checkpoint",
       "named and moved aside, the step before used; never from nothing",
       ("weights/test_checkpoints.py",)),
  21: ("disk full", "code 74, earlier steps intact", (RUNS + "disk_full",)),
  29: ("SIGTERM to one of two processes in five phases, and to a single one",
       "the same step saved, code 75, resumed exactly",
       (RUNS + "sigterm_in_every_phase", RUNS + "sigterm_in_evaluation",
        RUNS + "sigterm_to_a_single_process")),
  31: ("a process killed, frozen, failing, short of batches, asleep, absent",
       "all end within 60 s, process, step, phase and stacks told",
       (RUNS + "no_silent_hang", RUNS + "one_never_comes")),
  32: ("another config, version, program, data or device count on one process",
       "code 73 before the first step, naming it",
       (RUNS + "processes_that_differ",)),
  36: ("loss or gradient of one process not finite",
       "skipped by all, ids told, code 71 after three, no such checkpoint",
       (RUNS + "not_finite",
        "weights/test_checkpoints.py::test_not_finite_is_never_saved")),
  39: ("rows of several lengths, and a resumption",
       "nothing compiled after the first steps of each length",
       (RUNS + "nothing_is_compiled_after_the_first_steps",)),
  40: ("weights with code, duplicate keys or damage",
       "refused, and nothing is executed",
       ("weights/layouts/test_pickles.py::test_a_pickle_is_not_executed",
        "weights/layouts/test_pickles.py::test_a_view_outside_of_its_storage_is_refused",
        "weights/layouts/test_huggingface.py::test_duplicate_keys_are_named",
        "weights/layouts/test_huggingface.py::test_truncated_weights_are_named")),
  43: ("pseudo-captions by one process, and by two that are killed",
       "the same file, nothing asked twice",
       (RUNS + "pseudo_captions_of_two_processes",)),
}  # fmt: skip


class Outcomes:
  """Counts what became of each test, and adds up the seconds."""

  def __init__(self):
    self.passed, self.failed, self.seconds = {}, {}, {}

  def pytest_runtest_logreport(self, report) -> None:
    name = _short(report.nodeid)
    self.seconds[name] = self.seconds.get(name, 0) + report.duration
    if report.failed:
      self.failed[name] = True
    elif report.when == "call" and report.passed:
      self.passed[name] = True


def _short(nodeid: str) -> str:
  return nodeid.removeprefix("tests/")


def _row(number: int, outcomes: Outcomes) -> str:
  done, follows, tests = CASES[number]

  def count(results):
    return sum(name.startswith(tests) for name in results)

  passed, failed = count(outcomes.passed), count(outcomes.failed)
  seconds = sum(
    s for name, s in outcomes.seconds.items() if name.startswith(tests)
  )
  result = f"{failed} failed" if failed else f"{passed} passed"
  files = sorted({t.split("::")[0] for t in tests})
  return (
    f"| {number} | {done} | {follows} | {', '.join(files)} | {result} | "
    f"{seconds:.0f} s |"
  )


HEAD = """| case | done to it | has to follow | tests | result | took |
|---|---|---|---|---|---|"""


def _write(numbers, outcomes: Outcomes) -> None:
  """Replaces the rows of the cases that ran; the others stay."""
  path = TESTS / "README.md"
  text = path.read_text(encoding="utf-8")
  before, rest = text.split("<!-- acceptance -->\n")
  _, after = rest.split("<!-- end -->\n")
  rows = {
    int(m.group(1)): m.group(0)
    for m in re.finditer(r"^\| (\d+) \|.*$", rest, re.M)
  }
  rows |= {n: _row(n, outcomes) for n in numbers}
  table = "\n".join([HEAD, *(rows[n] for n in sorted(rows))])
  when = datetime.date.today().isoformat()
  note = f"Last run {when} on {os.cpu_count()} cores."
  path.write_text(
    f"{before}<!-- acceptance -->\n{table}\n\n{note}\n<!-- end -->\n{after}",
    encoding="utf-8",
  )


def main() -> int:
  numbers = [int(word) for word in sys.argv[1:]] or list(CASES)
  tests = sorted({t for n in numbers for t in CASES[n][2]})
  outcomes = Outcomes()
  paths = [str(TESTS / t) for t in tests]
  code = pytest.main(
    ["-q", "--rootdir", str(TESTS.parent), *paths], plugins=[outcomes]
  )
  _write(numbers, outcomes)
  return int(code)


if __name__ == "__main__":
  sys.exit(main())

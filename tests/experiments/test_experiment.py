"""Tables of the paper from many runs: each once, in order, and resumed."""

import json

import fake_runs
import pytest

from locvlm_jax import errors
from locvlm_jax.experiments import (
  depends,
  differences,
  experiment,
  learning,
  micro_arms,
  micro_tables,
  page,
  runs,
  schedule,
  summary,
)

_SKILLS = {"baseline": 0.5, "locvlm": 0.9}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
  """Tables are written after every step: their intervals may be rough."""
  monkeypatch.setattr(differences, "_DRAWS", 100)


def test_arms_differ_in_what_the_table_is_about_and_in_nothing_else(tmp_path):
  commands = fake_runs.Commands(_SKILLS)
  experiment.run(fake_runs.make(tmp_path, seeds=1), commands)
  one, two = (
    flags
    for command, flags in commands.calls
    if command == "train" and "stage1-" not in flags["workdir"]
  )
  differ = {k for k in one | two if one.get(k) != two.get(k)}
  mixture = {f"config.data.mixture.{n}" for n in
             ("instances", "conversations", "text")}  # fmt: skip
  assert differ == mixture | {"workdir"}
  assert one["config.data.mixture.spatial"] == "0.1"


def test_both_arms_start_from_the_same_weights_of_their_seed(tmp_path):
  commands = fake_runs.Commands(_SKILLS)
  experiment.run(fake_runs.make(tmp_path, seeds=2, jobs=2), commands)
  begun = [flags["workdir"] for c, flags in commands.calls if c == "train"]
  for command, flags in commands.calls:
    if command == "train" and "stage1-" not in flags["workdir"]:
      start = flags["config.init.checkpoint"]
      assert f"stage1-seed{flags['config.seed']}-" in start
      assert begun.index(start) < begun.index(flags["workdir"])
  assert len(begun) == 2 * (1 + 2)  # stage 1 once a seed


def test_what_is_finished_is_not_repeated(tmp_path):
  made = fake_runs.make(tmp_path, seeds=2)
  first = experiment.run(made, fake_runs.Commands(_SKILLS))
  again = fake_runs.Commands(_SKILLS)
  assert experiment.run(made, again) == first
  assert not again.calls


def test_after_a_command_that_failed_the_same_line_goes_on(tmp_path):
  made = fake_runs.make(tmp_path, seeds=2)
  broken = fake_runs.Commands(_SKILLS, fails="locvlm-seed1")
  with pytest.raises(errors.CommandFailed, match=r"train\.log") as raised:
    experiment.run(made, broken)
  assert raised.value.code == 75
  rest = fake_runs.Commands(_SKILLS)
  experiment.run(made, rest)
  whole = fake_runs.Commands(_SKILLS)
  experiment.run(fake_runs.make(tmp_path / "b", seeds=2), whole)
  done = len(broken.calls) - 1 + len(rest.calls) - 1  # failed, microworld
  assert done == len(whole.calls)


def test_another_setting_is_another_run(tmp_path):
  experiment.run(fake_runs.make(tmp_path, seeds=1), fake_runs.Commands(_SKILLS))
  changed = fake_runs.make(tmp_path, seeds=1, overrides=("--config.steps=3",))
  again = fake_runs.Commands(_SKILLS)
  experiment.run(changed, again)
  assert [c for c, _ in again.calls].count("train") == 3


def test_other_settings_or_weights_below_the_same_name_are_another_run(
  tmp_path, monkeypatch
):
  name = _names(tmp_path, monkeypatch, micro_arms.FULL)
  assert name(5, "one") == name(5, "one")
  assert len({name(5, "one"), name(6, "one"), name(5, "two")}) == 3


def test_a_default_that_the_arm_replaces_makes_no_other_run(
  tmp_path, monkeypatch
):
  name = _names(tmp_path, monkeypatch, runs.Arm("short", "", ("steps=3",)))
  assert name(5, "one") == name(6, "one") != name(6, "two")


def _names(tmp_path, monkeypatch, arm):
  """Returns what an arm's run is called: (default steps, weights) -> name."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / "weights").mkdir()

  def name(steps: int, weights: str) -> str:
    (tmp_path / "config.py").write_text(
      "import ml_collections\n"
      "def get_config(words):\n"
      f"  values = {{'steps': {steps}, 'init': {{'llava': 'weights'}}}}\n"
      "  return ml_collections.ConfigDict(values)\n"
    )
    (tmp_path / "weights" / "model.safetensors").write_text(weights)
    depends.digest.cache_clear()
    depends.hash_of.cache_clear()
    return runs.Run(arm, 0, "config.py", fake_runs.WORLD).name

  return name


def test_the_table_has_spread_interval_and_verdict(tmp_path):
  text = experiment.run(
    fake_runs.make(tmp_path, seeds=3), fake_runs.Commands(_SKILLS)
  )
  assert "**Table 4. COCO-Spatial**" in text and " ± " in text
  assert "| all | 2 | 0 | 0 | 2 |" in text  # two of its four orderings
  page_text = (tmp_path / "report.html").read_text()
  assert "What agrees with the paper" in page_text
  rows = [line for line in text.splitlines() if "direct.left_right" in line]
  assert rows[0].startswith("| locvlm | baseline |")
  assert "+14.4" in rows[0] and rows[0].endswith("| confirmed |")
  assert "not measured" in text  # the in-context tasks were not answered
  saved = json.loads((tmp_path / "tables.json").read_text())
  values = saved["tables"]["4"]["locvlm"][
    "spatial_trained.direct.left_right.all"
  ]
  assert len(values) == 3 and all(50 < v <= 100 for v in values.values())


def test_orderings_that_the_paper_has_not_do_not_agree_with_it():
  ours = ("a", "b", "m", "–", "+2.0", "+1.0 to +3.0", "3", "confirmed")
  assert summary.agreement({"ours": [ours]}) == []
  theirs = (*ours[:3], "+5.0", *ours[4:])
  rows = summary.agreement({"ours": [ours], "Table": [theirs, theirs]})
  assert rows[1:] == [("Table", *"2000"), ("all", *"2000")]


def test_tables_and_page_are_there_before_all_runs_are_finished(tmp_path):
  made = fake_runs.make(tmp_path, seeds=2)
  broken = fake_runs.Commands(_SKILLS, fails="locvlm-seed1")
  with pytest.raises(errors.CommandFailed):
    experiment.run(made, broken)
  page = (tmp_path / "report.html").read_text()
  assert "3 of 4 evaluations are there" in page
  assert "COCO-Spatial" in page and "Question " in page
  text = (tmp_path / "tables.md").read_text()
  row = next(r for r in text.splitlines() if "| locvlm | baseline |" in r)
  assert row.endswith(" |") and "confirmed" in row
  figure = (tmp_path / "claim.svg").read_text()
  assert figure.count("<polyline") == 3 and "with the objectives" in figure


def test_the_figure_has_mean_and_spread_of_the_seeds(tmp_path):
  made = fake_runs.make(tmp_path, seeds=3)
  experiment.run(made, fake_runs.Commands(_SKILLS))
  runs = page.by_arm(made.evaluations())[micro_arms.FULL]
  (first, last) = learning.curve(runs, str(tmp_path), learning.PLACES)
  assert (first.step, first.mean) == (100, 50.0)
  assert (last.step, last.low, last.high) == (200, 90.0, 92.0)
  assert last.mean == pytest.approx(91.0)


def test_the_time_left_is_that_of_steps_of_the_same_kind(tmp_path):
  lines = []
  made = fake_runs.make(tmp_path, seeds=2)
  schedule.run_all(
    made.evaluations(),
    str(tmp_path),
    execute=fake_runs.Commands(_SKILLS),
    log=lines.append,
  )
  assert [line.split(",")[0] for line in lines] == [
    f"steps: {i}/10" for i in range(1, 11)
  ]
  assert lines[-1].endswith("00:00:00 left")


def test_a_table_that_cannot_be_made_is_named():
  with pytest.raises(ValueError, match="--tables 3: not one of 2, 4,"):
    experiment.check_tables(["4", "3"])


def test_every_ordering_is_about_arms_and_metrics_of_its_table():
  for table in micro_tables.TABLES.values():
    names = {arm.name for arm in table.arms}
    for ordering in table.orderings:
      assert {ordering.better, ordering.worse} <= names, table.title
      assert ordering.metric in table.metrics.values(), table.title
      if ordering.paper:
        assert ordering.paper[0] > ordering.paper[1], ordering


def test_a_table_says_after_how_many_steps_an_arm_had_half(tmp_path):
  skills = {"cross-entropy": 0.65, "digit-loss-8": 0.9, "fixed-width": 0.695,
            "digit-loss-8-fixed-width": 0.9}  # fmt: skip
  made = fake_runs.make(tmp_path, tables=("coordinates",), seeds=2)
  text = experiment.run(made, fake_runs.Commands(skills))
  table = text.partition("| above |")[0]
  cells = {row.split(" | ")[0]: row for row in table.splitlines()}
  assert cells["| "].endswith("| steps to 50 % |")
  assert cells["| cross-entropy"].endswith("| – |")
  assert cells["| digit-loss-8"].endswith("| 200 ± 0 |")
  assert cells["| fixed-width"].endswith("| 200 (1 of 2 seeds) |")


def test_a_table_says_how_far_arms_are_apart_that_should_be_alike(tmp_path):
  skills = {"lora-float32": 0.9, "lora-nf4": 0.905, "lora-int8": 0.8,
            "adam-float32": 0.9, "adam-8bit": 0.9}  # fmt: skip
  made = fake_runs.make(tmp_path, tables=("memory",), seeds=2)
  text = experiment.run(made, fake_runs.Commands(skills))
  rows = [line for line in text.splitlines() if " | 1 " in line]
  assert rows[:3] == [
    "| lora-nf4 | lora-float32 | locpred.acc_iou50 | 1 point(s) | +0.5"
    " | +0.5 to +0.5 | 2 | confirmed |",
    "| lora-nf4 | lora-float32 | locpred.mean_iou | 1 point(s) | +0.5"
    " | +0.5 to +0.5 | 2 | confirmed |",
    "| lora-nf4 | lora-float32 | hallucination.accuracy | 1 point(s)"
    " | – | – | – | not measured |",
  ]
  assert "-10.0 | -10.0 to -10.0 | 2 | not confirmed |" in rows[3]
  assert rows[-1] == (
    "| adam-8bit | adam-float32 | loss | 1 % | +0.0 | +0.0 to +0.0 | 2"
    " | confirmed |"
  )
  page = (tmp_path / "report.html").read_text()
  assert "10 measures in which arms should be alike" in page


def test_a_run_from_other_weights_below_the_same_name_is_another_run(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(micro_arms, "_REFERENCE", str(tmp_path))
  arm = micro_arms._rewrite("arm", 3)
  names = []
  for weights in ("one", "two"):
    (tmp_path / "model.safetensors").write_text(weights)
    depends.digest.cache_clear()
    depends.hash_of.cache_clear()
    names.append(
      runs.Run(arm, 0, "configs/micro.py:tiny", fake_runs.WORLD).name
    )
  assert names[0] != names[1]


def test_an_interval_that_one_seed_cannot_give_is_called_unknown():
  one_seed = differences.Difference(0.5, float("-inf"), float("inf"), seeds=1)
  assert summary._written(one_seed) == ("+0.5", "unknown", "1")

"""The command lines as a user meets them: help, and one line for a mistake."""

import ast
import json
import pathlib
import re
import subprocess
import sys
import time

import pytest
from paths import ROOT
from zygote import run

from configs import base
from locvlm_jax import command

# Each command with what it has to be given before it looks at anything else.
COMMANDS = {
  "train": ("--config=configs/micro.py:tiny", "--workdir=w"),
  "evaluate": ("--config=configs/micro.py:tiny", "--workdir=w"),
  "generate": ("--prompt=x",),
  "fit": ("--data=d", "--out=o"),
  "serve": (),
  "reproduce": ("--config=configs/micro.py:tiny", "--workdir=w"),
  "report": ("--workdir=w",),
  "convert": ("--output=o",),
  "build_data": ("--out=o",),
  "pseudo_label": ("--mode=panoptic", "--out=o"),
  "overlap": (),
  "train_tokenizer": ("--out=o",),
  "plan": ("--config=configs/micro.py:tiny", "--topology=a100:8"),
  "profile": (),
  "microworld": ("--out=o",),
  "data.inspect": ("--config=configs/micro.py:tiny",),
  "evals.score": ("--task=gqa", "--predictions=p"),
  "evals.write_lmms_tasks": ("--config=configs/micro.py:tiny", "--out=o"),
}
WITH_CONFIG = [c for c, given in COMMANDS.items() if "--config" in str(given)]
TAKE_WORDS = ("overlap", "profile")
LIGHT = {"absl", "locvlm_jax.command", "locvlm_jax.files"}

each_command = pytest.mark.parametrize("command", COMMANDS)


def _source(command: str) -> ast.Module:
  path = ROOT / "locvlm_jax" / command.replace(".", "/")
  file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
  return ast.parse(file.read_text(encoding="utf-8"))


def _flags(command: str) -> list[str]:
  """The flags that a command defines, in their order."""
  found = []
  for node in _source(command).body:
    call = getattr(node, "value", None)
    name = getattr(getattr(call, "func", None), "attr", "")
    if name.startswith("DEFINE_"):
      found.append(call.args[0].value)
    elif name.startswith("define_"):
      found.append(name.removeprefix("define_"))
  return found


@each_command
def test_help_shows_the_docstring_and_the_commands_own_flags(command):
  done = run(command, "--help")
  assert done.returncode == 0 and not done.stderr
  about, _, listed = done.stdout.partition("\nFlags:\n")
  assert about.strip() == ast.get_docstring(_source(command)).strip()
  assert f"python -m locvlm_jax.{command}" in about
  named = re.findall(r"^  --(?:\[no\])?(\w+): \S", listed, re.M)
  assert named == _flags(command)
  statuses = re.findall(r"\((required|optional|default:\s)", listed)
  assert len(statuses) == len(named)


@each_command
def test_config_and_workdir_are_the_first_flags(command):
  names = _flags(command)
  common = [n for n in names if n in ("config", "workdir")]
  assert common == names[: len(common)] and common == sorted(common)


def test_help_says_what_has_to_be_given_and_what_the_default_is():
  text = run("pseudo_label", "-h").stdout
  assert re.search(r"--mode: <self_training\|.*\(required\)", text)
  assert re.search(r"--frames: .*\(default: 8\)", text)
  assert re.search(r"--\[no\]videos: .*\(default: false\)", text)
  assert re.search(r"--llava: .*\s+\(optional\)", text)


def test_help_of_train_answers_within_a_second():
  line = [sys.executable, "-m", "locvlm_jax.train", "--help"]
  seconds = []
  while len(seconds) < 5 and min(seconds, default=9) > 1:  # others are at work
    began = time.monotonic()
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    seconds.append(time.monotonic() - began)
  assert min(seconds) < 1, seconds


@each_command
def test_a_command_imports_nothing_at_its_top_that_takes_long(command):
  for node in _source(command).body:
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      root = name.split(".")[0]
      known = root in sys.stdlib_module_names or root == "ml_collections"
      assert known or name in LIGHT or root in LIGHT, name


def _refusal(command: str, *flags: str) -> tuple[int, str]:
  """The exit code, and the one line on standard error."""
  done = run(command, *flags)
  lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
  assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
  return done.returncode, lines[0]


@each_command
def test_a_flag_that_is_unknown_is_a_wrong_config(command):
  code, line = _refusal(command, *COMMANDS[command], "--nosuch=1")
  assert code == 78 and "'nosuch'" in line


@each_command
def test_a_word_that_is_no_flag_is_refused(command):
  if command not in TAKE_WORDS:
    code, line = _refusal(command, *COMMANDS[command], "nosuch")
    assert code == 78 and "'nosuch'" in line


@pytest.mark.parametrize(
  "command, missing",
  [(c, flag.split("=")[0]) for c, given in COMMANDS.items() for flag in given],
)
def test_a_flag_that_is_missing_is_named(command, missing):
  given = [f for f in COMMANDS[command] if not f.startswith(missing)]
  code, line = _refusal(command, *given)
  assert code == 78 and f"{missing} is missing" in line


@pytest.mark.parametrize("command", TAKE_WORDS)
def test_files_that_are_missing_on_the_command_line_are_asked_for(command):
  code, line = _refusal(command)
  assert code == 78 and "name " in line


CONFIGS = {
  "raises.py": ("def get_config(words=''):\n  return 1 / 0\n",
                "raises.py:2: ZeroDivisionError"),
  "refuses.py": ("def get_config(words=''):\n  raise ValueError('no word')\n",
                 "refuses.py:2: ValueError: no word"),
  "broken.py": ("def get_config(:\n", "broken.py:1: SyntaxError"),
  "imports.py": ("import nosuch\n", "imports.py:1: ModuleNotFoundError"),
  "empty.py": ("def get_config(words=''):\n  pass\n", "returns no config"),
  "other.py": ("x = 1\n", "--config: module 'config_config' has no"),
  "absent.py": (None, "absent.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_file_that_does_not_work_is_named(name, tmp_path):
  text, message = CONFIGS[name]
  if text is not None:
    (tmp_path / name).write_text(text)
  flags = (f"--config={tmp_path / name}", "--workdir=w")
  code, line = _refusal("train", *flags)
  assert code == 78 and message in line


@pytest.mark.parametrize("command", WITH_CONFIG)
def test_a_config_file_that_is_not_there_is_a_wrong_config(command):
  code, line = _refusal(command, *COMMANDS[command], "--config=absent.py")
  assert code == 78 and "absent.py" in line


@pytest.mark.parametrize(
  "flag, message",
  [
    ("--config=configs/micro.py:nosuch", "unknown nosuch; allowed: "),
    ("--config.optim.learning_rate=1", "no such field: 'learning_rate'"),
    ("--config.optim.lr.peak=1", "no such field: "),
    ("--config.steps=many", "--config.steps=many: "),
    ("--config.profile.steps=(1,", "--config.profile.steps=(1,: "),
    ("--config", "--config"),
  ],
)
def test_a_word_or_field_that_the_config_has_not_is_named(flag, message):
  code, line = _refusal("train", *COMMANDS["train"], flag)
  assert code == 78 and message in line


@pytest.fixture(scope="module")
def world(microworld):
  return pathlib.Path(microworld(num_train=8, num_val=4))


MICRO = "--config=configs/micro.py:stage2,tiny"
# Each line names a path that is not there.
MISSING_PATHS = (
  f"train {MICRO} ROOT --workdir=NEW --config.data.images=ABSENT",
  f"train {MICRO} ROOT --workdir=NEW --config.data.instances=ABSENT",
  f"train {MICRO} ROOT --workdir=NEW --config.tokenizer=ABSENT",
  f"train {MICRO} ROOT --workdir=NEW --config.init.vision=ABSENT",
  f"train {MICRO} ROOT --workdir=NEW --config.init.llava=ABSENT",
  f"train {MICRO} ROOT --workdir=NEW --config.init.checkpoint=ABSENT",
  f"evaluate {MICRO} ROOT --workdir=NEW",
  f"evaluate {MICRO} ROOT --workdir=NEW --llava=ABSENT",
  "evaluate --workdir=NEW --table=4",
  "generate --prompt=x --image=ABSENT",
  "generate --prompt=x --video=ABSENT",
  "generate --prompt=x --checkpoint=ABSENT",
  "reproduce --config=configs/micro.py:demo --workdir=NEW --reference=ABSENT",
  "report --workdir=ABSENT",
  "convert --output=NEW --input=ABSENT",
  f"convert --output=NEW --input=ABSENT --to=ours {MICRO}",
  "build_data --out=NEW --instances=ABSENT --images=WORLD",
  "build_data --out=NEW --instances=WORLD/absent.json --images=ABSENT",
  "build_data --out=NEW --dataset=localize_activitynet --tracks=ABSENT"
  " --videos=WORLD",
  f"pseudo_label {MICRO} ROOT --mode=self_training --out=NEW --workdir=ABSENT",
  f"pseudo_label {MICRO} ROOT --mode=self_training --out=NEW --llava=ABSENT",
  "pseudo_label --mode=segment --out=NEW --model=m --media=m"
  " --things=ABSENT.json",
  "pseudo_label --mode=panoptic --out=NEW --panoptic=ABSENT --masks=WORLD",
  "pseudo_label --mode=panoptic --out=NEW --panoptic=a.json --masks=ABSENT",
  "overlap ABSENT ABSENT",
  "train_tokenizer --out=NEW --root=ABSENT",
  "profile ABSENT",
  f"data.inspect {MICRO} --out=NEW --config.root=ABSENT",
  f"data.inspect {MICRO} ROOT --out=FILE/x",
  "microworld --out=FILE/x",
  "evals.score --task=gqa --predictions=ABSENT",
  "evals.score --task=gqa --predictions=EMPTY --references=ABSENT",
)


@pytest.mark.parametrize("line", MISSING_PATHS)
def test_a_path_that_is_not_there_is_bad_data(line, world, tmp_path):
  (tmp_path / "file.json").write_text("[]")
  places = {
    "ROOT": f"--config.root={world}",
    "WORLD": str(world),
    "NEW": str(tmp_path / "new"),
    "ABSENT": str(tmp_path / "absent"),
    "EMPTY": str(tmp_path / "file.json"),
    "FILE": str(tmp_path / "file.json"),
  }
  line = re.sub(r"\b[A-Z]{3,}\b", lambda m: places[m[0]], line)
  code, said = _refusal(*line.split())
  assert code == 70 and str(tmp_path) in said


def _refused_by_train(world, tmp_path, *flags: str) -> tuple[int, str]:
  workdir = f"--workdir={tmp_path / 'run'}"
  return _refusal("train", MICRO, workdir, f"--config.root={world}", *flags)


def test_a_batch_that_does_not_divide_over_the_mesh_is_refused(world, tmp_path):
  code, line = _refused_by_train(
    world, tmp_path, "--config.batch_size=6", "--config.mesh.fsdp=4"
  )
  assert code == 78 and "batch_size=6" in line


@pytest.mark.parametrize(
  "change, message",
  [
    ({"category_id": 99}, "unknown category 99"),
    ({"bbox": [1, 2, -3, 4]}, "negative size"),
  ],
)
def test_an_annotation_that_is_wrong_is_named(world, tmp_path, change, message):
  notes = world / "annotations" / "instances_train.json"
  content = json.loads(notes.read_text())
  content["annotations"][0].update(change)
  broken = tmp_path / "broken.json"
  broken.write_text(json.dumps(content))
  flag = f"--config.data.instances={broken}"
  code, line = _refused_by_train(world, tmp_path, flag)
  first = content["annotations"][0]["id"]
  assert code == 70 and f"annotation {first}: " in line and message in line


def test_a_file_that_is_no_json_is_named(world, tmp_path):
  broken = tmp_path / "broken.json"
  broken.write_text('{"images": [')
  flag = f"--config.data.instances={broken}"
  code, line = _refused_by_train(world, tmp_path, flag)
  assert code == 70 and re.search(r"broken.json: not valid json", line)


def test_a_tokenizer_is_trained_on_a_microworld(world, tmp_path):
  done = run("train_tokenizer", f"--root={world}", f"--out={tmp_path / 't'}")
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "t" / "tokenizer.json").is_file()


def test_names_in_a_list_may_be_given_with_commas():
  fields = base.get_config()
  fields.validation.tasks = ("locpred,revloc",)
  fields.data.exclude = ("a.json, b.json",)
  fields.eval.stop = ("one, two",)
  fields.eval.tasks = ("gqa",)
  command._split_names(fields)
  assert fields.validation.tasks == ("locpred", "revloc")
  assert fields.data.exclude == ("a.json", "b.json")
  assert fields.eval.stop == ("one, two",) and fields.eval.tasks == ("gqa",)


@pytest.mark.parametrize(
  "command, flags",
  [
    ("build_data", ("--instances=absent.json", "--images=absent")),
    ("pseudo_label", ("--mode=panoptic", "--panoptic=absent.json")),
  ],
)
def test_a_missing_folder_of_out_is_named_before_anything_else(
  command, flags, tmp_path
):
  code, line = _refusal(command, *flags, f"--out={tmp_path}/typo/o.jsonl")
  assert code == 70 and f"no such folder as {tmp_path}/typo" in line

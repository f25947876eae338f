"""Whole runs that are killed, preempted, starved, poisoned and mismatched.

The numbers are those of `run.py`'s table.
"""

import json
import pathlib
import random
import re
import shutil
import time

import cluster
import pytest

pytestmark = pytest.mark.acceptance
STACKS = "most recent call first"


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
  """An unbroken run of two processes."""
  folder = tmp_path_factory.mktemp("whole")
  ended = cluster.run(folder, world, 2)
  assert ended.codes == [0, 0], ended.text
  return folder


def _same(a, b, step: int = 12) -> bool:
  """Whether two checkpoints hold the same bits, and two runs the same losses.

  Checksums of every leaf, as each checkpoint records and verifies them.
  """
  leaves = [cluster.info(f, step)["leaves"] for f in (a, b)]
  return leaves[0] == leaves[1] and cluster.curve(a) == cluster.curve(b)


# -------------------------------------------------------------- 18, 19: resume


def test_kill_anywhere(world, tmp_path):
  """20 kills at random moments, a few of them before the first step."""
  steps, every = 1200, 10
  flags = (
    f"--config.steps={steps}",
    f"--config.checkpoint_every={every}",
    "--config.log_every=1",
  )
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  ended = cluster.run(whole, world, 1, *flags, devices=1, timeout=300)
  assert ended.codes == [0], ended.text
  expected, rng = cluster.ids(whole, 1), random.Random(0)
  first = cluster.Cluster(broken, world, 1, *flags, devices=1)
  first.wait_for(f"step {every + 1}/")  # one is on its way
  time.sleep(1)
  first.kill()
  for _ in range(19):
    before = cluster.steps(broken)
    logged = max((row[0] for row in cluster.curve(broken)), default=0)
    assert logged - max(before, default=0) <= 2 * every, (logged, before)
    c = cluster.Cluster(broken, world, 1, *flags, devices=1)
    if rng.random() < 0.75:
      c.wait_for("compiled in")
      time.sleep(rng.uniform(0, 0.8))
    else:
      time.sleep(rng.uniform(0, 5))
    c.kill()
    log = c.log()
    if "compiled" in log:
      start = int(re.search(r"at step (\d+)", log).group(1))
      assert start == max(before)
      got = cluster.ids(broken, 1)
      assert got == expected[start : start + len(got)]
  ended = cluster.run(broken, world, 1, *flags, devices=1, timeout=300)
  assert ended.codes == [0], ended.text
  assert _same(whole, broken, steps)


@pytest.fixture(scope="module")
def preempted(world, tmp_path_factory):
  """Two processes, of which one was asked to end before step 6."""
  folder = tmp_path_factory.mktemp("preempted")
  fault = {"process": 1, "phase": "data", "step": 6, "action": "term"}
  ended = cluster.run(folder, world, 2, fault=fault)
  assert ended.codes == [75, 75], ended.text
  return folder


@pytest.mark.parametrize("num, devices", [(1, 4), (2, 4), (4, 4), (1, 1)])
def test_resume_on_other_processes(
  num, devices, world, whole, preempted, tmp_path
):
  """The same bits on two and four; one reduces in another order."""
  folder = tmp_path / "resumed"
  shutil.copytree(preempted, folder)
  ended = cluster.run(folder, world, num, devices=devices)
  assert set(ended.codes) == {0}, ended.text
  start = max(cluster.steps(preempted))
  assert cluster.ids(folder, num) == cluster.ids(whole, 2)[start:]
  if num > 1:
    assert _same(whole, folder)
  for got, wanted in zip(
    cluster.curve(folder), cluster.curve(whole), strict=True
  ):
    assert got == pytest.approx(wanted, rel=1e-5), "gradient's norm"
    assert got[1] == pytest.approx(wanted[1], rel=1e-6), "loss"


# --------------------------------------------------------------- 29: SIGTERM


def test_sigterm_in_every_phase(world, tmp_path):
  """One run, interrupted in four phases, ends with the bits of the whole.

  All agree on a step that is some steps ahead, the more so on a slow machine.
  """
  steps = "--config.steps=28"
  unbroken, tmp_path = tmp_path / "unbroken", tmp_path / "broken"
  assert cluster.run(unbroken, world, 2, steps).codes == [0, 0]
  for phase, step, action, more in (
    ("compile", 1, "term", {}),
    ("step", 3, "term", {}),
    ("data", 6, "term+nap", {}),
    ("save", 8, "term", {"slow_saves": 2}),
  ):
    fault = {"process": 1, "phase": phase, "step": step, "action": action}
    ended = cluster.run(tmp_path, world, 2, steps, fault=fault | more)
    assert ended.codes == [75, 75], ended.text
    saved = re.findall(r"saved at step (\d+)", ended.text)
    assert len(set(saved)) == 1 and len(saved) == 2, ended.text
    assert cluster.steps(tmp_path)[-1] == int(saved[0]) >= step
  assert cluster.run(tmp_path, world, 2, steps).codes == [0, 0]
  assert _same(unbroken, tmp_path, 28)


def test_sigterm_in_evaluation(world, whole, tmp_path):
  """Both stop after the same batch, and go on without asking twice."""
  shutil.copytree(whole / "run", tmp_path / "run")
  fault = {"process": 1, "phase": "answer", "step": 1, "action": "term"}
  flags = (
    "--config.eval.batch_size=4",
    "--config.eval.samples=32",
    "--tasks=locpred",
  )

  def evaluate(**options):
    return cluster.run(
      tmp_path, world, 2, *flags, command="evaluate", timeout=200, **options
    )

  ended = evaluate(fault=fault)
  assert ended.codes == [75, 75], ended.text
  batches = re.findall(r"preempted after (\d+) batches", ended.text)
  assert len(batches) == 2 and len(set(batches)) == 1, ended.text
  ended = evaluate()
  assert ended.codes == [0, 0], ended.text
  told = f"{4 * int(batches[0])} answers are there already"
  assert told in ended.logs[0], ended.text
  rows = (tmp_path / "run/predictions.jsonl").read_text().splitlines()
  ids = [json.loads(row)["id"] for row in rows]
  assert len(ids) == len(set(ids)) > 4 * int(batches[0])


def test_pseudo_captions_of_two_processes(world, whole, tmp_path):
  """One process makes them, and two that are killed on the way."""

  def captions(name: str, num: int, **options):
    folder = tmp_path / name
    out = folder / "captions.jsonl"
    shutil.copytree(whole / "run", folder / "run", dirs_exist_ok=True)
    ended = cluster.run(
      folder,
      world,
      num,
      "--mode=self_training",
      f"--out={out}",
      "--config.eval.batch_size=4",
      "--config.pseudo.filters=()",
      "--config.pseudo.samples=32",
      command="pseudo_label",
      timeout=200,
      **options,
    )
    return ended, out

  one, wanted = captions("one", 1)
  assert one.codes == [0], one.text
  fault = {"process": 1, "phase": "answer", "step": 4, "action": "kill"}
  killed, out = captions("two", 2, fault=fault)
  assert 0 not in killed.codes and not out.exists(), killed.text
  two, out = captions("two", 2)
  assert two.codes == [0, 0] and "12 answers are there" in two.text, two.text
  assert out.read_bytes() == wanted.read_bytes()
  lines = wanted.read_text().splitlines()
  assert len(lines) == len(set(lines)) == 32


def test_sigterm_to_a_single_process(world, tmp_path):
  fault = {"process": 0, "phase": "data", "step": 6, "action": "term"}
  ended = cluster.run(tmp_path, world, 1, fault=fault)
  assert ended.codes == [75], ended.text
  assert cluster.steps(tmp_path)[-1] == 6
  assert cluster.run(tmp_path, world, 1).codes == [0]
  assert [row[0] for row in cluster.curve(tmp_path)] == list(range(1, 13))


# ---------------------------------------------------------- 31: no silent hang


@pytest.mark.parametrize(
  "fault, named",
  [
    (
      {"phase": "data", "step": 5, "action": "kill"},
      r"process 1 of 2 on \S+, step \d+, phase \w+: dead or frozen",
    ),
    (
      {"phase": "step", "step": 5, "action": "freeze"},
      r"process 1 of 2 on \S+, step \d+, phase \w+: dead or frozen",
    ),
    (
      {"phase": "data", "step": 5, "action": "raise"},
      r"process 1 of 2 on \S+, step 5, phase data: injected",
    ),
    (
      {"kind": "fewer", "step": 5},
      r"process 1 of 2 on \S+, step 5, phase data: .*StopIteration",
    ),
    (
      {"phase": "data", "step": 5, "action": "sleep"},
      r"process 1 of 2 on \S+, step 5, phase data",
    ),
  ],
  ids=["killed", "frozen", "raises", "fewer batches", "sleeps"],
)
def test_no_silent_hang(fault, named, world, tmp_path):
  c = cluster.Cluster(tmp_path, world, 2, fault={"process": 1} | fault)
  c.wait_for("step 4/")
  began = time.monotonic()
  while c.processes[0].poll() is None:
    assert time.monotonic() - began < 60, "still running"
    time.sleep(0.2)
  if fault.get("action") == "freeze":
    c.kill()  # no process ends another one that is frozen
  ended = c.wait(60 - (time.monotonic() - began))
  assert 0 not in ended.codes, ended.text
  assert re.search(named, ended.logs[0]), ended.text
  assert STACKS in ended.logs[0], ended.text


def test_one_never_comes(world, tmp_path):
  ended = cluster.run(
    tmp_path,
    world,
    2,
    "--config.faults.start_seconds=15",
    absent=(1,),
    timeout=60,
  )
  assert ended.codes == [72], ended.text
  assert re.search(r"process 0 of 2 on \S+, step 0, phase start", ended.text)
  assert STACKS in ended.text


# -------------------------------------------------------- 32: processes differ


@pytest.mark.parametrize(
  "what, options",
  [
    ("config.optim/lr", {"only": {1: ("--config.optim.lr=0.5",)}}),
    ("config.batch_size", {"only": {1: ("--config.batch_size=16",)}}),
    ("jax", {"fault": {"process": 1, "facts": {"jax": "0.0.1"}}}),
    (
      "code of locvlm_jax",
      {"fault": {"process": 1, "facts": {"code of locvlm_jax": "00"}}},
    ),
    ("local devices", {"fault": {"process": 1, "facts": {"local devices": 3}}}),
    ("instances", {"fault": {"process": 1, "kind": "data"}}),
    ("program", {"fault": {"process": 1, "kind": "program"}}),
  ],
  ids=lambda x: x.replace("/", ".") if isinstance(x, str) else "",
)
def test_processes_that_differ(what, options, world, tmp_path):
  ended = cluster.run(tmp_path, world, 2, **options)
  assert ended.codes == [73, 73], ended.text
  for log in ended.logs:
    assert re.search(rf"process 1 on \S+ differs .*{what}: ", log), log
  assert "step 1/" not in ended.text


# --------------------------------------------------------------- 36: not finite


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_not_finite(kind, world, tmp_path):
  """One bad row of one process is skipped by both; three steps stop both."""
  fault = {"process": 1, "kind": kind, "steps": [3, 6, 7, 8]}
  ended = cluster.run(
    tmp_path,
    world,
    2,
    "--config.checkpoint_every=1",
    "--config.checkpoint_keep=20",
    fault=fault,
  )
  assert ended.codes == [71, 71], ended.text
  with open(tmp_path / "run" / "incidents.jsonl") as f:
    told = [json.loads(line) for line in f]
  assert [x["step"] for x in told] == [3, 6, 7, 8]
  ids = cluster.ids(tmp_path, 2)
  assert [x["examples"] for x in told] == [ids[s - 1] for s in (3, 6, 7, 8)]
  # A save refuses what is not finite; skipped steps move nothing.
  saved = cluster.steps(tmp_path)
  leaves = {s: cluster.info(tmp_path, s)["leaves"]["params"] for s in saved}
  assert leaves[2] == leaves[3] != leaves[4]
  assert leaves[5] == leaves[max(saved)]


# ------------------------------------------------------------------ 21: disk


def test_disk_full(world, tmp_path):
  """From the second save on no file may grow, as on a full disk."""
  keep = "--config.checkpoint_keep=9"
  # After a nap, so that the first one is on disk.
  fault = {"process": 0, "phase": "save", "step": 8, "action": "nap+limit"}
  ended = cluster.run(tmp_path, world, 1, keep, fault=fault)
  assert ended.codes == [74], ended.text
  assert "was not saved" in ended.text and "MiB free" in ended.text
  assert cluster.steps(tmp_path) == [4]
  ended = cluster.run(tmp_path, world, 1, keep)
  assert ended.codes == [0] and "at step 4" in ended.text, ended.text


# --------------------------------------------------------------- 17: secrets

CANARIES = {
  "HF_TOKEN": "hf_canary0123456789",
  "WANDB_API_KEY": "wandbcanary0123456789",
  "GOOGLE_APPLICATION_CREDENTIALS": "/tmp/googlecanary0123456789.json",
  "HTTPS_PROXY": "http://user:passcanary0123456789@localhost:1",
}


def test_no_secret_is_written(world, tmp_path):
  run = {"env": CANARIES}
  assert cluster.run(tmp_path, world, 1, **run).codes == [0]
  ended = cluster.run(
    tmp_path, world, 1, "--tasks=locpred", command="evaluate", **run
  )
  assert ended.codes == [0], ended.text
  shutil.copytree(tmp_path / "run", tmp_path / "kept")
  shutil.rmtree(tmp_path / "run")
  fault = {"process": 0, "phase": "data", "step": 5, "action": "raise"}
  ended = cluster.run(tmp_path, world, 1, fault=fault, **run)
  assert ended.codes == [1] and "Traceback" in ended.text
  files = [f for f in pathlib.Path(tmp_path).rglob("*") if f.is_file()]
  assert len(files) > 20
  for file in files:
    content = file.read_bytes()
    for canary in CANARIES.values():
      assert canary.encode() not in content, file


# ------------------------------------------------------------- 39: recompiles


def test_nothing_is_compiled_after_the_first_steps(world, tmp_path):
  """60 steps in rows of several lengths, resumed in between."""
  flags = (
    "--config.data.sort_window=4",
    "--config.data.text_length=192",
    "--config.data.max_pairs=4",
    "--config.steps=60",
    "--config.log_every=1",
    "--config.checkpoint_every=20",
  )
  fault = {
    "process": 0,
    "phase": "data",
    "step": 30,
    "action": "term",
    "kind": "count",
  }
  for code in (75, 0):
    ended = cluster.run(
      tmp_path, world, 1, *flags, devices=1, fault=fault, timeout=300
    )
    assert ended.codes == [code], ended.text
    with open(tmp_path / "compiled.json") as f:
      events = json.load(f)  # [phase, step] of every compilation
    first = min(step for phase, step in events if phase == "compile")
    assert len({s for p, s in events if p == "compile"}) <= 4
    late = [e for e in events if e[0] in ("data", "step") and e[1] > first + 2]
    assert late == [], late
    fault = {"process": 0, "kind": "count"}

"""The launch scripts print what they would run, and run it."""

import json
import os
import shlex
import string
import subprocess
import sys

import pytest
from paths import ROOT

WHAT = {
  "CONFIG": "configs/micro.py:tiny",
  "FLAGS": "--config.seed=3",
  "PYTHON": sys.executable,
}
PODS = {"TPU_NAME": "slice", "ZONE": "here", "NAME": "run", "IMAGE": "image",
        "HOSTS": "4", "CHIPS": "4", "ACCELERATOR": "tpu-v5p-slice",
        "TOPOLOGY": "2x2x4"}  # fmt: skip


def _dry(tmp_path, script: str, *words: str, **env: str):
  workdir = tmp_path / "never made"
  env = {**os.environ, **WHAT, "WORKDIR": str(workdir).replace(" ", "_"), **env}
  done = subprocess.run(
    ["bash", str(ROOT / "launch" / script), *words, "--dry-run"],
    env=env,
    capture_output=True,
    text=True,
    cwd=tmp_path,
    timeout=60,
  )
  assert not list(tmp_path.iterdir()), "a dry run wrote something"
  return done


def test_local(tmp_path):
  lines = _dry(tmp_path, "local.sh", "3").stdout.splitlines()
  assert len(lines) == 3
  for i, line in enumerate(lines):
    assert f"JAX_NUM_PROCESSES=3 JAX_PROCESS_ID={i} " in line
    assert "-m locvlm_jax.train --config=configs/micro.py:tiny" in line
    assert line.endswith("--config.seed=3")


@pytest.mark.parametrize("per, tasks", [("node", 2), ("gpu", 16)])
def test_slurm(tmp_path, per, tasks):
  out = _dry(tmp_path, "slurm_gpu.sh", NODES="2", PER=per, GRACE="60").stdout
  assert "--nodes=2" in out and "--gpus-per-node=8" in out
  assert "--signal=B:TERM@60" in out and "--requeue" in out
  assert f"srun --ntasks={tasks} " in out
  assert ("JAX_LOCAL_DEVICE_IDS" in out) == (per == "gpu")


def test_tpu_pod(tmp_path):
  out = _dry(tmp_path, "tpu_pod.sh", COMMAND="evaluate", **PODS).stdout
  assert out.startswith("gcloud compute tpus tpu-vm ssh slice --zone=here")
  assert "--worker=all" in out and "JAX_NUM_PROCESSES=auto" in out
  assert "locvlm_jax.evaluate" in out


def test_gke(tmp_path):
  yaml = pytest.importorskip("yaml")
  out = _dry(tmp_path, "gke.sh", **PODS).stdout
  assert "${" not in out
  text = out.split("<<EOF\n")[1].removesuffix("EOF\n")
  (job,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  assert spec["parallelism"] == spec["completions"] == 4
  (container,) = spec["template"]["spec"]["containers"]
  assert container["args"][0].startswith(f"exec {sys.executable} -m locvlm_jax")
  (rule,) = spec["podFailurePolicy"]["rules"]
  from locvlm_jax import errors

  # What would come again, or come back as it was, is not what restarts.
  again = {errors.Stalled.code, errors.SaveFailed.code, errors.Preempted.code}
  assert not again & set(rule["onExitCodes"]["values"])


ODD = {
  "WORKDIR": "/my runs/a[1]",
  "FLAGS": """--config.data.images='/my data/[x]' --tasks=a*b,c "--x=it's" """,
}
WORDS = ["--workdir=/my runs/a[1]", "--config.data.images=/my data/[x]",
         "--tasks=a*b,c", "--x=it's"]  # fmt: skip


@pytest.mark.parametrize(
  "script, begins",
  [
    ("local.sh", "JAX_NUM_PROCESSES=1"), ("slurm_gpu.sh", "srun"),
    ("tpu_pod.sh", "gcloud"), ("gke.sh", "exec "),
  ],
)  # fmt: skip
def test_spaces_and_brackets_reach_the_program_as_they_are(
  tmp_path, script, begins
):
  words = ("1",) if script == "local.sh" else ()
  out = _dry(tmp_path, script, *words, **{**PODS, **ODD}).stdout
  (line,) = (
    x.strip() for x in out.splitlines() if x.strip().startswith(begins)
  )
  read = shlex.split(line)
  # What a shell on the other machine is given, it reads once more.
  inner = [x for x in read if "locvlm_jax.train" in x and " " in x]
  read = shlex.split(inner[0]) if inner else read
  at = read.index("locvlm_jax.train")
  assert [w for w in read[at + 2 :] if "start_seconds" not in w] == WORDS


def test_a_workdir_with_a_space_is_one_folder(tmp_path):
  out = _dry(tmp_path, "slurm_gpu.sh", **ODD).stdout
  made = next(x for x in out.splitlines() if x.startswith("mkdir"))
  assert shlex.split(made) == ["mkdir", "-p", ODD["WORKDIR"]]


@pytest.mark.parametrize(
  "given, message",
  [("config.seed=3", "config.seed=3: a flag begins"), ("--x='a", "not closed")],
)
def test_flags_that_a_shell_cannot_read_are_refused(tmp_path, given, message):
  done = _dry(tmp_path, "local.sh", "1", FLAGS=given)
  assert done.returncode == 78 and message in done.stderr and not done.stdout


def test_every_variable_of_the_jobset_is_explained():
  text = (ROOT / "launch" / "gke_jobset.yaml").read_text()
  named = set(string.Template(text).get_identifiers()) - {"RUN"}
  script = (ROOT / "launch" / "gke.sh").read_text()
  assert named and all(f"#   {name} " in script for name in named)


@pytest.mark.parametrize(
  "script, missing",
  [
    ("local.sh", "CONFIG"),
    ("slurm_gpu.sh", "WORKDIR"),
    ("tpu_pod.sh", "TPU_NAME"),
    ("gke.sh", "NAME"),
  ],
)
def test_what_is_missing_is_named(tmp_path, script, missing):
  words = ("2",) if script == "local.sh" else ()
  env = {**PODS, missing: ""} if missing != "NAME" else {}
  done = _dry(tmp_path, script, *words, **env)
  assert done.returncode != 0 and missing in done.stderr


@pytest.mark.acceptance
def test_local_trains_evaluates_and_resumes(tmp_path, microworld):
  """Two processes train, four go on and evaluate."""
  root = microworld(num_train=24, num_val=8)
  flags = f"--config.root={root} --config.optim.name=adamw"
  env = {
    **os.environ,
    "CONFIG": "configs/micro.py:stage2,tiny",
    "WORKDIR": str(tmp_path / "run"),
    "PYTHON": sys.executable,
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "PYTHONPATH": str(ROOT),
  }

  def run(num, **more):
    done = subprocess.run(
      ["bash", str(ROOT / "launch" / "local.sh"), str(num)],
      env=env | more,
      capture_output=True,
      text=True,
      timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  out = run(2, DEVICES="2", FLAGS=f"{flags} --config.checkpoint_keep=1")
  assert "[0] step 2/2" in out and "[1] step 2/2" not in out
  run(4, FLAGS=f"{flags} --tasks=locpred", COMMAND="evaluate")
  result = json.loads((tmp_path / "run" / "results.json").read_text())
  assert result["metrics"]["locpred.num"] == 8
  lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
  assert len(lines) == 8
  out = run(4, FLAGS=flags)
  assert "resumed" in out and "at step 2" in out

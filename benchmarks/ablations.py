"""Repeats two of the paper's comparisons on the micro-world, over seeds.

  python -m benchmarks.ablations pseudo_captions   about 80 minutes on a core
  python -m benchmarks.ablations video             about 60

`pseudo_captions` (Table 11) trains stage 2 on the categories of objects, and on
captions of them that the model itself has written after stage 1. It evaluates
region description, for which METEOR needs Java (README).
`video` (Tables 6 to 8) trains from the committed reference, for the same number
of steps, the adapter alone on conversations about videos (Vid-B), and adapter
and LLM on these and on objects that do not move in videos (Vid-B+).

Both arms of a seed have the same data, steps and order of images. Prints mean
and standard deviation of each metric over seeds, and the margin; writes all
values to OUT/NAME.json. A run that is finished is not repeated.
"""

import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys

from absl import flags

from locvlm_jax import command

PSEUDO = {
  "world": ("--train=6000", "--val=500", "--videos=8"),
  "tasks": ("rd_refcocog_val", "locpred", "revloc", "hallucination"),
  "metrics": ("rd_refcocog_val.meteor", "rd_refcocog_val.cider",
              "rd_refcocog_val.exact", "locpred.acc_iou50",
              "hallucination.accuracy"),
  "arms": ("categories", "pseudo-captions"),
}  # fmt: skip
VIDEO = {
  "world": ("--train=100", "--val=500", "--videos=1500"),
  "tasks": ("video_vqa", "activitynet_qa", "hal_act"),
  "metrics": ("video_vqa.accuracy", "activitynet_qa.match",
              "hal_act.accuracy"),
  "arms": ("vid_b", "vid_b_plus"),
}  # fmt: skip
EXPERIMENTS = {"pseudo_captions": PSEUDO, "video": VIDEO}
_OUT = flags.DEFINE_string("out", "runs/ablations", "A folder for the runs.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each arm.", 1)
_STEPS = flags.DEFINE_integer("steps", 800, "Of training.", 1)
_JOBS = flags.DEFINE_integer("jobs", 1, "Arms that run at a time.", 1)


def run(folder: pathlib.Path, command: str, *arguments: str) -> None:
  """Runs a command of the package, with a log, unless it is done already."""
  folder.mkdir(parents=True, exist_ok=True)
  done = folder / f"{command}.done"
  if done.exists():
    return
  line = [sys.executable, "-m", f"locvlm_jax.{command}", *arguments]
  print("$ python", *line[1:], flush=True)
  with open(folder / f"{command}.log", "a", encoding="utf-8") as log:
    code = subprocess.run(line, stdout=log, stderr=log).returncode
  if code:
    sys.exit(f"error {code}: see {folder / command}.log")
  done.touch()


def prepare(out: pathlib.Path, seed: int) -> None:
  """Trains stage 1 for the arms of a seed, and lets it write the captions."""
  flags, stage1 = _common(out, seed), out / f"stage1-{seed}"
  shared = ("--config=configs/micro.py:stage1", f"--workdir={stage1}", *flags)
  run(stage1, "train", *shared)
  run(
    stage1,
    "pseudo_label",
    *shared,
    "--mode=self_training",
    f"--out={out}/captions-{seed}.jsonl",
    "--config.eval.max_new_tokens=12",
  )


def pseudo_captions(out: pathlib.Path, seed: int, arm: str, steps: int) -> None:
  """Trains stage 2 on one kind of targets, from the same stage 1."""
  captions = out / f"captions-{seed}.jsonl" if arm == "pseudo-captions" else ""
  train(
    out / f"{arm}-{seed}",
    "stage2,demo",
    f"--config.steps={steps}",
    f"--config.init.checkpoint={out}/stage1-{seed}",
    f"--config.data.object_captions={captions}",
    "--config.data.objectives.loc_pred=2.0",
    "--config.data.objectives.rev_loc=2.0",
    *_common(out, seed),
  )


def video(out: pathlib.Path, seed: int, arm: str, steps: int) -> None:
  """Trains stage 3 from the reference model."""
  train(
    out / f"{arm}-{seed}",
    arm,
    f"--config.video.cache={out / 'features'}",
    f"--config.steps={steps}",
    *_common(out, seed),
  )


def _common(out: pathlib.Path, seed: int) -> list[str]:
  """Returns the flags that all commands of a seed have."""
  return [f"--config.root={out / 'world'}", f"--config.seed={seed}"]


def train(folder: pathlib.Path, words: str, *flags: str) -> None:
  """Trains and evaluates an arm in `folder`."""
  shared = (f"--config=configs/micro.py:{words}", f"--workdir={folder}", *flags)
  run(folder, "train", *shared)
  tasks = ",".join(EXPERIMENTS[folder.parent.name]["tasks"])
  run(folder, "evaluate", *shared, f"--tasks={tasks}", "--samples=500")


def summary(out: pathlib.Path, name: str, seeds: int) -> dict:
  """Reads {metric: {arm: [value of each seed]}} of the metrics that exist."""
  found = {}
  for arm in EXPERIMENTS[name]["arms"]:
    for seed in range(seeds):
      path = out / f"{arm}-{seed}" / "results.json"
      metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
      for metric in EXPERIMENTS[name]["metrics"]:
        if metric in metrics:
          arms = found.setdefault(metric, {})
          arms.setdefault(arm, []).append(metrics[metric])
  return found


def table(found: dict, arms: tuple[str, str]) -> str:
  """Writes Markdown: mean ± deviation, and the margin of the second arm."""
  lines = [f"| | {arms[0]} | {arms[1]} | margin |", "|---|---|---|---|"]
  for metric, values in found.items():
    one, two = (values[arm] for arm in arms)
    margin = statistics.fmean(two) - statistics.fmean(one)
    lines.append(
      f"| `{metric}` | {_spread(one)} | {_spread(two)} | {margin:+.3f} |"
    )
  return "\n".join(lines)


def _spread(values: list[float]) -> str:
  deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
  return f"{statistics.fmean(values):.3f} ± {deviation:.3f}"


def main(argv: list[str]) -> None:
  """Runs all arms of all seeds, --jobs at a time, and prints the table."""
  if len(argv) != 2 or argv[1] not in EXPERIMENTS:
    raise ValueError(f"name one of {', '.join(EXPERIMENTS)}")
  name, seeds = argv[1], range(_SEEDS.value)
  out = pathlib.Path(_OUT.value) / name
  run(out, "microworld", f"--out={out / 'world'}", *EXPERIMENTS[name]["world"])
  train_arm = {"pseudo_captions": pseudo_captions, "video": video}[name]
  arms = EXPERIMENTS[name]["arms"]
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "compiled"))
  os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(8 << 30))
  with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
    if name == "pseudo_captions":
      list(pool.map(lambda seed: prepare(out, seed), seeds))
    pairs = [(seed, arm) for seed in seeds for arm in arms]
    list(pool.map(lambda pair: train_arm(out, *pair, _STEPS.value), pairs))
  found = summary(out, name, len(seeds))
  (out.parent / f"{name}.json").write_text(json.dumps(found, indent=2))
  print(table(found, arms))


if __name__ == "__main__":
  command.run(main, takes_arguments=True)

"""Two of the paper's comparisons, on the micro-world, over seeds.

  python -m benchmarks.ablations pseudo_captions   about 80 minutes on a core
  python -m benchmarks.ablations video             about 60

`pseudo_captions` (Table 11): stage 2 with the categories as targets, and with
captions of the objects that the model itself has made after stage 1; region
description, whose METEOR wants Java (README).
`video` (Tables 6 to 8): the adapter alone on conversations about videos
(Vid-B), and adapter and LLM on these and on what stands still (Vid-B+), for as
many steps, both from the committed reference.

The arms of a seed have the same data, steps and order of images. Prints mean
and standard deviation over seeds of each metric, and the margin; writes all
values to DIR/NAME.json. What is finished is not repeated.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys

BASE = "locvlm_jax/assets/micro_base"
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


def run(folder: pathlib.Path, command: str, *arguments: str) -> None:
  """One command of the package on one core's worth of threads, with a log."""
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
  """What the arms of a seed of `pseudo_captions` share, and the captions."""
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
  """Stage 2 by one kind of targets, from the same stage 1."""
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
  """Stage 3 from the reference model."""
  train(
    out / f"{arm}-{seed}",
    arm,
    f"--config.video.cache={out / 'features'}",
    f"--config.steps={steps}",
    *_common(out, seed),
  )


def _common(out: pathlib.Path, seed: int) -> list[str]:
  return [f"--config.root={out / 'world'}", f"--config.seed={seed}"]


def train(folder: pathlib.Path, words: str, *flags: str) -> None:
  """An arm in `folder`, and its evaluation."""
  shared = (f"--config=configs/micro.py:{words}", f"--workdir={folder}", *flags)
  run(folder, "train", *shared)
  tasks = ",".join(EXPERIMENTS[folder.parent.name]["tasks"])
  run(folder, "evaluate", *shared, f"--tasks={tasks}", "--samples=500")


def summary(out: pathlib.Path, name: str, seeds: int) -> dict:
  """{metric: {arm: [values]}}, of what every arm has."""
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
  """Markdown: mean ± deviation, and the margin of the second arm."""
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


def main() -> None:
  """All arms of all seeds, `--jobs` at a time, then the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("name", choices=EXPERIMENTS)
  parser.add_argument("--out", default="runs/ablations", metavar="DIR")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--steps", type=int, default=800)
  parser.add_argument("--jobs", type=int, default=1, help="arms at a time")
  chosen = parser.parse_args()
  out, name = pathlib.Path(chosen.out) / chosen.name, chosen.name
  run(out, "microworld", f"--out={out / 'world'}", *EXPERIMENTS[name]["world"])
  do = {"pseudo_captions": pseudo_captions, "video": video}[name]
  seeds, arms = range(chosen.seeds), EXPERIMENTS[name]["arms"]
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "compiled"))
  os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(8 << 30))
  with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
    if name == "pseudo_captions":
      list(pool.map(lambda seed: prepare(out, seed), seeds))
    pairs = [(seed, arm) for seed in seeds for arm in arms]
    list(pool.map(lambda pair: do(out, *pair, chosen.steps), pairs))
  found = summary(out, name, chosen.seeds)
  (out.parent / f"{name}.json").write_text(json.dumps(found, indent=2))
  print(table(found, arms))


if __name__ == "__main__":
  main()

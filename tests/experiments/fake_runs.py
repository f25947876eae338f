"""An experiment whose commands leave what the real ones would."""

import json
import os
import random

from locvlm_jax import files
from locvlm_jax.experiments import experiment
from locvlm_jax.experiments.runs import World

WORLD = World(train=10, val=5, videos=1)


def make(workdir, tables=("4",), **fields) -> experiment.Experiment:
  return experiment.Experiment(
    tables=tables,
    config="configs/micro.py:tiny",
    workdir=str(workdir),
    world=WORLD,
    samples=50,
    **fields,
  )


class Commands:
  """Runs nothing: records the commands, and writes their files.

  Attributes:
    calls: (command, flags) in the order in which they began.
    fails: the first of these commands in one of these folders ends with 75.
  """

  def __init__(self, skills: dict[str, float], fails: str = ""):
    self.calls, self.fails, self._skills = [], fails, skills

  def __call__(self, command, arguments, path, cores) -> int:
    assert cores and os.path.isdir(os.path.dirname(path))
    flags = dict(a[2:].split("=", 1) for a in arguments)
    self.calls.append((command, flags))
    if self.fails and self.fails in flags.get("workdir", ""):
      self.fails = ""
      return 75
    if command == "train":
      self._train(flags["workdir"], flags["config.seed"])
    if command == "evaluate":
      self._evaluate(flags["workdir"], flags["out"], flags["config.seed"])
    return 0

  def _train(self, folder: str, seed: str) -> None:
    arm = os.path.basename(folder).split("-seed")[0]
    if arm not in self._skills:
      return
    last = self._skills[arm] + 0.01 * int(seed)
    with open(os.path.join(folder, "metrics.jsonl"), "w") as f:
      for step, value in ((100, 0.2), (100, 0.5), (200, last)):
        metrics = {"val.spatial_trained.direct.all": value,
                   "val.locpred.acc_iou50": value - 0.2,
                   "loss": 2.0 - value}  # fmt: skip
        f.write(json.dumps({"step": step, **metrics}) + "\n")

  def _evaluate(self, workdir: str, folder: str, seed: str) -> None:
    arm = os.path.basename(workdir).split("-seed")[0]
    rng = random.Random(arm + seed)
    boxes = ("acc_iou50", "acc_iou75", "mean_iou")
    rows, metrics = [], {f"locpred.{n}": self._skills[arm] for n in boxes}
    for axis in ("left_right", "above_below"):
      name = f"spatial_trained.direct.{axis}.all"
      right = [rng.random() < self._skills[arm] for _ in range(50)]
      metrics[name] = sum(right) / len(right)
      rows += [
        {"task": "spatial_trained", "id": f"{axis}/{i}",
         "question": f"Question {i}?", "answer": "Left.",
         "truth": {"setting": "direct", "axis": axis},
         "result": {"correct": r}}
        for i, r in enumerate(right)
      ]  # fmt: skip
    with open(os.path.join(folder, "predictions.jsonl"), "w") as f:
      f.writelines(json.dumps(row) + "\n" for row in rows)
    # As the real one: last, and whole, for tables are written meanwhile.
    units = {m: "number" if "mean" in m else "share" for m in metrics}
    results = {"metrics": metrics, "units": units}
    files.write_json(os.path.join(folder, "results.json"), results)

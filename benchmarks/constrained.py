"""Compares locations by the grammar with free decoding, question by question.

  python -m locvlm_jax.microworld --out runs/mw --train 100 --val 500
  python -m benchmarks.constrained --root runs/mw

The committed reference model is asked LocPred questions about held-out images:
freely, by the grammar greedily, and by the grammar with a beam of four. These
take turns, a hundred questions each, so that all are timed under the same load.
Prints the share of answers that hold a location, Acc@0.5, and boxes a second:
locations that can be read, per second of answering.
"""

import json
import statistics
import time

import jax
from absl import flags

from configs import micro
from locvlm_jax import assemble, command
from locvlm_jax.config import Config, freeze
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import predictor
from locvlm_jax.parallel import sharding

PART = 100
_ROOT = flags.DEFINE_string("root", None, "A micro-world.")
_NUM = flags.DEFINE_integer("num", 1000, "Questions.", 1)


def _config(root: str, num: int) -> Config:
  """Returns the config of the reference, with questions about `root`."""
  config = micro.get_config("stage2")
  config.root = root
  config.eval.update(samples=num, batch_size=1)
  return freeze(config)


def _timed(answerer, part) -> tuple[list[str], float]:
  """Returns answers, one question at a time, and the seconds that they took."""
  began = time.perf_counter()
  answers = [answerer([question])[0] for question in part]
  return answers, time.perf_counter() - began


def measure(root: str, num: int) -> dict:
  """Returns metrics and boxes a second of the ways, and how they compare."""
  config, task = _config(root, num), EVALS["locpred"]
  questions = assemble.questions(
    config, task, seed=config.eval.seed, samples=config.eval.samples
  )
  mesh = sharding.make_mesh(assemble.mesh_sizes(config))
  with jax.set_mesh(mesh):
    free = predictor.Predictor.load(config, mesh, "", micro.REFERENCE)
    ways = {
      "free": free,
      "greedy": free.decoded(constrained=True),
      "beam": free.decoded(constrained=True, beams=4),
    }
    for answerer in ways.values():
      _timed(answerer, questions)  # compiles every length of prompts
    said, seconds = {n: [] for n in ways}, {n: [] for n in ways}
    for i in range(0, len(questions), PART):
      for name, answerer in ways.items():
        answers, took = _timed(answerer, questions[i : i + PART])
        said[name] += answers
        seconds[name].append(took)
  result = {name: task.score(questions, said[name]) for name in ways}
  for name, metrics in result.items():
    boxes = metrics["num"] * metrics["parse_rate"]
    metrics["boxes_per_s"] = boxes / sum(seconds[name])
  return {**result, **_speeds(seconds)}


def _speeds(seconds: dict[str, list[float]]) -> dict[str, float]:
  """Compares with free answering: the median over the parts."""
  return {
    f"{name}, times as fast as free": statistics.median(
      f / c for f, c in zip(seconds["free"], seconds[name], strict=True)
    )
    for name in ("greedy", "beam")
  }


def main(argv: list[str]) -> None:
  """Prints what `measure` finds."""
  del argv
  print(json.dumps(measure(_ROOT.value, _NUM.value), indent=2))


if __name__ == "__main__":
  command.run(main, required=["root"])

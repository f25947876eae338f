"""lmms-eval, where it is installed, gives the scores of `evaluate`."""

import pytest

from configs import micro
from locvlm_jax import ASSETS, agreement, assemble
from locvlm_jax.config import freeze
from locvlm_jax.evals import session
from locvlm_jax.evals.harness import lmms_tasks
from locvlm_jax.evals.tasks import EVALS

MICRO = str(ASSETS / "micro_reference")
TASKS = ("spatial", "hallucination", "revloc", "vqa")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
def test_fifty_questions_have_the_same_scores_to_the_digit(
  microworld, tmp_path
):
  evaluator = pytest.importorskip("lmms_eval.evaluator")
  from lmms_eval.tasks import TaskManager

  config = micro.get_config()
  config.root, config.eval.samples = microworld(2, 40), 50
  config = agreement.adopt(freeze(config), MICRO)
  asked = {
    name: assemble.questions(config, EVALS[name], seed=0, samples=50)
    for name in TASKS
  }
  out = str(tmp_path / "tasks")
  names = [
    lmms_tasks.write(out, EVALS[n], q, max_new_tokens=32, temperature=0.0)
    for n, q in asked.items()
  ]
  wanted = session.evaluate(config, "", TASKS, MICRO, str(tmp_path / "ours"))
  found = evaluator.simple_evaluate(
    model="locvlm_jax",
    model_args=f"checkpoint={MICRO}",
    tasks=names,
    batch_size=10,
    bootstrap_iters=0,
    task_manager=TaskManager(include_path=out, include_defaults=False),
  )["results"]
  compared = 0
  for name in TASKS:
    assert len(asked[name]) == 50
    for key, value in found[f"locvlm_{name}"].items():
      metric, _, kind = key.partition(",")
      if kind == "none" and f"{name}.{metric}" in wanted:
        assert value == wanted[f"{name}.{metric}"], metric
        compared += 1
  assert compared >= len(TASKS)

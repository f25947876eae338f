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

pytestmark = [
  pytest.mark.parity,
  pytest.mark.filterwarnings("ignore"),  # those of lmms-eval
]


@pytest.fixture(scope="module")
def evaluator():
  return pytest.importorskip(
    "lmms_eval.evaluator", reason="lmms-eval is not installed"
  )


@pytest.fixture(scope="module")
def asked(evaluator, microworld, tmp_path_factory):
  """(the folder of its tasks, their names, the scores of evaluate)."""
  config = micro.get_config()
  config.root, config.eval.samples = microworld(2, 60), 50
  config = agreement.adopt(freeze(config), MICRO)
  out = tmp_path_factory.mktemp("lmms")
  names = []
  for name in TASKS:
    questions = assemble.questions(config, EVALS[name], seed=0, samples=50)
    assert 48 <= len(questions) <= 50  # spatial ones come in groups
    names.append(
      lmms_tasks.write(
        str(out / "tasks"),
        EVALS[name],
        questions,
        max_new_tokens=32,
        temperature=0.0,
      )
    )
  wanted = session.evaluate(config, "", TASKS, MICRO, str(out / "ours"))
  return str(out / "tasks"), names, wanted


def _check_scores(evaluator, asked, **model):
  """Asks a model by lmms-eval, and compares every score that both give."""
  from lmms_eval.tasks import TaskManager

  folder, names, wanted = asked
  found = evaluator.simple_evaluate(
    tasks=names,
    bootstrap_iters=0,
    task_manager=TaskManager(include_path=folder, include_defaults=False),
    **model,
  )["results"]
  compared = 0
  for name in TASKS:
    for key, value in found[f"locvlm_{name}"].items():
      metric, _, kind = key.partition(",")
      if kind == "none" and f"{name}.{metric}" in wanted:
        assert value == wanted[f"{name}.{metric}"], f"{name}.{metric}"
        compared += 1
  assert compared > 2 * len(TASKS)


def test_fifty_questions_have_the_same_scores_to_the_digit(evaluator, asked):
  _check_scores(
    evaluator,
    asked,
    model="locvlm_jax",
    model_args=f"checkpoint={MICRO}",
    batch_size=10,
  )


def test_the_same_fifty_have_these_scores_through_the_endpoint(
  evaluator, asked
):
  served = pytest.importorskip(
    "served", reason="the extra [serve] is not installed"
  )
  from locvlm_jax.inference.model import Model
  from locvlm_jax.serving import loading
  from locvlm_jax.serving.limits import Limits

  limits = Limits(pictures=1, prompt_tokens=128, new_tokens=32)
  micro_model = loading.serve_model(Model.load(MICRO), "micro", limits, rows=8)
  with served.running(limits, served=micro_model) as client:
    address = f"base_url=http://127.0.0.1:{client.port}/v1"
    _check_scores(
      evaluator,
      asked,
      model="openai",
      model_args=f"model=micro,{address},api_key=none,timeout=120",
    )

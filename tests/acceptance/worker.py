"""A command of `locvlm_jax` as one process of a test, with a fault.

  python tests/acceptance/worker.py train|evaluate|pseudo_label FLAGS

LOCVLM_FAULT is json: what to do when process `process` begins `phase` of
`step`: {"process": 1, "phase": "data", "step": 5, "action": "kill"}. The ids of
every batch go to `ids-PROCESS.jsonl` in LOCVLM_TEST_FOLDER.
"""

import importlib
import json
import os
import pathlib
import resource
import signal
import sys
import time

# TensorBoard's writer brings TensorFlow, seconds of every start.
sys.modules["clu"] = None

FAULT = json.loads(os.environ.get("LOCVLM_FAULT", "{}"))
FOLDER = pathlib.Path(os.environ["LOCVLM_TEST_FOLDER"])
PROCESS = int(os.environ.get("JAX_PROCESS_ID", "0"))


def _raise():
  raise RuntimeError("injected")


ACTIONS = {
  "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
  "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
  "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
  "sleep": lambda: time.sleep(1000),
  "nap": lambda: time.sleep(4),
  "raise": _raise,
  # Less than a checkpoint's files have, more than the log with its tracebacks.
  "limit": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000,) * 2),
}


def _count_compilations(watch) -> None:
  import atexit

  import jax

  events, where = [], ["start", 0]
  original = watch.enter

  def enter(self, step, phase):
    where[:] = [phase, step]
    original(self, step, phase)

  def heard(name, *_, **__):
    if name == "/jax/core/compile/backend_compile_duration":
      events.append(list(where))

  def write():
    with open(FOLDER / "compiled.json", "w", encoding="utf-8") as f:
      json.dump(events, f)

  watch.enter = enter
  jax.monitoring.register_event_duration_secs_listener(heard)
  atexit.register(write)


def _inject_at_phase(watch) -> None:
  original, done = watch.enter, []

  def enter(self, step, phase):
    original(self, step, phase)
    here = FAULT.get("phase") == phase and step >= FAULT.get("step", 0)
    if here and not done:
      done.append(step)
      print(f"injected {FAULT['action']} at step {step}", flush=True)
      for action in FAULT["action"].split("+"):
        ACTIONS[action]()

  watch.enter = enter


def _ends_early(stream) -> None:
  """One process has fewer batches than the others."""
  original = stream.train_iterator

  def train_iterator(*args, **kwargs):
    stream = original(*args, **kwargs)
    return iter([next(stream) for _ in range(FAULT["step"] - 1)])

  stream.train_iterator = train_iterator


def _another_program(step_lib) -> None:
  original = step_lib.loss_sums

  def loss_sums(*args):
    total, sums = original(*args)
    return total * 2, sums

  step_lib.loss_sums = loss_sums


def _poisoned(step_lib) -> None:
  """Loss, or one leaf of the gradient, is not finite at some steps.

  One row alone is bad: the others, on other hosts, have to skip too.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  original, seen = step_lib.inputs, iter(range(1, 10**6))
  sums = step_lib.loss_sums

  @jax.custom_vjp
  def poison(x, bad):
    return x

  poison.defvjp(
    lambda x, bad: (x, bad),
    lambda bad, g: (jnp.where(bad > 0, jnp.nan, g), jnp.zeros_like(bad)),
  )

  def inputs(batch):
    rows = original(batch)
    bad = np.zeros(len(rows["tokens"]), np.float32)
    if next(seen) in FAULT["steps"] and PROCESS == FAULT["process"]:
      bad[-1] = 1.0
    return rows | {"bad": bad}

  def loss_sums(model, params, batch):
    bad = batch["bad"].max()
    if FAULT["kind"] == "gradient":
      params = jax.tree.map(lambda x: x, params)
      head = params["llm"]["final_norm"]
      head["scale"] = poison(head["scale"], bad)
    total, counts = sums(model, params, batch)
    if FAULT["kind"] == "loss":
      total = jnp.where(bad > 0, jnp.inf, total)
    return total, counts

  step_lib.inputs, step_lib.loss_sums = inputs, loss_sums


def _log_ids(step_lib) -> None:
  original = step_lib.inputs
  out = open(FOLDER / f"ids-{PROCESS}.jsonl", "a", encoding="utf-8")  # noqa: SIM115

  def inputs(batch):
    out.write(json.dumps(batch["example"].tolist()) + "\n")
    out.flush()
    return original(batch)

  out.write('"begin"\n')
  step_lib.inputs = inputs


def _slow_saves(checkpoints) -> None:
  original = checkpoints.ocp.CheckpointManager._finalize_checkpoint

  def finalize(self, step):
    time.sleep(FAULT["slow_saves"])
    return original(self, step)

  checkpoints.ocp.CheckpointManager._finalize_checkpoint = finalize


def _other_facts(provenance) -> None:
  original = provenance.facts
  provenance.facts = lambda config: original(config) | FAULT["facts"]


def _other_data(catalog) -> None:
  catalog.hashes = lambda data: {"instances": "another"}


def inject() -> None:
  from locvlm_jax import provenance
  from locvlm_jax.data import catalog
  from locvlm_jax.data import stream as stream_lib
  from locvlm_jax.parallel import hosts
  from locvlm_jax.training import step as step_lib
  from locvlm_jax.weights import checkpoints

  _log_ids(step_lib)
  if FAULT.get("kind") in ("loss", "gradient"):
    _poisoned(step_lib)
  if "slow_saves" in FAULT:
    _slow_saves(checkpoints)
  if FAULT.get("process") != PROCESS:
    return
  if FAULT.get("kind") == "count":
    _count_compilations(hosts.Watch)
  if "phase" in FAULT:
    _inject_at_phase(hosts.Watch)
  if FAULT.get("kind") == "fewer":
    _ends_early(stream_lib)
  if FAULT.get("kind") == "program":
    _another_program(step_lib)
  if FAULT.get("kind") == "data":
    _other_data(catalog)
  if "facts" in FAULT:
    _other_facts(provenance)


if __name__ == "__main__":
  from locvlm_jax import command

  module = importlib.import_module(f"locvlm_jax.{sys.argv.pop(1)}")
  inject()
  command.run(module.main)

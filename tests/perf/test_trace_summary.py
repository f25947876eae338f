"""A trace is written at the steps asked for, and read without TensorFlow."""

import glob
import os
import types

import jax
import jax.numpy as jnp
import pytest
from changed import changed

from configs import base
from locvlm_jax import checks
from locvlm_jax.perf import trace_summary, xplane
from locvlm_jax.training import tracing

PROFILE = types.SimpleNamespace(steps=(2, 3), hlo=True, memory=True)


@jax.jit
def train_step(state, batch):
  """Two stages, and a loop whose body has a third."""

  def layer(x, _):
    with jax.named_scope("attention"):
      return jnp.tanh(x @ batch), None

  with jax.named_scope("vision"), jax.named_scope("mlp"):
    x = jnp.exp(state @ batch)
  x, _ = jax.lax.scan(layer, x, None, 8)
  with jax.named_scope("optimizer"):
    return state + x @ x, {"loss": x.sum()}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
  directory = str(tmp_path_factory.mktemp("run"))
  step = tracing.traced(train_step, PROFILE, directory, start=0)
  x, written = jnp.ones((256, 256)) / 256, []
  for _ in range(4):
    x, _ = step(x, x)
    written.append(bool(glob.glob(f"{directory}/**/*.pb", recursive=True)))
  assert written == [False, False, True, True]
  return directory


def test_stages_and_marked_steps_are_found(trace):
  summary = trace_summary.read(trace)
  operations, steps, devices = summary
  assert steps == 2 and devices == 1
  text = trace_summary.report(summary, top=3)
  stages = {trace_summary.stage(one.scope) for one in operations}
  assert {"ViT", "attention", "optimizer"} <= stages
  assert "MLP" not in stages  # the ViT's own
  assert "operations that take longest" in text and "attention" in text
  # Eight products in the loop, one in the ViT; the loop's own time is small.
  products = [o for o in operations if "dot_general" in o.scope]
  inside = [o for o in products if trace_summary.stage(o.scope) == "attention"]
  assert len(inside) >= 8 * steps


def test_executions_are_counted_where_no_steps_are_marked(tmp_path):
  x = jnp.ones((256, 256)) / 256
  shift = jax.jit(lambda x: x + 1)
  jax.block_until_ready((train_step(x, x), shift(x)))
  with jax.profiler.trace(str(tmp_path)):
    for _ in range(5):
      x, _ = train_step(x, x)
      for _ in range(3):
        shift(x).block_until_ready()
  summary = trace_summary.read(str(tmp_path))
  assert summary.steps == 5
  assert "devices, 5 steps" in trace_summary.report(summary, top=3)


def test_executions_are_counted_where_the_trace_has_no_program():
  """Of a loop of eight in a program that ran five times, and a shorter one."""

  def ran(name: str, times: int, program: str = "jit_train_step"):
    one = trace_summary.Operation(name, "", 10.0, program, ("/host:CPU", 0))
    return [one] * times

  operations = [
    *ran("fusion", 5), *ran("dot", 5), *ran("while.dot", 40),
    *ran("while.tanh", 40), *ran("in a branch", 2), *ran("add", 90, "jit_f"),
  ]  # fmt: skip
  trace = xplane.Trace([], {})
  assert trace_summary._executions(trace, operations) == 5


# What a TPU writes: operations and executions on lines of their own, scopes in
# the stats that all events of a name share; a reference points to a name.
TPU = """
planes {
  name: "/device:TPU:0"
  lines {
    name: "XLA Modules"
    events { metadata_id: 1 offset_ps: 0 duration_ps: 9000000 }
    events { metadata_id: 2 offset_ps: 9000000 duration_ps: 1000000 }
    events { metadata_id: 1 offset_ps: 10000000 duration_ps: 9000000 }
    events { metadata_id: 2 offset_ps: 19000000 duration_ps: 1000000 }
    events { metadata_id: 2 offset_ps: 20000000 duration_ps: 1000000 }
  }
  lines {
    name: "XLA Ops"
    events { metadata_id: 3 offset_ps: 0 duration_ps: 6000000 }
    events { metadata_id: 4 offset_ps: 6000000 duration_ps: 2000000 }
    events { metadata_id: 3 offset_ps: 10000000 duration_ps: 6000000 }
    events { metadata_id: 4 offset_ps: 16000000 duration_ps: 2000000 }
  }
  event_metadata { key: 1 value { id: 1 name: "jit_train_step(81)" } }
  event_metadata { key: 2 value { id: 2 name: "jit_shift(82)" } }
  event_metadata { key: 3 value {
    id: 3 name: "%fusion.3 = f32[8]{0} fusion(%p)"
    stats { metadata_id: 1 str_value: "jit(train_step)/vision/dot" } } }
  event_metadata { key: 4 value {
    id: 4 name: "%fusion.4 = f32[8]{0} fusion(%p)"
    stats { metadata_id: 1 ref_value: 2 } } }
  stat_metadata { key: 1 value { id: 1 name: "tf_op" } }
  stat_metadata { key: 2 value { id: 2 name: "jit(train_step)/mlp/dot" } }
}
"""


def test_a_trace_of_a_tpu_has_stages_and_steps(tmp_path):
  data = jax.profiler.ProfileData.text_proto_to_serialized_xspace(TPU)
  (tmp_path / "x.xplane.pb").write_bytes(data)
  summary = trace_summary.read(str(tmp_path))
  assert (summary.steps, summary.devices) == (2, 1)
  assert trace_summary.report(summary, top=2).splitlines() == [
    "0.008 ms a step on 1 devices, 2 steps",
    "  ViT         75.0%      0.006 ms",
    "  MLP         25.0%      0.002 ms",
    "operations that take longest:",
    "   75.0%      0.006 ms  ViT        fusion.3  jit(train_step)/vision/dot",
    "   25.0%      0.002 ms  MLP        fusion.4  jit(train_step)/mlp/dot",
  ]


def test_the_program_and_the_memory_lie_beside_it(trace):
  with open(os.path.join(trace, "host0.hlo.txt"), encoding="utf-8") as f:
    assert f.read().startswith("HloModule jit_train_step")
  assert os.path.getsize(os.path.join(trace, "host0.memory.prof"))


def test_without_steps_nothing_is_wrapped():
  off = types.SimpleNamespace(steps=())
  assert tracing.traced(train_step, off, "", 0) is train_step
  # A resumed run that is past them: no trace that never ends.
  assert tracing.traced(train_step, PROFILE, "", 2) is train_step


def test_own_time_leaves_out_the_events_within():
  def event(name, start, duration):
    times = float(start), float(duration)
    return xplane.Event("p", "XLA Ops", name, *times, {})

  line = [
    event("a", 1, 3),
    event("while", 0, 10),
    event("b", 5, 4),
    event("c", 6, 1),
    event("after", 10, 2),
  ]
  own = {e.name: time for e, time in trace_summary._own_time(line)}
  assert own == {"a": 3, "while": 3, "b": 3, "c": 1, "after": 2}


def test_a_folder_without_traces_is_named(tmp_path):
  with pytest.raises(ValueError, match="no trace.*profile.steps"):
    trace_summary.read(str(tmp_path))
  (tmp_path / "x.xplane.pb").write_bytes(b"\x0a\xff\x01no")
  with pytest.raises(ValueError, match="not a trace"):
    trace_summary.read(str(tmp_path))


@pytest.mark.parametrize("steps", [(3,), (0, 1), (2, 1), (1, 99)])
def test_bad_steps_are_named(steps):
  config = changed(base.get_config("tiny"), **{"profile.steps": steps})
  with pytest.raises(ValueError, match=f"profile.steps=.{steps[0]}"):
    checks.check(config)

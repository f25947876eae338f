"""What a step needs by an estimate, beside what compilers say."""

import jax
import numpy as np
import pytest
from changed import changed

from configs import base, locvlm_b, locvlm_l
from locvlm_jax import assemble
from locvlm_jax.config import freeze, replaced
from locvlm_jax.models import locvlm
from locvlm_jax.parallel import hosts, sharding
from locvlm_jax.perf import machines
from locvlm_jax.training import optimizer, planning, program
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.room import answer, before_start, memory, proposals
from locvlm_jax.training.room.layout import Layout

GIB = 2**30
ONE = {"data": 1, "fsdp": 1, "tensor": 1}
LORA = {"lora.rank": 8, "trainable": ("adapter", "llm/layers/.*_lora_[ab]")}


def small(**fields):
  """A config of which every part of the memory counts."""
  c = base.get_config("tiny")
  c.model.vision.update(image_size=56, patch_size=14, width=64)
  c.model.llm.update(
    vocab_size=2048, width=256, num_layers=4, num_heads=4, num_kv_heads=4,
    head_dim=64, mlp_width=704,
  )  # fmt: skip
  c.data.text_length = 112
  c.mesh.fsdp = 1
  names = {"remat": "model.remat"}
  return replaced(freeze(c), {names.get(k, k): v for k, v in fields.items()})


def compiled(config) -> int:
  """Bytes that XLA plans for the step on one device of this machine."""
  mesh = sharding.make_mesh(ONE, jax.devices()[:1])
  model = locvlm.LocVLM(assemble.model(config).config)
  tx = optimizer.make(config.optim, config.steps)
  rows = sharding.batch_sharding(mesh)
  state = step_lib.state_shapes(
    *planning._parameters(config, model, mesh), tx, mesh
  )
  where = jax.tree.map(lambda x: x.sharding, state)
  step = step_lib.jit_train_step(model, tx, where, rows, config.accumulate)
  with jax.set_mesh(mesh):
    batch = planning.longest_batch(config, model, rows)
    found = step.lower(state, batch).compile().memory_analysis()
  # The peak that XLA for CPUs tells leaves the step's own buffers out.
  return found.argument_size_in_bytes + found.temp_size_in_bytes


CASES = [
  {"remat": "none"},
  {"remat": "dots", "batch_size": 16},
  {"remat": "full", "accumulate": 2},
  {"remat": "full", "model.llm.num_layers": 8},
  {"remat": "none", "trainable": ("adapter",)},
  {"remat": "dots", **LORA},
  {"remat": "full", **LORA},
  {"remat": "none", "optim.name": "muon"},
  {"remat": "none", "optim.mu_dtype": "bfloat16"},
  {"remat": "dots", "data.pack": 2},
  {"remat": "none", "accumulate": 4, "batch_size": 16},
  {"remat": "dots", "data.text_length": 240},
]


@pytest.mark.parametrize(
  "fields",
  [
    pytest.param(fields, marks=[pytest.mark.slow] if i else [])
    for i, fields in enumerate(CASES)
  ],
)
def test_an_estimate_is_within_a_tenth_of_the_compiled_step(fields):
  config = small(**fields)
  got = memory.memory(config, Layout.of(config)).total
  assert got == pytest.approx(compiled(config), rel=0.1)


# Config, word, device, mesh, remat, GiB that XLA's compilers plan, further
# fields (benchmarks/results/plan.md).
PLANS = [
  (locvlm_l, "", "NVIDIA A100", {"fsdp": 8}, "dots", 30.21, 128),
  (locvlm_l, "", "NVIDIA A100", {"fsdp": 8}, "none", 44.41, 128),
  (locvlm_l, "", "NVIDIA A100", {"fsdp": 8}, "full", 16.46, 128),
  (locvlm_b, "", "NVIDIA A100", {"fsdp": 8}, "none", 34.14, 128),
  (locvlm_l, "", "NVIDIA H200", {}, "full", 120.67, 128),
  (locvlm_b, "", "NVIDIA A100", {"fsdp": 8}, "none", 36.28, 192),
  (locvlm_l, "stage1", "NVIDIA A100", {"data": 8}, "dots", 67.45, 64),
  (locvlm_b, "stage1", "NVIDIA A100", {"data": 8}, "dots", 26.67, 64),
  (locvlm_l, "", "TPU v5 lite", {"fsdp": 16}, "full", 8.84, 128),
  (locvlm_l, "", "TPU v5 lite", {"fsdp": 16}, "dots", 15.39, 128),
  (locvlm_l, "", "TPU v5", {"fsdp": 16}, "none", 36.32, 192),
  (locvlm_b, "", "TPU v5", {"fsdp": 16}, "none", 21.73, 192),
]


@pytest.mark.parametrize(
  "plan",
  [
    pytest.param(plan, marks=[pytest.mark.slow] if i else [])
    for i, plan in enumerate(PLANS)
  ],
)
def test_an_estimate_is_within_a_tenth_of_what_was_planned(plan):
  module, word, kind, mesh, remat, gib, text = plan
  config = changed(module.get_config(word), **{"data.text_length": text})
  shards = ONE | mesh
  got = memory.memory(config, Layout(shards, 1, remat), kind, shards)
  assert (got.total - got.workspace) / GIB == pytest.approx(gib, rel=0.1)


# Config, word, GiB that XLA's compiler plans for an A100 with 128 text tokens a
# row (docs/performance.md), further fields.
FEW_BYTES = [
  (locvlm_b, "qlora", 6.83, {"batch_size": 8, "lora.rank": 16}),
  (locvlm_l, "qlora", 8.51, {"batch_size": 8, "lora.rank": 16}),
  (locvlm_b, "one_gpu", 74.25, {}),
  (locvlm_l, "one_gpu", 74.51, {}),
]


@pytest.mark.parametrize(
  "plan",
  [
    pytest.param(plan, marks=[pytest.mark.slow] if i else [])
    for i, plan in enumerate(FEW_BYTES)
  ],
)
def test_weights_and_moments_of_few_bytes_are_estimated(plan):
  module, word, gib, fields = plan
  fields = {"data.text_length": 128, **fields}
  config = changed(module.get_config(word), **fields)
  got = memory.memory(config, Layout.of(config), "NVIDIA A100")
  assert (got.total - got.workspace) / GIB == pytest.approx(gib, rel=0.1)


def test_packed_rows_are_estimated_as_they_are_made():
  config = small(**{"data.pack": 4})
  batch = memory.batch(config, assemble.model(config))
  assert batch["tokens"].shape == batch["segments"].shape == (2, 512)
  assert batch["images"].shape == (2, 4, 56, 56, 3)
  config = small(**{"data.tree": 60})
  assert "segments" in memory.batch(config, assemble.model(config))


@pytest.fixture
def in_gib(monkeypatch):
  """Needs that are quick to count: 8 GiB of activations and 1 of the rest."""

  def needs(config, layout, device_kind="", shards=None):
    moment = 0.5 if config.optim.mu_dtype == "bfloat16" else 1
    state = 0.1 if config.lora.rank else 1
    kept = {"none": 8, "dots": 4, "full": 1}[layout.remat] / layout.accumulate
    kept *= config.data.text_length / 112
    parts = state, state, moment * state, kept, 0
    return memory.Memory(*(int(GIB * part) for part in parts))

  monkeypatch.setattr(memory, "memory", needs)


@pytest.mark.parametrize(
  "has, fields",
  [
    (11.9, {"model.remat": "none", "accumulate": 1}),
    (8, {"model.remat": "none", "accumulate": 2}),
    (3.75, {"model.remat": "dots", "accumulate": 8}),
    (3.0, {"optim.mu_dtype": "bfloat16", "accumulate": 4}),
    (1.5, {"lora.rank": 128, "model.remat": "none", "accumulate": 8}),
    (0.45, {"lora.rank": 128, "model.remat": "full", "accumulate": 8}),
  ],
)
def test_what_is_proposed_fits_and_gives_up_the_least(has, fields, in_gib):
  found = proposals.find(small(remat="none"), int(has * GIB), "")
  assert found.needs.total <= has * GIB
  assert found.fields.items() >= fields.items()
  if "lora.rank" in fields:
    assert ".trainable='adapter,llm/layers/.*_lora_[ab]'" in found.flags()


def test_weights_of_few_bits_are_proposed_where_a_lora_does_not_fit(in_gib):
  """And moments of few bits where they are enough."""
  wanted = list(proposals._changes(small()))
  few = next(i for i, x in enumerate(wanted) if "optim.moments" in x)
  lora = next(i for i, x in enumerate(wanted) if "lora.rank" in x)
  nf4 = next(i for i, x in enumerate(wanted) if "model.llm.base_weights" in x)
  assert few < lora < nf4
  assert wanted[nf4]["lora.rank"] == 128


def test_shorter_rows_are_the_last_that_is_proposed(in_gib):
  config = small(**{"data.text_length": 224})
  fields = proposals.find(config, GIB // 2, "").fields
  assert fields["data.text_length"] == 112 and fields["lora.rank"] == 8


def test_where_nothing_fits_there_is_no_proposal(in_gib):
  config = small(remat="none")
  assert proposals.find(config, GIB // 10, "") is None
  assert "more devices" in answer.shortly(config, GIB // 10, "", ONE)


def test_a_step_that_is_far_too_large_is_refused_before_it_is_compiled(
  in_gib, capsys
):
  config, mesh = small(remat="none"), sharding.make_mesh(ONE, jax.devices()[:1])
  before_start.check_estimate(config, mesh, 0)  # a device that does not say
  before_start.check_estimate(config, mesh, 11 * GIB)  # an estimate may be off
  assert "by an estimate: 11.0 GiB of 11.0" in capsys.readouterr().out
  with pytest.raises(ValueError, match="needs .* fits, in .*accumulate=2"):
    before_start.check_estimate(config, mesh, 8 * GIB)


def test_running_out_of_memory_ends_with_a_proposal():
  def traced(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  mesh = sharding.make_mesh(ONE, jax.devices()[:1])
  watch = hosts.Watch(small().faults)
  run = program.Program(traced, traced, mesh, 1, watch, lambda: "Use less.")
  batch = {"tokens": np.zeros((1, 8), np.int32)}
  with pytest.raises(ValueError, match="step 3: out of memory .* 8 .*Use less"):
    run(3, step_lib.TrainState(0, {}, {}, ()), batch)


@pytest.mark.parametrize(
  "name, gib", [("24GB", 23), ("24", 23), ("l4", 21.5), ("B200", 178)]
)
def test_a_device_is_a_name_or_a_size(name, gib):
  assert machines.device(name).memory / GIB == pytest.approx(gib, abs=0.1)


def test_a_device_that_is_neither_is_named():
  with pytest.raises(ValueError, match="device 'gtx': neither a size"):
    machines.device("gtx")


def test_the_speed_of_every_device_is_known(monkeypatch):
  """Else a product would be measured here, which says nothing of it."""
  from locvlm_jax.perf import flops

  monkeypatch.setattr(flops, "_measured_flops", lambda: 0.0)
  for device in machines.DEVICES.values():
    assert flops.peak_flops(device.name) > 1e12, device.name
  assert flops.peak_flops(machines.device("l4").name) == 121e12
  assert flops.peak_flops(machines.device("l40s").name) == 362e12


def test_the_answer_has_parts_and_hours_and_a_proposal(in_gib):
  text = answer.tell(small(remat="none"), machines.device("t4"), search=True)
  for part in ("weights", "activations", "hours", "fits: --config.model.remat"):
    assert part in text

"""What moves between devices: the reader, and the training step itself."""

import jax
import pytest
from changed import changed

from configs import base
from locvlm_jax import assemble
from locvlm_jax.models import params
from locvlm_jax.parallel import sharding
from locvlm_jax.perf import hlo
from locvlm_jax.training import optimizer
from locvlm_jax.training import step as step_lib

# Two layers in a loop on eight devices in two groups; an asynchronous gather
# outside, written twice as XLA for TPUs does; a sum.
TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

%body (p: (s32[], bf16[8,16])) -> (s32[], bf16[8,16]) {
  %g = bf16[32,16]{1,0:T(8,128)} all-gather(%x), channel_id=1, \
replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="step/mlp"}
  %r = f32[8,16]{1,0} reduce-scatter(%y), channel_id=2, \
replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
  ROOT %t = (s32[], bf16[8,16]) tuple(%i, %z)
}

%condition (p: (s32[], bf16[8,16])) -> pred[] {
  %n = s32[]{:T(128)} constant(2)
  ROOT %c = pred[] compare(%i, %n), direction=LT
}

%fused (q: f32[4]) -> f32[32] {
  ROOT %g2 = f32[32]{0} all-gather(%q), channel_id=3, \
replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
}

ENTRY %main (a: f32[4]) -> f32[32] {
  %w = (s32[], bf16[8,16]) while(%t0), condition=%condition, body=%body
  %f1 = f32[32]{0} fusion(%a), kind=kCustom, calls=%fused
  %g3 = f32[32]{0} all-gather(%q), channel_id=3, \
replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
  %s1 = (f32[4]{0}, f32[32]{0}) all-gather-start(%a), channel_id=4, \
replica_groups=[1,8]<=[8], dimensions={0}
  %s2 = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%a), channel_id=5
  %s3 = (f32[3]{0}, f32[5]{0}) all-reduce(%a, %b), channel_id=6, to_apply=%add
  ROOT %d = f32[32]{0} all-gather-done(%s1)
}
"""


def test_a_program_is_read():
  found = hlo.collectives(TEXT)
  assert hlo.summary(found) == {
    "all-gather": {"count": 4, "bytes": 2 * 32 * 16 * 2 + 2 * 32 * 4},
    "all-reduce": {"count": 1, "bytes": 8 * 4},
    "collective-permute": {"count": 1, "bytes": 4 * 4},
    "reduce-scatter": {"count": 2, "bytes": 2 * 32 * 16 * 4},
  }
  assert found[0].op_name == "step/mlp"
  total = sum(kind["bytes"] for kind in hlo.summary(found).values())
  assert hlo.traffic(found) == total + 8 * 4


def test_noted_trips_count():
  noted = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
  found = hlo.collectives(TEXT.replace("body=%body", noted))
  assert found[0].count == 7


def test_a_loop_unrolled_by_two_turns_half_as_often():
  text = TEXT
  for old, new in (
    ("constant(2)", "constant(8)\n  %k = s32[] get-tuple-element(%p), index=0"),
    ("tuple(%i, %z)", "tuple(%k, /*index=1*/%z)"),
    ("  %r = ", "  %two = s32[] constant(2)\n  %r = "),
    ("  %r = ", "  %j = s32[] add(%i, %two)\n  %r = "),
    ("  %r = ", "  %k = s32[] copy(%j)\n  %r = "),
  ):
    assert old in text
    text = text.replace(old, new)
  assert hlo.collectives(text)[0].count == 4


def compiled_step(change=(), batch_size=8, length=96):
  """Stage 2 of a small LocVLM in bfloat16 on four devices, fsdp=4."""
  config = changed(base.get_config("tiny"), **{"model.dtype": "bfloat16"})
  model, mesh = (
    assemble.model(config),
    sharding.make_mesh({"fsdp": 4} | dict(change)),
  )
  rows = sharding.batch_sharding(mesh)
  shapes = params.param_shapes(model)
  where = sharding.param_shardings(shapes, mesh)
  placed = {
    path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where[path])
    for path, x in shapes.items()
  }
  trainable, frozen = params.split(placed, config.trainable)
  tx = optimizer.make(config.optim, 10)
  state = step_lib.state_shapes(trainable, frozen, tx, mesh)
  step = step_lib.jit_train_step(
    model, tx, jax.tree.map(lambda x: x.sharding, state), rows
  )

  def shape(dtype, *dims):
    return jax.ShapeDtypeStruct((batch_size, *dims), dtype, sharding=rows)

  batch = {
    "images": shape("uint8", 1, 32, 32, 3),
    "tokens": shape("int32", length),
    "lengths": shape("int32"),
    "loss_mask": shape("bool", length),
  }
  with jax.set_mesh(mesh):
    return shapes, step.lower(state, batch).compile().as_text()


@pytest.fixture(scope="module")
def fsdp():
  shapes, text = compiled_step()
  return shapes, hlo.collectives(text)


def sizes(shapes) -> set[int]:
  """Elements of each kernel: of a layer, or whole."""
  count = {x.size for x in shapes.values()}
  layers = {p: x.shape[0] for p, x in shapes.items() if "/layers/" in p}
  return count | {shapes[p].size // n for p, n in layers.items()}


def elements(one: hlo.Collective) -> list[int]:
  import math

  return [math.prod(shape) for _, shape in one.arrays]


def test_fsdp_gathers_parameters_and_nothing_else(fsdp):
  shapes, found = fsdp
  kinds = {one.kind for one in found}
  assert kinds <= {"all-gather", "reduce-scatter", "all-reduce"}, kinds
  gathered = [one for one in found if one.kind == "all-gather"]
  assert gathered
  for one in gathered:
    assert set(elements(one)) <= sizes(shapes), one


def test_fsdp_sums_gradients_and_scalars_alone(fsdp):
  shapes, found = fsdp
  trained = {p: x for p, x in shapes.items() if not p.startswith("vision/")}
  allowed = sizes(trained) | {1}
  for one in found:
    if one.kind != "all-gather":
      assert set(elements(one)) <= allowed, one


def test_fsdp_moves_each_parameter_as_often_as_it_has_to(fsdp):
  """Forward; trained layers once more, backward; never in float32 on a GPU.

  XLA for CPUs computes bfloat16 as float32, so that bytes are up to twice
  as many here.
  """
  shapes, found = fsdp
  whole = sum(
    2 * x.size * (1 if p.startswith("vision/") else 2)
    for p, x in shapes.items()
    if len(x.shape) > 1 and "unused" not in p
  )
  moved = hlo.summary(found)["all-gather"]["bytes"]
  assert 0.4 * whole < moved <= 2 * whole, (moved, whole)


def test_batch_and_length_change_no_traffic(fsdp):
  """Activations would grow with them."""
  _, text = compiled_step(batch_size=16, length=160)
  longer = hlo.summary(hlo.collectives(text))
  assert longer == hlo.summary(fsdp[1])

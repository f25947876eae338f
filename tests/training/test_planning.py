"""The plan's arithmetic, and its answers; slow: real compilers."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest
from changed import changed
from paths import ROOT

from configs import base, locvlm_b, locvlm_l
from locvlm_jax import assemble
from locvlm_jax.config import freeze
from locvlm_jax.perf import machines
from locvlm_jax.training import planning
from locvlm_jax.training.room import memory


@pytest.mark.parametrize(
  "topology, num, nodes",
  [
    ("a100:8", 8, 1),
    ("a100:2x8", 16, 2),
    ("h200:1", 1, 1),
    ("v5e:4x4", 16, 1),
    ("v5p:2x2x4", 16, 1),
  ],
)
def test_topologies_are_read(topology, num, nodes):
  target = machines.parse(topology)
  assert (target.num, target.nodes) == (num, nodes)


@pytest.mark.parametrize(
  "topology, says",
  [
    ("b300:8", "'b300' is not one of a100"),
    ("a100", "write it as 8 or 2x8"),
    ("a100:0", "write it as"),
    ("v5e:16", "write it as 4x4"),
    ("v4:2x2", "write it as 2x2x4"),
    ("v6e:4xx4", "write it as 4x4"),
  ],
)
def test_bad_topologies_are_named(topology, says):
  with pytest.raises(ValueError, match=says):
    machines.parse(topology)


def test_without_a_compiler_the_next_step_is_named(monkeypatch):
  from jax.experimental import topologies

  def absent(**_):
    raise NotImplementedError("topology not implemented for cuda")

  monkeypatch.setattr(topologies, "get_topology_desc", absent)
  with pytest.raises(ValueError, match=r"A100.*locvlm_jax\[plan\]"):
    machines.devices(machines.parse("a100:8"))
  with pytest.raises(ValueError, match=r"v5 lite.*locvlm_jax\[plan\]"):
    machines.devices(machines.parse("v5e:2x2"))


def full(module, argument="", text_length=128):
  config = module.get_config(argument)
  return changed(config, **{"data.text_length": text_length})


@pytest.mark.parametrize(
  "module, sample, milliseconds", [(locvlm_b, 15.3, 392), (locvlm_l, 28.2, 723)]
)
def test_floor_is_the_products_and_the_optimizer(module, sample, milliseconds):
  """8 A100, 64 rows: SCALE's FLOPs without the head on visual positions."""
  target = machines.parse("a100:8")
  config = full(module)
  layout = planning.Layout.of(config)
  got = planning.floor(config, target, layout, traffic=10**9)
  assert got["sample_flops"] / 1e12 == pytest.approx(sample, rel=0.01)
  of = got["floor_of_ms"]
  assert of["products"] == pytest.approx(milliseconds, rel=0.01)
  assert of["links"] == pytest.approx(1e9 * 7 / 8 / 300e9 * 1e3)
  assert got["floor_ms"] == pytest.approx(of["products"] + of["optimizer"])
  assert got["days"] == pytest.approx(31_250 * got["floor_ms"] / 86.4e6)


def test_slow_links_bound_a_step():
  config, target = full(locvlm_b), machines.parse("a100:2x8")
  got = planning.floor(
    config, target, planning.Layout.of(config), traffic=10**12
  )
  of = got["floor_of_ms"]
  assert of["links"] == pytest.approx(1e12 * 15 / 16 / 300e9 * 1e3)
  assert got["floor_ms"] == pytest.approx(of["links"] + of["optimizer"])


def test_layouts_divide_batch_heads_and_devices():
  config = full(locvlm_b)
  for layout in planning.layouts(config, machines.parse("a100:2x8")):
    mesh = layout.mesh
    rows = config.batch_size // layout.accumulate
    assert mesh["data"] * mesh["fsdp"] * mesh["tensor"] == 16
    assert rows % (mesh["data"] * mesh["fsdp"]) == 0
  assert config.model.remat == base.get_config().model.remat


@pytest.fixture
def here(monkeypatch):
  """Four of this machine's devices stand for a small slice."""
  monkeypatch.setattr(machines, "devices", lambda target: jax.devices())
  return machines.parse("v5e:2x2")


def test_a_plan_counts_what_the_step_needs(here):
  split = {"mesh.data": 1, "mesh.fsdp": -1}  # a small model would not be
  config = changed(base.get_config("tiny"), **split)
  got = planning.plan(config, here)
  assert got["fits"] and got["memory"]["peak"] > 0
  assert got["settings"]["row"] == 256  # 16 visual, 192 text
  assert got["collectives"]["all-gather"]["bytes"] > 0
  text = planning.table(got)
  for part in ("v5e:2x2", "fits", "all-gather", "floor", "samples/s", "days"):
    assert part in text
  json.dumps(got)


SPLASH = {"model.attention": "splash"}


@pytest.mark.parametrize("topology", ["a100:8", "h200:1"])
def test_a_kernel_of_tpus_is_refused_for_other_machines(topology):
  config, target = changed(locvlm_b.get_config(), **SPLASH), topology
  with pytest.raises(ValueError, match=r"model.attention='splash' on NVIDIA"):
    planning.plan(config, machines.parse(target))
  with pytest.raises(ValueError, match="of TPUs; set --config.model.attention"):
    memory.memory(
      config, planning.Layout.of(config), machines.parse(target).device.name
    )


def test_a_plan_for_tpus_compiles_the_attention_of_the_config(
  here, monkeypatch
):
  seen = []

  def compiled(config, target, layout, mesh):
    kind = target.device.name
    seen.append(assemble.training_model(config, kind).config.attention)
    raise RuntimeError("RESOURCE_EXHAUSTED: Used 20.31G of 15.75G hbm.")

  monkeypatch.setattr(planning, "_compile", compiled)
  config = changed(locvlm_b.get_config(), **SPLASH)
  assert "attention splash" in planning.table(planning.plan(config, here))
  assert seen == ["splash"]


def test_fused_attention_keeps_less_than_plain():
  sizes = {
    name: memory.memory(
      changed(base.get_config("tiny"), **{
        "model.attention": name, "model.llm.head_dim": 128,
      }),
      planning.Layout(memory.ONE_DEVICE, 1, "none"),
      "TPU v5",
    ).activations
    for name in ("xla", "splash")
  }  # fmt: skip
  assert sizes["splash"] < sizes["xla"]


def test_search_names_the_fastest_that_fits(here, capsys, monkeypatch):
  config = freeze(base.get_config("tiny"))
  some = list(planning.layouts(config, here))
  monkeypatch.setattr(
    planning,
    "layouts",
    lambda *_: [v for v in some if v.accumulate == 1 and v.mesh["tensor"] == 1][
      :3
    ],
  )
  results = planning.search(config, here)
  assert [r["settings"]["remat"] for r in results] == ["none", "dots", "full"]
  said = capsys.readouterr().out
  assert "fastest that fits: --config.model.remat=none" in said


def test_what_does_not_fit_ranks_last_and_says_so():
  settings = {
    "remat": "none",
    "accumulate": 1,
    "stage": "stage2",
    "row": 384,
    "batch_size": 64,
    "mesh": {"fsdp": 8},
    "unroll": 1,
    "attention": "auto",
  }
  of = {"products": 1.0, "links": 0.0, "optimizer": 0.0}
  fits = {
    "settings": {**settings, "remat": "full"},
    "fits": True,
    "floor_of_ms": of,
  }
  error = RuntimeError("RESOURCE_EXHAUSTED: Used 20.31G of 15.75G hbm.")
  large = {
    "topology": "v5e:4x4",
    "settings": settings,
    "fits": False,
    **planning._out_of_memory(error),
  }
  assert planning.rank(fits) < planning.rank(large)
  assert "needs 20.3 GiB" in planning.table(large)
  with pytest.raises(RuntimeError, match="other"):
    planning._out_of_memory(RuntimeError("other"))


def _installed(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:
    return False


# (extra's module, topology, word, remat, at most GiB): 10 % over the memory
# measured for LLaMA-7B alone plus 0.85 GiB of ViT and adapter, at 128 text
# tokens and the configs' batch.
CASES = [
  ("jax_plugins.xla_cuda12", "a100:8", locvlm_l, "", "none", 64.2),
  ("jax_plugins.xla_cuda12", "a100:8", locvlm_l, "", "dots", 31.3),
  ("jax_plugins.xla_cuda12", "a100:8", locvlm_b, "", "none", 42.5),
  ("jax_plugins.xla_cuda12", "a100:8", locvlm_b, "", "dots", 23.7),
  ("jax_plugins.xla_cuda12", "a100:8", locvlm_l, "stage1", "full", 24.8),
  ("jax_plugins.xla_cuda12", "a100:1", locvlm_b, "one_gpu", "full", 76.0),
  ("jax_plugins.xla_cuda12", "a100:1", locvlm_l, "one_gpu", "full", 76.0),
  ("libtpu", "v5e:4x4", locvlm_l, "", "dots", 15.75),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("module, topology, config, word, remat, most", CASES)
def test_full_size_memory(
  module, topology, config, word, remat, most, tmp_path
):
  if not _installed(module):
    pytest.skip(f"needs {module}: pip install '.[plan]'")
  out = tmp_path / "plan.json"
  name = config.__name__.replace(".", "/") + ".py" + (word and f":{word}")
  env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  subprocess.run(
    [
      sys.executable,
      "-m",
      "locvlm_jax.plan",
      "--config",
      name,
      "--topology",
      topology,
      "--json",
      str(out),
      "--config.data.text_length=128",
      f"--config.model.remat={remat}",
    ],
    cwd=ROOT,
    env=env,
    check=True,
    timeout=900,
  )
  got = json.loads(out.read_text())
  assert got["fits"] and got["memory"]["peak"] / 2**30 <= most
  kinds = set(got["collectives"])
  assert "all-to-all" not in kinds


@pytest.mark.slow
@pytest.mark.parametrize("config, most", [(locvlm_b, 8.0), (locvlm_l, 12.0)])
def test_a_quantized_base_fits_on_a_small_gpu(config, most):
  """8 rows of 128 text tokens at rank 16, as in docs/performance.md."""
  if not _installed("jax_plugins.xla_cuda12"):
    pytest.skip("needs CUDA's compiler: pip install '.[plan]'")
  target = machines.parse("a100:1")
  machines.prepare(target)
  shown = {"data.text_length": 128, "lora.rank": 16, "batch_size": 8}
  got = planning.plan(changed(config.get_config("qlora"), **shown), target)
  assert got["memory"]["peak"] / 2**30 <= most


@pytest.mark.parametrize("topology", ["a100:8", "v5e:2x2"])
def test_cudas_plugin_is_not_asked_for_a_tpu(topology, monkeypatch):
  name = "jax_plugins.xla_cuda12"
  monkeypatch.setattr(machines.os, "environ", dict(machines.os.environ))
  for plugin in (name, "jax_plugins.xla_cuda13"):
    monkeypatch.setitem(machines.sys.modules, plugin, "cuda's own")
  target = machines.parse(topology)
  machines.prepare(target)
  found = machines.sys.modules[name]
  if target.device.is_gpu:
    assert found == "cuda's own"
  else:
    assert found.initialize() is None

"""Every config loads without jax, and describes a model that exists."""

import importlib
import pathlib
import subprocess
import sys

import ml_collections
import pytest
from changed import changed
from paths import ROOT

from locvlm_jax import assemble, checks
from locvlm_jax.config import freeze

FILES = {p.stem for p in (ROOT / "configs").glob("*.py")}
NAMES = sorted(FILES - {"variants"})
VARIANTS = [(n, "") for n in NAMES] + [
  ("locvlm_b", "stage1"), ("locvlm_l", "stage1"),
  ("locvlm_b", "paper_literal"), ("locvlm_b", "stage2,paper"),
  ("locvlm_b", "chat595k"), ("locvlm_b", "sharegpt"),
  ("locvlm_l", "pretrain558k"), ("locvlm_l", "mix665k"),
  ("locvlm_b", "localize_instruct_200k"), ("locvlm_l", "baseline,lora"),
  ("locvlm_vid_b", "baseline"), ("locvlm_vid_b_plus", "baseline"),
  ("micro", "captions"), ("micro", "base"),
  ("micro", "stage1"),
  ("micro", "baseline"), ("micro", "stage2,demo"),
  ("micro", "vid_b"), ("micro", "vid_b_plus"),
]  # fmt: skip


def load(name: str, argument: str = ""):
  return importlib.import_module(f"configs.{name}").get_config(argument)


def test_configs_load_without_jax():
  code = (
    "import sys; sys.modules['jax'] = None; sys.modules['flax'] = None\n"
    f"import importlib\nfor n in {NAMES}:\n"
    "  importlib.import_module('configs.' + n).get_config('tiny')"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
  "name, argument, axis",
  [
    ("micro", "stage2", "data"),
    ("locvlm_b", "stage1", "data"),
    ("locvlm_b", "stage2", "fsdp"),
    ("locvlm_l", "stage2", "fsdp"),
    ("locvlm_b", "qlora", "fsdp"),
  ],
)
def test_the_models_size_says_which_axis_takes_the_devices(
  name, argument, axis
):
  sizes = assemble.mesh_sizes(freeze(load(name, argument)))
  assert sizes == {"data": 1, "fsdp": 1, "tensor": 1, axis: -1}


@pytest.mark.parametrize("name, argument", VARIANTS)
def test_all_configs_have_the_fields_of_base(name, argument):
  fields = set(load("base").to_dict())
  assert set(load(name, argument).to_dict()) - fields <= {"root"}


def _places(config, prefix: str = "") -> dict[str, tuple]:
  """{"optim.lr": (the group that holds it, "lr")} of every field."""
  found = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      found |= _places(value, f"{prefix}{key}.")
    else:
      found[prefix + key] = (config, key)
  return found


def _moved(config) -> dict[str, list[str]]:
  """Which other fields change when each is set to a value of its own."""
  places, found = _places(config), {}

  def values():
    return {name: group[key] for name, (group, key) in places.items()}

  before = values()
  for name, (group, key) in places.items():
    with group.ignore_type():
      group[key] = f"a value of {name} alone"
    after = values()
    others = [n for n in places if n != name and after[n] != before[n]]
    found |= {name: others} if others else {}
    before = after
  return found


@pytest.mark.parametrize("name, argument", [*VARIANTS, ("coco", "tiny")])
def test_setting_one_field_moves_no_other(name, argument):
  """But for paths below `root`, and what coco's tiny evaluates on."""
  meant = {"data.instances": ["eval.instances"], "data.images": ["eval.images"]}
  moved = _moved(load(name, argument))
  paths = moved.pop("root", [])
  assert all(n.startswith(("data.", "eval.")) for n in paths)
  assert moved == (meant if name == "coco" and argument else {})


@pytest.mark.parametrize("first", ["data", "eval"])
def test_a_tiny_coco_evaluates_on_the_file_that_is_named_for_it(first):
  config = load("coco", "tiny")
  config.data.instances = "one.json"
  assert config.eval.instances == "one.json"
  for group in (first, "eval" if first == "data" else "data"):
    config[group].update(instances=f"{group}.json", images=f"images of {group}")
  for group in ("data", "eval"):
    assert config[group].instances == f"{group}.json"
    assert config[group].images == f"images of {group}"


@pytest.mark.parametrize("name", NAMES)
def test_unknown_word_names_the_allowed_ones(name):
  with pytest.raises(ValueError, match="unknown fast.*tiny"):
    load(name, "fast")


def test_both_readings_of_the_schedule_are_presets():
  assert load("locvlm_b").optim.warmup_ratio == 0.03
  assert load("locvlm_b", "paper_literal").optim.warmup_ratio == 0.3


@pytest.mark.parametrize("name, argument", [*VARIANTS, ("coco", "stage1,tiny")])
def test_evaluation_asks_its_questions(name, argument):
  """Also after a stage that is trained on captions without a question."""
  from locvlm_jax import assemble
  from locvlm_jax.text import encoding

  fields = {
    "tokenizer": load("micro").tokenizer,
    "model.llm.vocab_size": 32_000,
  }
  config = changed(load(name, argument), **fields)
  text = assemble.load_tokenizer(config)
  spec = assemble.question_spec(config, text)
  one, other = (
    encoding.encode_prompt(text, spec.format, (), question, 4).tolist()
    for question in ("Is there a cup?", "Is there a star?")
  )
  assert one != other


@pytest.mark.parametrize("name, argument", VARIANTS)
def test_full_size_shapes_and_sharding(name, argument):
  """eval_shape of the whole model; every parameter finds its one rule."""
  from locvlm_jax import assemble
  from locvlm_jax.models import params as params_lib
  from locvlm_jax.parallel import sharding

  config = freeze(load(name, argument))
  shapes = params_lib.param_shapes(assemble.model(config))
  trainable, frozen = params_lib.split(shapes, config.trainable)
  assert trainable and len(trainable) + len(frozen) == len(shapes)
  for path, shape in shapes.items():
    assert len(sharding.param_spec(path)) <= len(shape.shape), path


@pytest.mark.parametrize(
  "kind, word, remat, unroll",
  [
    ("NVIDIA A100-SXM4-80GB", "", "none", 32),
    ("NVIDIA A100-SXM4-80GB", "stage1", "dots", 1),
    ("NVIDIA H200", "", "dots", 1),
    ("TPU v5 lite", "", "full", 1),
    ("TPU v5 lite", "stage1", "full", 1),
    ("TPU v5p", "", "none", 1),
    ("TPU v6 lite", "", "dots", 1),
    ("cpu", "", "none", 1),
  ],
)
def test_remat_and_unroll_follow_the_device(kind, word, remat, unroll):
  from locvlm_jax import assemble

  config = freeze(load("locvlm_l", word))
  got = assemble.model(config, kind).config
  assert (got.remat, got.unroll) == (remat, unroll)
  config = changed(config, **{"model.remat": "full", "model.unroll": 4})
  got = assemble.model(config, kind).config
  assert (got.remat, got.unroll) == ("full", 4)


def test_attention_is_the_configs_in_training_and_the_devices_in_answers():
  config = changed(load("locvlm_l"), **{"model.attention": "splash"})
  checks.check(config)
  got = assemble.training_model(config, "TPU v5 lite").config
  assert got.attention == "splash"
  assert assemble.model(config).config.attention == "auto"
  with pytest.raises(ValueError, match="'splash' on cpu: the kernel is of TPU"):
    assemble.training_model(config)


@pytest.mark.parametrize(
  "fields, says",
  [
    ({"model.attention": "flash"}, "'flash': not one of auto, xla, splash"),
    (
      {"model.attention": "splash", "model.llm.head_dim": 64},
      "head_dim=64: the kernel takes multiples of 128",
    ),
  ],
)
def test_attention_that_is_not_there_is_refused(fields, says):
  with pytest.raises(ValueError, match=says):
    checks.check(changed(load("locvlm_l"), **fields))


def test_stage1_trains_the_adapter_alone():
  from locvlm_jax import assemble
  from locvlm_jax.models import params as params_lib

  config = freeze(load("locvlm_b", "stage1"))
  shapes = params_lib.param_shapes(assemble.model(config))
  trainable, _ = params_lib.split(shapes, config.trainable)
  assert sum(v.size for v in trainable.values()) == 1024 * 4096 + 4096


def test_the_committed_base_is_the_micro_model():
  from configs import micro
  from locvlm_jax import assemble
  from locvlm_jax.models import params as params_lib
  from locvlm_jax.weights import initial

  config = freeze(micro.get_config("stage1"))
  shapes = params_lib.param_shapes(assemble.model(config))
  stored = initial.stored_params(config.init, assemble.model(config).config)
  found = {path: value.shape for path, value in stored.items()}
  assert found == {path: value.shape for path, value in shapes.items()}
  text = assemble.load_tokenizer(config)
  assert text.vocab_size <= config.model.llm.vocab_size
  files = [p for p in pathlib.Path(micro.BASE).rglob("*") if p.is_file()]
  assert sum(p.stat().st_size for p in files) <= 12e6


@pytest.mark.parametrize("name", ["micro_base", "micro_reference"])
def test_the_committed_weights_name_no_path_of_one_machine(name):
  folder = ROOT / "locvlm_jax" / "assets" / name
  texts = [path.read_text() for path in folder.glob("[!t]*.json")]
  assert texts and not any('"/' in text for text in texts)


def test_the_committed_base_tells_where_its_patches_are():
  """CLIP's features do, and stage 2 builds on it with the tower frozen.

  Plainly, that is: what an LLM, which scales each patch before it reads it, can
  read with weights of its usual size. An adapter that keeps places in
  directions of next to no variance has lost them, though a probe without a
  penalty still finds them.
  """
  import jax
  import numpy as np

  from configs import micro
  from locvlm_jax import assemble
  from locvlm_jax.microworld import scene as scene_lib
  from locvlm_jax.models import params as params_lib
  from locvlm_jax.weights import initial

  config = freeze(micro.get_config("stage1"))
  model = assemble.model(config)
  stored = initial.stored_params(config.init, model.config)
  params = params_lib.unflatten(
    {p: value.read() for p, value in stored.items()}
  )
  size, num = config.model.vision.image_size, 60
  pictures = [_square(scene_lib, i, size) for i in range(num)]
  features = jax.jit(model.apply, static_argnames="method")(
    {"params": params}, np.stack(pictures)[:, None], method="encode_images"
  )
  grid = round(features.shape[1] ** 0.5)
  place = np.indices((grid, grid))[::-1].reshape(2, -1).T  # x, y
  x = np.asarray(features)
  x = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
  x -= x.mean((0, 1))
  x /= np.sqrt(np.square(x).mean())
  seen, held_out = (
    part.reshape(-1, x.shape[-1]) for part in (x[: num // 2], x[num // 2 :])
  )
  target = np.tile(place - place.mean(0), (num // 2, 1))
  penalty = 0.1 * len(seen) * np.eye(x.shape[-1])
  weights = np.linalg.solve(seen.T @ seen + penalty, seen.T @ target)
  error = np.mean((held_out @ weights - target) ** 2, axis=0)
  assert (error < 0.5 * np.var(target, axis=0)).all(), error


def _square(scenes, index: int, size: int):
  import numpy as np
  from PIL import Image

  scene = scenes.make_scene(0, "val", index)
  picture = scenes.paint(scene, scenes.stream("paint", 0, "val", index))
  return np.asarray(Image.fromarray(picture).resize((size, size)))

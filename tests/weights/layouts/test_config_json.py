"""Config files that others wrote: wrong types and missing fields are named."""

import copy
import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy
import torch_files
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_models import CONFIG, params_of

from locvlm_jax import assemble, errors
from locvlm_jax.weights import conversion
from locvlm_jax.weights.layouts import config_json, export, huggingface

ANY = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.sampled_from([0, -1, 1, 2, 3, 7, 10**6, 2**31, 2**70])
  | st.floats()
  | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=2)
    | st.dictionaries(st.text(max_size=5), inner, max_size=2)
  ),
  max_leaves=3,
)


def places(document, path=()):
  """The path of every field, of inner objects too."""
  found = [path] if path else []
  for key, value in document.items():
    inner = value if isinstance(value, dict) else {}
    found += places(inner, (*path, key)) if inner else [(*path, key)]
  return found


@st.composite
def spoiled(draw, document):
  """The document with one or two fields missing, or of any value."""
  document = copy.deepcopy(document)
  for path in draw(st.lists(st.sampled_from(places(document)), max_size=2)):
    *outer, last = path
    at = document
    for key in outer:
      at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, dict):
      if draw(st.booleans()):
        at[last] = draw(ANY)
      else:
        at.pop(last, None)
  return document


def check_told(path, read):
  """`read` returns, or refuses in one line that names the file."""
  try:
    read()
  except Exception as error:
    if errors.code(error) == errors.OUR_MISTAKE:
      raise
    said = errors.describe(error)
    assert str(path) in said and "\n" not in said, said


LLAMA = config_json.llama_json(CONFIG.llm)
ORIGINAL = LLAMA | {
  "model_type": "llava_llama",
  "mm_projector_type": "mlp2x_gelu",
  "mm_hidden_size": CONFIG.vision.width,
  "mm_vision_tower": "openai/clip",
  "mm_vision_select_layer": -2,
  "mm_vision_select_feature": "patch",
  "mm_use_im_start_end": False,
  "image_aspect_ratio": "pad",
}
LORA = {"r": 2, "lora_alpha": 6, "peft_type": "LORA", "use_rslora": True}
INDEX = {
  "metadata": {"total_size": 1},
  "weight_map": {"model.norm.weight": "a.safetensors"},
}
EXAMPLES = 80  # of each kind of file
DOCUMENTS = {
  "llava": config_json.llava_json(CONFIG, 65, 64),
  "llm": LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}},
  "vision": config_json.vision_json(CONFIG.vision),
  "original": ORIGINAL,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Weights for each kind of DOCUMENTS, and a CLIP and a LoRA."""
  folder = tmp_path_factory.mktemp("weights")
  params = params_of(CONFIG)
  export.save_llava(f"{folder}/llava", params, CONFIG)
  for name in ("vision", "clip"):
    export.save_clip_vision(f"{folder}/{name}", params["vision"], CONFIG.vision)
  for name in ("llm", "original", "parts", "base"):
    export.save_llama(f"{folder}/{name}", params["llm"], CONFIG.llm)
  (folder / "lora").mkdir()
  (folder / "lora" / "config.json").write_text(json.dumps(ORIGINAL))
  safetensors.numpy.save_file({}, folder / "lora/adapter_model.safetensors")
  linear = params["adapter"]
  torch_files.write(
    f"{folder}/lora/non_lora_trainables.bin",
    {
      "model.mm_projector.0.weight": np.ascontiguousarray(linear["linear_1"].T),
      "model.mm_projector.0.bias": linear["linear_1_bias"],
      "model.mm_projector.2.weight": np.ascontiguousarray(linear["linear_2"].T),
      "model.mm_projector.2.bias": linear["linear_2_bias"],
    },
  )
  (folder / "parts/model.safetensors").rename(folder / "parts/a.safetensors")
  return folder


def read(folder, kind, base=""):
  inputs = conversion.Inputs(
    str(folder / kind), str(folder / "clip"), base and str(folder / base)
  )
  return conversion.open_model(inputs, assemble.model, dict)


@pytest.mark.parametrize("kind", DOCUMENTS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_config_json_is_read_or_refused_in_one_line(folder, kind, data):
  content = data.draw(spoiled(DOCUMENTS[kind]))
  (folder / kind / "config.json").write_text(json.dumps(content))
  check_told(folder / kind, lambda: read(folder, kind))


@settings(max_examples=EXAMPLES)
@given(content=spoiled(LORA))
def test_any_adapter_config_is_read_or_refused_in_one_line(folder, content):
  path = folder / "lora/adapter_config.json"
  path.write_text(json.dumps(content))
  check_told(path, lambda: read(folder, "lora", "base"))


@settings(max_examples=EXAMPLES)
@given(content=spoiled(INDEX))
def test_any_index_of_parts_is_read_or_refused_in_one_line(folder, content):
  path = folder / "parts/model.safetensors.index.json"
  path.write_text(json.dumps(content))
  check_told(folder / "parts", lambda: read(folder, "parts"))


def test_the_documents_themselves_are_read(folder):
  files = {
    kind: ("config.json", DOCUMENTS[kind]) for kind in ("llava", "vision")
  }
  files |= {"llm": ("config.json", LLAMA)}
  files["lora"] = ("adapter_config.json", LORA)
  files["parts"] = ("model.safetensors.index.json", INDEX)
  for kind, (name, content) in files.items():
    (folder / kind / name).write_text(json.dumps(content))
    assert read(folder, kind, "base" if kind == "lora" else "").params


@pytest.mark.parametrize(
  "content, says",
  [
    ("[1]", "config.json: \\[1\\] is no json object"),
    ("[" * 10**5, "config.json: not valid json"),
    ('{"hidden_size": "32"}', "hidden_size '32' is not an integer from 1"),
    ('{"rope_scaling": {"type": "linear"}}', "rope_scaling.factor is missing"),
    (
      '{"tie_word_embeddings": 1}',
      "tie_word_embeddings 1 is not true or false",
    ),
    ('{"num_key_value_heads": 3}', "num_heads 32 is not a multiple"),
  ],
)
def test_file_field_and_value_are_named(folder, content, says):
  (folder / "llm/config.json").write_text(content)
  with pytest.raises(ValueError, match=says):
    read(folder, "llm")


def test_a_head_that_is_not_the_embedding_is_not_lost(folder, tmp_path):
  tied = dataclasses.replace(CONFIG.llm, tie_embeddings=True)
  for save, open_, shape in (
    (export.save_llama, huggingface.open_llama, CONFIG.llm),
    (export.save_llava, huggingface.open_llava, CONFIG),
  ):
    out = str(tmp_path / save.__name__)
    params = params_of(CONFIG)
    save(out, params if shape is CONFIG else params["llm"], shape)
    path = pathlib.Path(out, "config.json")
    raw = json.loads(path.read_text())
    raw.get("text_config", raw)["tie_word_embeddings"] = tied.tie_embeddings
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="lm_head.*not the embedding"):
      open_(out)
    weights = os.path.join(out, "model.safetensors")
    tensors = safetensors.numpy.load_file(weights)
    head, table = (
      next(k for k in tensors if w in k) for w in ("lm_head", "embed_t")
    )
    safetensors.numpy.save_file(tensors | {head: tensors[table]}, weights)
    assert not [path for path in open_(out)[0] if path.endswith("head")]


def test_a_size_that_is_no_index_of_an_array_is_refused(tmp_path):
  document = {**LLAMA, "vocab_size": 1 << 31}
  (tmp_path / "config.json").write_text(json.dumps(document))
  with pytest.raises(errors.DataError, match="vocab_size 2147483648"):
    conversion.open_model(
      conversion.Inputs(str(tmp_path)), assemble.model, dict
    )

"""transformers' AutoProcessor gives an export the rows that were trained."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from converted import to_hf
from PIL import Image
from toy_models import CONFIG, params_of

from locvlm_jax import ASSETS
from locvlm_jax.data import geometry
from locvlm_jax.models import clip_vit
from locvlm_jax.text import formats
from locvlm_jax.text.encoding import encode_conversation, encode_prompt
from locvlm_jax.text.tokenizer import Tokenizer
from locvlm_jax.weights import runs
from locvlm_jax.weights.layouts import export, huggingface, processor_json

TURNS = [
  ("Where is the cup?", "At [4,5]."),
  ("And  the dog?", "No."),
  ("Why?", ""),
]
SIGLIP = dataclasses.replace(
  CONFIG.vision, family="siglip", activation="gelu_pytorch_tanh", eps=1e-6
)


@pytest.fixture
def exported(words, tmp_path):
  """Writes a toy model that is used as the arguments say; its directory."""

  def write(*usage, vision=CONFIG.vision, model=CONFIG, **fields):
    llm = dataclasses.replace(CONFIG.llm, vocab_size=400)
    config = dataclasses.replace(model, llm=llm, vision=vision)
    out = str(tmp_path / "-".join((*usage, *map(str, fields.values()))))
    told = processor_json.Usage(*usage, **fields)
    export.save_llava(out, params_of(config), config, words, None, told)
    return out

  return write


def processor(directory, **options):
  transformers = pytest.importorskip("transformers")
  return transformers.AutoProcessor.from_pretrained(directory, **options)


def read(directory, name):
  return json.loads(pathlib.Path(directory, name).read_text())


@pytest.mark.parametrize(
  "kind, size, crops",
  [
    ("center_crop", {"shortest_edge": 16}, True),
    ("pad", {"shortest_edge": 16}, True),
    ("square", {"height": 16, "width": 16}, False),
  ],
)
def test_a_picture_becomes_the_square_that_was_trained(
  exported, kind, size, crops
):
  out = exported(kind)
  raw = read(out, "preprocessor_config.json")
  assert (raw["size"], raw["do_center_crop"]) == (size, crops)
  assert raw["do_pad"] == (kind == "pad")
  assert raw["crop_size"] == {"height": 16, "width": 16}
  picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3))
  picture = Image.fromarray(picture.astype(np.uint8))
  theirs = processor(out).image_processor(picture, return_tensors="np")
  ours = geometry.make(kind, 50, 30, 16).apply_image(picture) / 255
  ours = (ours - clip_vit.MEAN["clip"]) / clip_vit.STD["clip"]
  theirs = theirs["pixel_values"][0].transpose(1, 2, 0)
  # A step of 1 / 255 at most, where both round differently.
  np.testing.assert_allclose(theirs, ours, atol=1.01 / 255 / 0.26)
  assert np.abs(theirs - ours).mean() < 1e-3


def test_mean_and_deviation_are_those_of_the_tower(exported):
  raw = read(exported("square", vision=SIGLIP), "preprocessor_config.json")
  assert raw["image_mean"] == raw["image_std"] == [0.5] * 3


def test_a_square_that_transformers_cannot_pad_comes_with_code_to_trust(
  exported,
):
  """Its processors pad with the tower's mean color, and we with CLIP's."""
  out = exported("pad", vision=SIGLIP)
  with pytest.raises(Exception, match="trust_remote_code"):
    processor(out, trust_remote_code=False)
  picture = Image.new("RGB", (50, 30), (255, 0, 9))
  theirs = processor(out, trust_remote_code=True).image_processor(
    picture, return_tensors="np"
  )["pixel_values"][0]
  ours = geometry.make("pad", 50, 30, 16).apply_image(picture)
  np.testing.assert_array_equal(
    np.rint((theirs.transpose(1, 2, 0) * 0.5 + 0.5) * 255), ours
  )
  assert not pathlib.Path(
    exported("square", vision=SIGLIP), "image_processing_locvlm.py"
  ).exists()


@pytest.mark.parametrize("name", ["v0", "v1", "llama_2", "bare"])
@pytest.mark.parametrize("with_image", [True, False])
def test_a_conversation_becomes_the_ids_that_were_trained(
  exported, name, with_image
):
  out = exported("square", name)
  loaded, text = processor(out), Tokenizer.load(out)
  messages = []
  for question, answer in TURNS:
    messages.append(
      {"role": "user", "content": [{"type": "text", "text": question}]}
    )
    messages.append({"role": "assistant", "content": answer})
  if with_image:
    messages[0]["content"].insert(0, {"type": "image"})
  prompt = loaded.apply_chat_template(messages[:-1], add_generation_prompt=True)
  ids = np.array(unchanged(loaded.tokenizer, prompt))
  image = loaded.image_token_id
  ours = encode_prompt(
    text, formats.FORMATS[name], TURNS[:-1], "Why?", int(with_image)
  )
  assert (
    np.where(ids == image, formats.IMAGE_TOKEN, ids).tolist() == ours.tolist()
  )
  whole = loaded.apply_chat_template(messages[:-2])
  row = encode_conversation(
    text, formats.FORMATS[name], TURNS[:-1], int(with_image), 1000
  )
  ids = np.array(unchanged(loaded.tokenizer, whole))
  assert (
    np.where(ids == image, formats.IMAGE_TOKEN, ids).tolist()
    == row.tokens.tolist()
  )


def unchanged(tokenizer, prompt):
  """Tokenizes as vLLM and apply_chat_template do: the template has BOS."""
  return tokenizer(prompt, add_special_tokens=False)["input_ids"]


def test_all_pictures_come_before_the_first_question(exported):
  out = exported("square", "v1")
  loaded, text = processor(out), Tokenizer.load(out)
  picture = {"type": "image"}
  asked = [
    {"role": "user", "content": [picture, {"type": "text", "text": "One?"}]},
    {"role": "assistant", "content": "A cup."},
    {"role": "user", "content": [{"type": "text", "text": "Two?"}, picture]},
  ]
  prompt = loaded.apply_chat_template(asked, add_generation_prompt=True)
  ids = np.array(unchanged(loaded.tokenizer, prompt))
  ids[ids == loaded.image_token_id] = formats.IMAGE_TOKEN
  turns = [("One?", "A cup.")]
  ours = encode_prompt(text, formats.FORMATS["v1"], turns, "Two?", 2)
  assert ids.tolist() == ours.tolist()


def test_text_that_reads_like_a_special_token_is_refused(exported):
  loaded = processor(exported("square", "v1"))
  for text in ("What is <image>?", "Say </s> now."):
    asked = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    with pytest.raises(Exception, match="special token"):
      loaded.apply_chat_template(asked)


@pytest.mark.parametrize(
  "name, fields, wanted",
  [
    ("v1", {}, {"do_sample": False}),
    ("v1", {"program": "vllm"}, {"do_sample": False, "temperature": 0.0}),
    (
      "v1",
      {"sampling": (0.2, 0, 1.0)},
      {"do_sample": True, "temperature": 0.2, "top_k": 0, "top_p": 1.0},
    ),
    ("v0", {}, {"do_sample": False, "stop_strings": ["\n###"]}),
  ],
)
def test_answers_are_decoded_and_end_as_ours(exported, name, fields, wanted):
  raw = read(exported("square", name, **fields), "generation_config.json")
  ids = {"bos_token_id", "eos_token_id", "pad_token_id"}
  assert {k: v for k, v in raw.items() if k not in ids} == wanted


def test_visual_tokens_are_counted_as_in_the_model(exported):
  loaded = processor(exported("square", "v1"))
  picture = Image.new("RGB", (20, 30))
  content = loaded.replace_image_token(
    loaded.image_processor(picture, return_tensors="np"), 0
  )
  assert content == "<image>" * CONFIG.vision.num_patches


def test_ids_of_special_tokens_are_those_of_the_tokenizer(exported, words):
  out, text = exported("square"), Tokenizer.load(words)
  for raw in (
    read(out, "generation_config.json"),
    read(out, "config.json")["text_config"],
  ):
    assert raw["eos_token_id"] == text.eos_id
    assert [raw["bos_token_id"]] == text.start_ids
    assert raw["pad_token_id"] == text.pad_id


def test_for_vllm_a_linear_projector_and_greedy_answers_are_named_its_way(
  exported,
):
  linear = dataclasses.replace(CONFIG, adapter="linear")
  own = exported("square", "v1", model=linear)
  out = exported("square", "v1", model=linear, program="vllm")
  name = "torch.nn.modules.linear.Identity"
  assert read(own, "config.json")["projector_hidden_act"] == "linear"
  assert read(out, "config.json")["projector_hidden_act"] == name
  assert huggingface.open_llava(out)[1].adapter == "linear"
  usage = processor_json.Usage(source=out)
  flat, config = huggingface.load_llava(out)
  export.save_llava(own, flat, config, out, None, usage)
  assert "temperature" not in read(own, "generation_config.json")


def test_an_export_is_exported_again_with_all_of_it(tmp_path):
  first = to_hf(ASSETS / "micro_reference", tmp_path / "a")
  config = read(ASSETS / "micro_reference", "origin.json")["config"]
  assert read(first, "preprocessor_config.json")["do_pad"] == (
    config["geometry"] == "pad"
  )
  side = huggingface.open_llava(first)[1].vision.image_size
  assert processor(first).image_processor.crop_size["height"] == side
  second = to_hf(first, tmp_path / "b")
  for name in processor_json.NAMES:
    one, other = pathlib.Path(first, name), pathlib.Path(second, name)
    assert one.exists() == other.exists()
    assert not one.exists() or one.read_bytes() == other.read_bytes()


def test_an_export_that_is_exported_again_says_how_it_was_trained(tmp_path):
  again = to_hf(ASSETS / "micro_reference", tmp_path / "again")
  assert runs.recorded_config(again)["geometry"] == "square"
  assert runs.recorded_config(again) == runs.recorded_config(
    str(ASSETS / "micro_reference")
  )

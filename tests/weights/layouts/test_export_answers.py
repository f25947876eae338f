"""An export answers in transformers as the model does here, token for token."""

import json
import os
import pathlib
import warnings

import numpy as np
import pytest
from changed import changed
from PIL import Image
from toy_models import params_of

from configs import base, locvlm_b, locvlm_l
from locvlm_jax import ASSETS, assemble
from locvlm_jax.config import plain
from locvlm_jax.data import geometry
from locvlm_jax.inference.model import Model
from locvlm_jax.inference.predictor import Decoding
from locvlm_jax.inference.question import Question
from locvlm_jax.models import clip_vit
from locvlm_jax.text import formats
from locvlm_jax.weights.layouts import export, processor_json

MICRO = str(ASSETS / "micro_reference")
TURNS = [("Where is the moon?", "At [1,2,30,40]."), ("And the cup?", "")]
TOKENS = 12
QWEN = {
  "model.vision.family": "siglip",
  "model.vision.activation": "gelu_pytorch_tanh",
  "model.vision.feature_layer": -1,
  "model.llm.qkv_bias": True,
  "geometry": "pad",
}
KINDS = {
  "B": (locvlm_b, {"model.vision.image_size": 224}),
  "L": (locvlm_l, {"model.vision.image_size": 336}),
  "square": (base, {"geometry": "square", "prompt_format": "llama_2"}),
  "SigLIP + Qwen2": (base, QWEN),
}
pytestmark = [pytest.mark.parity]


def pictures(folder):
  """Real ones, where there are some; else noise in four shapes."""
  root = pathlib.Path(os.environ.get("LOCVLM_TEST_DATA", "absent"), "coco")
  if found := sorted(root.glob("*2017/*.jpg"))[:4]:
    return [Image.open(path).convert("RGB") for path in found]
  rng = np.random.default_rng(0)
  shapes = [(300, 500, 3), (500, 300, 3), (336, 336, 3), (97, 61, 3)]
  return [Image.fromarray(rng.integers(0, 256, s, np.uint8)) for s in shapes]


def exported(kind, folder):
  """Writes a model of such a kind; numbers at random but for the micro one."""
  if kind == "micro":
    from converted import to_hf

    return to_hf(MICRO, folder / "micro", dtype="float32")
  module, fields = KINDS[kind]
  config = changed(
    module.get_config("tiny"),
    **fields
    | {
      "tokenizer": MICRO,
      "model.llm.num_kv_heads": 4,
      "model.vision.num_heads": 4,
    },
  )
  shape = assemble.model(config).config
  usage = processor_json.Usage(config.geometry, config.prompt_format)
  out = str(folder / "out")
  export.save_llava(out, params_of(shape), shape, MICRO, None, usage)
  origin = json.dumps({"config": plain(config)})
  (folder / "out" / "origin.json").write_text(origin)
  return out


def loaded(directory, caplog):
  """The processor and the model of transformers, without a warning."""
  transformers = pytest.importorskip("transformers")
  pytest.importorskip("torch")
  transformers.logging.enable_propagation()
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    processor = transformers.AutoProcessor.from_pretrained(
      directory, backend="pil", trust_remote_code=True
    )
    kind = transformers.LlavaForConditionalGeneration
    model = kind.from_pretrained(directory).eval()
  told = [r.getMessage() for r in caplog.records if r.levelname != "INFO"]
  assert not [t for t in told if "trust_remote_code" not in t], told
  return processor, model


def asked(images, turns):
  """Messages that ask the last question, with the pictures in the first."""
  messages = []
  for question, answer in turns:
    content = [{"type": "text", "text": question}]
    messages.append({"role": "user", "content": content})
    if answer:
      content = [{"type": "text", "text": answer}]
      messages.append({"role": "assistant", "content": content})
  messages[0]["content"][:0] = [{"type": "image", "image": i} for i in images]
  return messages


def of_transformers(processor, model, conversations):
  """(inputs, the answers' ids) of a batch."""
  import torch

  options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
  inputs = processor.apply_chat_template(
    conversations, add_generation_prompt=True, padding=True, **options
  )
  with torch.no_grad():
    ids = model.generate(**inputs, max_new_tokens=TOKENS)
  return inputs, ids[:, inputs["input_ids"].shape[1] :].numpy()


def check_inputs(ours, inputs, questions, image_id):
  """Pixels and ids, bit for bit."""
  spec, row = ours.predictor.spec, 0
  family = ours.predictor.model.config.vision.family
  pixels = inputs["pixel_values"].numpy().transpose(0, 2, 3, 1)
  pixels = pixels * np.array(clip_vit.STD[family]) + clip_vit.MEAN[family]
  for i, question in enumerate(questions):
    ids = inputs["input_ids"][i][inputs["attention_mask"][i] > 0].numpy()
    ids = np.where(ids == image_id, formats.IMAGE_TOKEN, ids)
    assert ids.tolist() == ours.predictor.prompt(question)
    for image in question.pictures:
      made = geometry.make(spec.geometry, *image.size, spec.image_size)
      square = made.apply_image(image)
      np.testing.assert_array_equal(np.rint(pixels[row] * 255), square)
      row += 1


@pytest.mark.parametrize("kind", [*KINDS, "micro"])
def test_pixels_ids_and_answers_are_ours(kind, tmp_path, caplog):
  directory = exported(kind, tmp_path)
  images = pictures(tmp_path)
  processor, model = loaded(directory, caplog)
  ours = Model.load(directory, Decoding(max_new_tokens=TOKENS))
  history, last = tuple(TURNS[:-1]), TURNS[-1][0]
  questions = [
    Question("0", images[0], TURNS[0][0]),
    Question("1", images[1], last, history),
    Question("2", tuple(images[2:]), last, history),
  ]
  batches = (questions[:2], questions[2:])
  for batch in batches:
    messages = [
      asked(q.pictures, [*q.history, (q.question, "")]) for q in batch
    ]
    inputs, ids = of_transformers(processor, model, messages)
    check_inputs(ours, inputs, batch, processor.image_token_id)
    answers = [ours.predictor._answer(row) for row in ids]
    told = ours.generate(batch)
    assert [str(a) for a in answers] == [str(a) for a in told]


def test_the_committed_reference_is_a_complete_export(tmp_path, caplog):
  processor, model = loaded(MICRO, caplog)
  images, ours = pictures(tmp_path), Model.load(MICRO)
  history, last = tuple(TURNS[:-1]), TURNS[-1][0]
  question = Question("0", tuple(images[:2]), last, history)
  messages = asked(question.pictures, TURNS)
  inputs, ids = of_transformers(processor, model, [messages])
  check_inputs(ours, inputs, [question], processor.image_token_id)
  assert processor.decode(ids[0], skip_special_tokens=True)

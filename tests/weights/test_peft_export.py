"""A run's LoRA in PEFT's layout, unmerged, beside what it adapts."""

import json
import pathlib
import re
import warnings

import numpy as np
import pytest
import safetensors.numpy
from changed import changed
from converted import to_hf
from toy_models import params_of

from configs import base
from locvlm_jax import ASSETS, assemble, provenance
from locvlm_jax.config import plain
from locvlm_jax.models import params as params_lib
from locvlm_jax.reports import model_card
from locvlm_jax.text import tokenizer
from locvlm_jax.weights import checkpoints, conversion, runs


@pytest.fixture(scope="module")
def exports(words, tmp_path_factory):
  """(a run's LoRA in PEFT's layout, the same run merged), as directories."""
  folder = tmp_path_factory.mktemp("lora")
  config = changed(
    base.get_config("tiny"),
    **{
      "tokenizer": words,
      "lora.rank": 3,
      "lora.alpha": 6.0,
      "lora.targets": ("q", "out", "down"),
      "model.llm.vocab_size": tokenizer.Tokenizer.load(words).vocab_size,
    },
  )
  flat = params_lib.flatten(params_of(assemble.model(config).config))
  trainable, frozen = params_lib.split(flat, ["adapter", "llm"])
  saved = checkpoints.Checkpoints(runs.checkpoint_dir(str(folder / "run")))
  items = {"params": {"trainable": trainable, "frozen": frozen}}
  info = {"next_step": 0, "config": plain(config)}
  saved.save(0, items, info, last=True)
  saved.close()
  opened = unmerged(folder / "run")
  card = model_card.render(opened.origin, opened.shape, is_adapter=True)
  conversion.write_peft(opened, str(folder / "peft"), "", "float32", card)
  merged = to_hf(folder / "run", folder / "merged", dtype="float32")
  return folder / "peft", pathlib.Path(merged)


def unmerged(directory):
  inputs = conversion.Inputs(str(directory))
  return conversion.open_model(
    inputs, assemble.model, provenance.versions, merge=False
  )


def weights(directory, name="model.safetensors"):
  return safetensors.numpy.load_file(directory / name)


def test_base_and_updates_are_the_merged_model(exports):
  peft, merged = exports
  updates, wanted = weights(peft, "adapter_model.safetensors"), weights(merged)
  found, adapted = weights(peft / "base"), set()
  for name, a in updates.items():
    if ".lora_A." not in name:
      continue
    b = updates[name.replace("lora_A", "lora_B")]
    kernel = name.removeprefix("base_model.model.").replace(".lora_A", "")
    # Both spellings are read: transformers' own modules, and stored keys.
    key = kernel.replace("model.language_model.", "language_model.model.", 1)
    found[key] = found[key] + 2.0 * b @ a
    adapted.add(kernel.removesuffix(".weight"))
  assert found.keys() == wanted.keys() and len(adapted) == 3 * 2
  for key, value in wanted.items():
    np.testing.assert_allclose(found[key], value, atol=1e-5)
  raw = json.loads((peft / "adapter_config.json").read_text())
  assert (raw["r"], raw["lora_alpha"]) == (3, 6.0)
  assert all(re.fullmatch(raw["target_modules"], name) for name in adapted)
  tower = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
  assert not re.fullmatch(raw["target_modules"], tower)
  assert raw["base_model_name_or_path"] == str(peft / "base")


def test_its_card_tells_how_to_load_both(exports):
  text = (exports[0] / "README.md").read_text()
  assert "A LoRA of rank 3" in text
  assert "PeftModel.from_pretrained(model, DIRECTORY)" in text
  assert "vllm serve DIRECTORY/base" in text and "--max-lora-rank 3" in text


def test_what_has_no_lora_is_refused(tmp_path):
  opened = unmerged(ASSETS / "micro_reference")
  with pytest.raises(ValueError, match="--to=peft is for a run .* no run"):
    conversion.write_peft(opened, str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


@pytest.mark.parity
def test_peft_computes_what_the_merged_model_does(exports):
  torch = pytest.importorskip("torch")
  peft = pytest.importorskip("peft")
  from transformers import LlavaForConditionalGeneration as Llava

  with warnings.catch_warnings():
    warnings.simplefilter("error")
    # peft 0.21 asks transformers 5 by a name that is to go.
    warnings.simplefilter("ignore", FutureWarning)
    model = Llava.from_pretrained(exports[0] / "base")
    model = peft.PeftModel.from_pretrained(model, exports[0]).eval()
  merged = Llava.from_pretrained(exports[1]).eval()
  ids = torch.arange(3, 23)[None]
  with torch.no_grad():
    found, wanted = model(input_ids=ids), merged(input_ids=ids)
    with model.disable_adapter():
      plain_ = model(input_ids=ids)
  torch.testing.assert_close(found.logits, wanted.logits, atol=1e-4, rtol=0)
  assert (plain_.logits - wanted.logits).abs().max() > 1e-2

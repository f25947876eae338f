"""The model card of an export says how to use it, and its code is right."""

import re

import pytest
from changed import changed
from converted import to_hf

from configs import base, locvlm_b, locvlm_l
from locvlm_jax import ASSETS, assemble
from locvlm_jax.config import plain
from locvlm_jax.data import geometry
from locvlm_jax.reports import model_card

METRICS = {"pope_random.accuracy": 0.871, "pope_random.num": 3000.0}


def card(module=base, words="tiny", program="transformers", **fields):
  config = changed(module.get_config(words), **fields)
  shape = assemble.model(config).config
  origin = {"config": plain(config), "step": 7, "metrics": METRICS}
  return model_card.render(origin, shape, program)


@pytest.mark.parametrize("kind", geometry.KINDS)
def test_its_code_turns_locations_into_pixels_of_the_picture(kind):
  (code,) = re.findall(
    r"```python\n(def to_pixels.*?)```", card(geometry=kind), re.DOTALL
  )
  names = {}
  exec(code, names)
  for width, height in ((500, 300), (300, 500), (64, 64)):
    made = geometry.make(kind, width, height, 3360)
    wanted = made.invert_box((0.1, 0.2, 0.1, 0.2))[:2]
    found = names["to_pixels"](0.1, 0.2, width, height)
    assert found == pytest.approx(wanted, abs=0.5)


def test_it_says_what_was_trained_on_what_and_its_numbers():
  text = card(locvlm_l, **{"data.instances": "a/train.json"})
  assert "Checkpoint of step 7" in text
  assert "instances (train.json)" in text
  assert "| pope_random.accuracy | 87.1 % |" in text
  assert "pope_random.num" not in text
  assert "`[100,134,184,268]`" in text and "336 along each side" in text
  assert "`pad`" in text and 'Where: "Where is the cup?"' in text


@pytest.mark.parametrize("form", ["nfp", "ivb", "diga"])
@pytest.mark.parametrize("location", ["box", "point"])
def test_it_says_how_each_form_of_a_location_is_read(form, location):
  text = card(**{"coords.form": form, "coords.location": location})
  assert f"`{form}`, a {location}" in text
  assert ("a grid of 8 x 8" in text) == (form == "diga")
  assert ("bin b is the fraction" in text) == (form != "nfp")


def test_a_linear_projector_is_named_as_each_program_wants_it():
  override = '--hf-overrides \'{"projector_hidden_act": '
  assert override in card(locvlm_b)
  assert override not in card(locvlm_l)
  for_vllm = card(locvlm_b, program="vllm")
  assert override not in for_vllm
  assert '"projector_hidden_act": "linear"` in config.json' in for_vllm


def test_it_says_what_code_to_trust_and_what_ends_an_answer():
  siglip = {
    "model.vision.family": "siglip",
    "model.vision.activation": "gelu_pytorch_tanh",
    "geometry": "pad",
  }
  text = card(**siglip)
  assert "trust_remote_code=True" in text and "--trust-remote-code" in text
  assert "trust_remote_code" not in card(geometry="pad")
  assert "tokenizer=processor.tokenizer" in card(prompt_format="v0")
  assert "no place for a question" in card(prompt_format="plain")


def test_licenses_are_those_that_the_sources_state(tmp_path):
  for name in ("clip", "llm"):
    (tmp_path / name).mkdir()
  (tmp_path / "clip" / "README.md").write_text("---\nlicense: mit\n---\n")
  (tmp_path / "llm" / "LICENSE.txt").write_text("...")
  text = card(
    **{
      "init.vision": str(tmp_path / "clip"),
      "init.llm": str(tmp_path / "llm"),
      "init.llava": str(tmp_path / "gone"),
    }
  )
  assert re.search(r"\| vision \| `.*clip` \| `mit` \(its README.md\) \|", text)
  assert re.search(r"\| llm \| `.*llm` \| LICENSE.txt \|", text)
  assert re.search(r"\| llava \| `.*gone` \| no longer there", text)


def test_of_a_model_that_does_not_say_how_it_was_trained_there_is_none():
  assert model_card.render({"input": "x"}, None) == ""


def test_it_says_what_it_was_made_from_where_that_is_nothing_or_of_ours():
  assert "Weights drawn at random" in card(base, **{"init.llava": ""})
  text = card(**{"init.llava": str(ASSETS / "micro_base")})
  assert re.search(r"micro_base` \| that of locvlm_jax", text)


def test_it_tells_how_to_ask_for_all_if_that_was_trained():
  assert "Find every" not in card()
  assert '"Find every cup, plate."' in card(**{"data.objectives.detect": 3.0})


def test_the_micro_reference_has_the_numbers_that_lie_beside_it():
  from locvlm_jax.weights import conversion

  inputs = conversion.Inputs(str(ASSETS / "micro_reference"))
  opened = conversion.open_model(inputs, assemble.model, dict)
  text = model_card.render(opened.origin, opened.shape)
  assert "| locpred.acc_iou50 | 91.8 % |" in text
  assert "| hallucination.accuracy | 96.6 % |" in text
  path = ASSETS / "micro_reference" / "README.md"
  assert path.read_text("utf-8") == text  # written by convert


def test_an_exports_card_can_be_written_again(tmp_path):
  out = to_hf(ASSETS / "micro_reference", tmp_path / "a")
  from locvlm_jax.weights import conversion

  opened = conversion._open_foreign("llava", conversion.Inputs(out))
  text = model_card.render(opened.origin, opened.shape)
  assert "`square`, 96 pixels a side" in text

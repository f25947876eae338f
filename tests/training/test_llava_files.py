"""LLaVA's and Video-ChatGPT's own files, in miniature, train by a preset each.

Each has the quirks that the published file has: turns that no row can hold,
text alone among images, boxes of the padded square, two records of one id.
"""

import importlib
import json

import numpy as np
import pytest
from changed import changed
from PIL import Image

from configs import micro
from locvlm_jax import assemble, checks, errors
from locvlm_jax.training import journal, loop, program, setup
from locvlm_jax.training.room import before_start

LONG = "word " * 4000


def said(*texts):
  return [
    {"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)
  ]


def row(image, *texts, **more):
  return {"id": "a", "image": image, "conversations": said(*texts), **more}


CAPTIONS = [
  row("00453/a.jpg", "Render a clear summary.\n<image>", "a cup <unk> on it"),
  row("b.png", "<image>\nGive a brief description.", LONG),
]
REGION = "Please provide a short description for this region: "
MIX = [
  row("00453/a.jpg", "<image>\nWhat is it?\nAnswer briefly.", "Cup", "Red?",
      "Yes"),
  row("b.png", f"<image>\n{REGION}[0.25,0.3,0.5,0.55].", "A cup."),
  row("b.png", "Where is the cup?\n<image>", "[0.2, 0.4, 0.41, 0.6]"),
  {"id": "wgByO4Y_0", "model": "", "conversations": said("Hi", LONG, "a", "b")},
  {"id": "x", "conversations": said(LONG, "b")},
  {"id": "y", "conversations": said("a", "b", "no answer")},
]  # fmt: skip
TALK = [
  {"id": "1", "conversations": said("a", "b") + said("c", "d")},
  {"id": "2", "conversations": []},
  {"id": "3", "conversations": said("a", "b")[1:]},
]
FILMS = [{"video_id": "v_1", "q": "Who?", "a": "A cat."},
         {"video_id": "v_1", "q": "Who?", "a": ""}]  # fmt: skip
PRESETS = [
  ("locvlm_b:chat595k", "conversations", CAPTIONS, 2),
  ("locvlm_l:pretrain558k", "conversations", CAPTIONS, 2),
  ("locvlm_l:mix665k", "conversations", MIX, 6),
  ("locvlm_b:sharegpt", "text", TALK, 1),
  ("locvlm_vid_b:", "video_conversations", FILMS, 1),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "00453").mkdir()
  Image.new("RGB", (40, 20)).save(tmp_path / "00453" / "a.jpg")
  Image.new("RGB", (20, 40)).save(tmp_path / "b.png")
  (tmp_path / "v_1").mkdir()  # its frames
  for i in range(6):
    Image.new("RGB", (20, 20)).save(tmp_path / "v_1" / f"{i}.jpg")
  return tmp_path


def preset(folder, name, field, content, **more):
  """The tiny config of a preset, with nothing set but its paths."""
  path = folder / "file.json"
  path.write_text(json.dumps(content))
  module, _, words = name.partition(":")
  config = importlib.import_module(f"configs.{module}").get_config(
    f"{words},tiny".lstrip(",")
  )
  paths = {
    f"data.{field}": str(path),
    "data.conversation_images": str(folder),
    "data.videos": str(folder),
    "tokenizer": micro.BASE,
  }
  return changed(config, **paths, **more)


@pytest.mark.parametrize("name, field, content, usable", PRESETS)
def test_a_preset_reads_the_file_and_counts_what_it_leaves_out(
  folder, name, field, content, usable
):
  config = preset(folder, name, field, content)
  checks.check(config)
  data = setup.Data.open(config)
  (source,) = data.sources.values()
  assert len(source) == usable
  for i in range(len(source)):
    made = data.make_row(source[i], np.random.default_rng(0))
    assert made["valid"] and made["lengths"] <= data.make_row.spec.length
  assert not data.make_row.skipped and data.make_row.counts["skipped"] == 0
  cut = data.make_row.counts["turns cut off"]
  assert cut == sum(LONG in str(r["conversations"][:2]) for r in content
                    if "conversations" in r)  # fmt: skip


def test_boxes_of_the_padded_square_are_rewritten(folder):
  config = preset(folder, *PRESETS[2][:3])
  data = setup.Data.open(config)
  (source,) = data.sources.values()
  text = assemble.load_tokenizer(config)
  made = data.make_row(source[1], np.random.default_rng(0))
  assert "[84,100,168,184]" in text.decode(made["tokens"][made["tokens"] >= 0])


def test_lengths_are_measured_by_the_header_of_the_image(folder):
  data = setup.Data.open(preset(folder, *PRESETS[2][:3]))
  (source,) = data.sources.values()
  rng = np.random.default_rng(0)
  made = [data.make_row(source[i], rng)["lengths"] for i in (1, 2)]
  measured = [data.make_row.min_length(source[i], rng) for i in (1, 2)]
  assert measured == made  # and not the longest that there is


def test_boxes_that_nothing_is_said_about_are_refused(folder):
  fields = {"data.conversation_boxes": ""}
  config = preset(folder, *PRESETS[2][:3], **fields)
  with pytest.raises(errors.DataError, match="file.json: record 1: .*to model"):
    setup.Data.open(config)
  fields = {"data.conversation_boxes": "model"}
  setup.Data.open(preset(folder, *PRESETS[2][:3], **fields))


def test_llavas_captions_as_cocos_name_the_field_that_wants_them(folder):
  fields = {"data.mixture.conversations": 0.0, "data.mixture.captions": 1.0,
            "data.captions": "", "data.images": str(folder)}  # fmt: skip
  config = preset(folder, *PRESETS[0][:3], **fields)
  config = changed(config, **{"data.captions": str(folder / "file.json")})
  with pytest.raises(errors.DataError, match="set data.conversations and"):
    setup.Data.open(config)


def test_rows_beyond_the_positions_of_the_model_are_refused(folder):
  config = preset(folder, *PRESETS[2][:3], **{"data.text_length": 4090})
  with pytest.raises(ValueError, match="4106 positions, more than .*=4096"):
    checks.check(config)


def test_long_rows_are_recomputed_on_devices_that_train_llavas():
  def remat(name, kind):
    module, _, words = name.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(words)
    return assemble.model(changed(config), kind).config.remat

  a100 = "NVIDIA A100-SXM4-80GB"
  assert remat("locvlm_l:mix665k", a100) == "full"
  assert remat("locvlm_l:stage2", a100) == "none"
  assert remat("locvlm_l:mix665k", "cpu") == "none"


def test_mix665k_trains_and_its_progress_line_tells_what_is_left_out(
  folder, tmp_path, capsys
):
  # A single step, so that rows of a single length are compiled.
  fields = {"data.text_length": 240, "optim.name": "adamw", "steps": 1}
  config = preset(folder, *PRESETS[2][:3], **fields)
  loop.train(config, str(tmp_path / "run"))
  (line,) = (
    x for x in capsys.readouterr().out.splitlines() if x.startswith("step 1/1")
  )
  assert "left out: " in line and " tokens of " in line


def test_the_progress_line_says_nothing_where_nothing_is_left_out():
  assert journal.left_out({"turns": 9, "turns left out": 0}) == ""
  assert journal.left_out({}) == ""


def test_a_batch_of_the_longest_rows_is_compared_with_the_devices_memory(
  folder, tmp_path, monkeypatch
):
  config = preset(folder, *PRESETS[2][:3], **{"optim.name": "adamw"})
  monkeypatch.setattr(program, "device_memory", lambda: 1024)
  # What fits instead is tested by itself, and takes long to find.
  monkeypatch.setattr(before_start, "advice", lambda *_: "")
  with pytest.raises(ValueError, match="1536 positions needs .* GiB"):
    loop.train(config, str(tmp_path / "run"))

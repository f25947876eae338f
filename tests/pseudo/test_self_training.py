"""Pseudo-captions by the model: questions, filters, files, going on."""

import json

import pytest
from paths import ASSETS

from configs import base, micro
from locvlm_jax.config import Config, freeze
from locvlm_jax.data import objectives
from locvlm_jax.data.sources import coco, object_captions
from locvlm_jax.inference import predictor
from locvlm_jax.microworld import scene
from locvlm_jax.pseudo import self_training

BASE = ASSETS / "micro_base"


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(num_train=6, num_val=2)


@pytest.fixture
def asked(monkeypatch):
  """Ids of the examples that the model was asked, a list for each batch."""
  batches = []

  def answer(self, examples):
    batches.append([x.id for x in examples])
    return [f"Shade{x.truth['annotation_id']}. Or so." for x in examples]

  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  return batches


def _config(root, **pseudo) -> Config:
  c = micro.get_config("stage1")
  c.root, c.tokenizer = root, str(BASE)
  c.eval.batch_size = 4
  c.pseudo.update(pseudo)
  return freeze(c)


def _write(config, path):
  out = path / "captions.jsonl"
  path.mkdir(exist_ok=True)
  summary = self_training.write(config, "", str(out), str(BASE))
  return summary, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize(
  "answer, said",
  [
    ("A red cup. It is small.", "a red cup"),
    ("Red.", "red"),
    ("  the dog\nUSER: and", "the dog"),
    ("TV stand!", "TV stand"),
    ("a cup of 1.5 litres", "a cup of 1.5 litres"),
    (" . ", ""),
    ("", ""),
  ],
)
def test_an_answer_becomes_a_phrase(answer, said):
  assert self_training.phrase(answer) == said


@pytest.mark.parametrize(
  "said, caption, found",
  [
    ("", "a cup", ["empty"]),
    ("?", "a ? cup", ["empty"]),
    ("red", "a red cup", []),
    ("red", "a red cupboard", ["unnamed"]),
    ("x", "the cup and the cup and the cup", []),
    ("x", "the cup on the on the on the", ["repeating"]),
    ("x", "cup, cup, cup", ["repeating"]),
    ("x", "a cup beside one of the four or five dogs", ["long"]),
  ],
)
def test_filters(said, caption, found):
  assert list(self_training.faults(said, caption, "cup", 8)) == found


@pytest.mark.parametrize(
  "caption, name, named",
  [
    ("a man in a red shirt", "person", True),
    ("Two women", "person", True),
    ("a manhole", "person", False),
    ("a plane in the sky", "airplane", True),
    ("the wooden table", "dining table", True),
    ("a wine glass", "cup", False),
    ("red cups", "cup", True),
  ],
)
def test_a_caption_may_name_a_category_in_other_words(caption, name, named):
  found = list(self_training.faults("x", caption, name, 8))
  assert ("unnamed" in found) == (not named)
  assert "unnamed" not in base.get_config().pseudo.filters


def test_captions_of_each_object_that_a_question_can_mean(
  root, tmp_path, asked
):
  config = _config(root)
  summary, rows = _write(config, tmp_path)
  source = coco.Instances(
    root + "/annotations/instances_train.json", root + "/images/train"
  )
  objects = [
    o
    for i in range(len(source))
    for o in objectives.unique_objects(source[i].objects)
  ]
  assert {r["annotation_id"] for r in rows} == {o.id for o in objects}
  assert summary["kept"] == summary["asked"] == len(rows) == 2 * len(objects)
  first = rows[0]
  name = first["category"]
  assert [r["caption"] for r in rows[:2]] == [
    f"a shade{first['annotation_id']} {name}",
    f"the {name} closest to shade{first['annotation_id']}",
  ]
  assert first["prompt"] == f"What color is the {name}?"
  assert len(first["checkpoint"]) == 64 and first["seed"] == 0
  found = object_captions.captioned(source, str(tmp_path / "captions.jsonl"))
  assert found.caption_counts == {"used": len(rows)}


def test_a_killed_run_goes_on(root, tmp_path, asked, monkeypatch):
  config = _config(root)
  _write(config, tmp_path / "whole")
  first = [x for batch in asked for x in batch]
  asked.clear()
  answer = predictor.Predictor.__call__

  def dies(self, examples):
    if len(asked) == 2:
      raise KeyboardInterrupt
    return answer(self, examples)

  broken = tmp_path / "broken"
  monkeypatch.setattr(predictor.Predictor, "__call__", dies)
  with pytest.raises(KeyboardInterrupt):
    _write(config, broken)
  assert not (broken / "captions.jsonl").exists()
  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  _write(config, broken)
  assert [x for batch in asked for x in batch] == first
  files = [tmp_path / n / "captions.jsonl" for n in ("whole", "broken")]
  assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_left_out_is_counted(root, tmp_path, monkeypatch):
  answers = ["", "go " * 4, "red " * 3, "one"]

  def answer(self, examples):
    return [answers[x.truth["annotation_id"] % 4] for x in examples]

  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  summary, rows = _write(_config(root, max_words=5, relational=()), tmp_path)
  counted = {k: summary[k] for k in ("kept", "empty", "repeating", "long")}
  assert min(counted.values()) > 0
  assert sum(counted.values()) == summary["asked"]
  assert summary["kept"] == len(rows)
  (tmp_path / "b").mkdir()
  everything, rows = _write(_config(root, filters=()), tmp_path / "b")
  assert len(rows) == everything["asked"] == everything["kept"]


def test_what_is_said_of_two_objects_is_left_out(root, tmp_path, monkeypatch):
  monkeypatch.setattr(
    predictor.Predictor, "__call__", lambda self, x: ["The same."] * len(x)
  )
  plain = ("What color is the {obj}?", "{answer}")
  config = _config(root, plain=plain, relational=(), filters=("ambiguous",))
  summary, rows = _write(config, tmp_path)
  assert summary["ambiguous"] + len(rows) == summary["asked"]
  images = [r["image_id"] for r in rows]
  assert len(set(images)) == len(images)  # those with a single object


@pytest.mark.parametrize(
  "change, said",
  [
    ({"filters": ("emty",)}, "pseudo.filters: 'emty'"),
    ({"plain": (), "relational": ()}, "neither plain nor relational"),
    ({"plain": ("What?", "{obj}")}, "pseudo.plain"),
  ],
)
def test_settings_that_cannot_be_meant(root, tmp_path, change, said):
  with pytest.raises(ValueError, match=said):
    _write(_config(root, **change), tmp_path)


def test_the_base_names_colours(root, tmp_path):
  _, rows = _write(_config(root, samples=12), tmp_path)
  said = [r["answer"] for r in rows if r["kind"] == "plain"]
  colours = [f"{colour.capitalize()}." for colour in scene.COLORS]
  assert said and sum(s in colours for s in said) > len(said) / 2, said

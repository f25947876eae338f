"""Captions of objects as targets of the three objectives."""

import collections
import json

import ml_collections
import numpy as np
import pytest
from built import build
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data import catalog, geometry, objectives
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.sources import coco, conversations, object_captions
from locvlm_jax.text import coords

BINS = coords.Coords("ivb", 32, "box")
SQUARE = geometry.square(40, 30, 32)
NAMES = ("cup", "dog", "chair")


def _caption(note, image, category, text):
  return {
    "annotation_id": note,
    "image_id": image,
    "category": category,
    "caption": text,
    "prompt": "p",
    "checkpoint": "c",
    "seed": 0,
  }


# Image 0: a cup and a dog. 1: a chair. 2: two dogs. 3: a cup, without caption.
LINES = [
  _caption(10, 0, "cup", "A red cup  on \u6728."),
  _caption(10, 0, "cup", "the cup left of the dog"),
  _caption(11, 0, "dog", "a small dog"),
  _caption(20, 1, "chair", "a man"),
  _caption(20, 1, "chair", "the chair under a dog"),
  _caption(30, 2, "dog", "a spotted dog"),
]


@pytest.fixture
def world(tmp_path):
  notes = [
    (10, 0, 1, 2),
    (11, 0, 2, 20),
    (20, 1, 3, 20),
    (30, 2, 2, 2),
    (31, 2, 2, 20),
    (40, 3, 1, 9),
  ]
  content = {
    "images": [
      {"id": i, "file_name": f"{i:012d}.png", "width": 40, "height": 30}
      for i in range(4)
    ],
    "categories": [{"id": i + 1, "name": n} for i, n in enumerate(NAMES)],
    "annotations": [
      {"id": k, "image_id": i, "category_id": c, "bbox": [x, 3, 10, 12]}
      for k, i, c, x in notes
    ],
  }
  (tmp_path / "instances.json").write_text(json.dumps(content))
  for i in range(4):
    Image.new("RGB", (40, 30)).save(tmp_path / f"{i:012d}.png")
  return tmp_path


def _captions(world, lines):
  path = world / "captions.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return str(path)


def _source(world, lines=LINES):
  plain = coco.Instances(str(world / "instances.json"), str(world))
  return object_captions.captioned(plain, _captions(world, lines))


def _asked(source, index, weights=(1.0, 1.0, 1.0), seeds=60):
  """{objective: what is spoken of}, over many seeds."""
  found = collections.defaultdict(set)
  spec = objectives.PairSpec(
    BINS, source.categories, 4, weights, source.object_captions()
  )
  for seed in range(seeds):
    rng = np.random.default_rng(seed)
    for pair in objectives.pairs(source[index], SQUARE, spec, rng):
      if pair.objective == "rev_loc":
        found["rev_loc"].add(pair.answer)
      else:
        found[pair.objective].add(pair.question)
  return found


def test_captions_stand_in_place_of_categories(world):
  found = _asked(_source(world), 0)
  assert found["rev_loc"] == {
    "A red cup on \u6728",
    "the cup left of the dog",
    "a small dog",
  }
  captions = ("red cup on \u6728", "cup left of the dog", "small dog")
  said = "\n".join(found["loc_pred"])
  assert all(f"the {caption}" in said for caption in captions)
  # A category is asked for as well, as one more name.
  alone = [q for q in found["loc_pred"] if not any(c in q for c in captions)]
  assert alone and all("cup" in q or "dog" in q for q in alone)


@pytest.mark.parametrize("index", [0, 1])
def test_how_a_thing_is_asked_for_does_not_tell_whether_it_is_there(
  world, index
):
  """By its category alone, half of the things are there, as by caption."""
  lines = [
    _caption(10, 0, "cup", "a red cup"),
    _caption(11, 0, "dog", "a small dog"),
    _caption(20, 1, "chair", "a blue chair"),
  ]
  source, denied = _source(world, lines), collections.defaultdict(list)
  spec = objectives.PairSpec(
    BINS, source.categories, 1, (1.0, 1.0, 0.0), source.object_captions()
  )
  for seed in range(600):
    rng = np.random.default_rng(seed)
    (pair,) = objectives.pairs(source[index], SQUARE, spec, rng)
    by_caption = any(w in pair.question for w in ("red", "small", "blue"))
    denied[by_caption].append(pair.objective == "neg_pred")
  shares = {k: np.mean(v) for k, v in denied.items()}
  assert shares[True] == pytest.approx(0.5, abs=0.09), shares
  assert shares[False] == pytest.approx(0.5, abs=0.09), shares


def test_without_a_caption_an_object_keeps_its_category(world):
  assert _asked(_source(world), 3)["rev_loc"] == {"cup", "a cup"}


def test_the_filters_are_those_of_categories(world):
  """Of two dogs none is asked for, captioned or not."""
  assert set(_asked(_source(world), 2)) == {"neg_pred"}


def test_only_what_is_absent_is_denied(world):
  source = _source(world)
  assert source.object_captions() == {
    "cup": (("A red cup on \u6728", "the cup left of the dog"),),
    "dog": (("a small dog",), ("a spotted dog",)),
    "chair": (("the chair under a dog",),),  # "a man" may be anywhere
  }
  denied = "\n".join(_asked(source, 1, (0.0, 1.0, 0.0))["neg_pred"])
  assert "red cup" in denied and "spotted dog" in denied
  assert "chair" not in denied
  # Image 0 has a dog, which the only caption of a chair names too.
  denied = "\n".join(_asked(source, 0, (0.0, 1.0, 0.0))["neg_pred"])
  assert "the chair" in denied and "under" not in denied


def test_captions_of_tested_images_are_not_even_denied(world):
  tested = world / "tested.json"
  tested.write_text('[{"image_id": 0}]')
  data = ml_collections.ConfigDict(
    {
      "instances": str(world / "instances.json"),
      "images": str(world),
      "object_captions": _captions(world, LINES),
      "per_object": True,
      "mixture": {"instances": 1.0},
    }
  )
  source = catalog.open_sources(data, exclude=[str(tested)])["instances"]
  assert isinstance(
    source, exclusion.WithoutExcluded
  ) and "5 captions" not in repr(source)
  assert source.object_captions() == {
    "dog": (("a spotted dog",),),
    "chair": (("the chair under a dog",),),
  }
  assert source[0].objects[0].texts == ("a man", "the chair under a dog")


@pytest.mark.parametrize(
  "change, message",
  [
    ({"category": "dog"}, "line 2: category 'dog'; the annotation has 'cup'"),
    ({"image_id": 3}, "line 2: image_id 3; the annotation has 0"),
    ({"caption": None}, "line 2: caption None is not a text"),
    ({"annotation_id": [1]}, r"line 2: annotation_id \[1\] is not an"),
  ],
)
def test_wrong_captions_are_named(world, change, message):
  lines = [LINES[0], LINES[1] | change]
  with pytest.raises(errors.DataError, match=r"captions\.jsonl: " + message):
    _source(world, lines)


def test_what_is_not_used_is_counted(world):
  lines = [
    *LINES,
    LINES[0],
    _caption(10, 0, "cup", " . "),
    _caption(99, 0, "cup", "a cup"),
  ]
  assert _source(world, lines).caption_counts == {
    "used": 6,
    "said before": 1,
    "empty": 1,
    "of no annotation": 1,
  }
  with pytest.raises(errors.DataError, match="no caption of an annotation of"):
    _source(world, lines[-1:])
  with pytest.raises(errors.DataError, match="line 1: field 'caption' is miss"):
    _source(world, [{"annotation_id": 10}])


def test_built_and_on_the_fly_are_the_same(world):
  rows, summary = build(
    world / "instances.json",
    world,
    world / "out.jsonl",
    "--seed=3",
    f"--captions={_captions(world, LINES)}",
    "--image_size=32",
    "--num_bins=32",
    "--geometry=square",
  )
  source = _source(world)
  built = conversations.Conversations(str(world / "out.jsonl"), str(world))
  spec = objectives.PairSpec(
    BINS, source.categories, 4, captions=source.object_captions()
  )
  for k, row in enumerate(rows):
    index = row["provenance"]["index"]
    rng = np.random.default_rng((3, index))
    pairs = objectives.pairs(source[index], SQUARE, spec, rng)
    assert list(built[k].turns) == [pair.turn for pair in pairs]
  assert summary["captions"] == {"used": 6}
  assert summary["settings"]["captions"].endswith("captions.jsonl")

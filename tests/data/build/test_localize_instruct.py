"""Built data: the pairs of training, and true by the annotations."""

import collections
import json
import os
import pathlib
import re

import numpy as np
import pytest
from built import build
from PIL import Image
from zygote import run

from locvlm_jax import errors
from locvlm_jax.data import geometry, objectives
from locvlm_jax.data.build import built_for, drawn_pairs
from locvlm_jax.data.sources import coco, conversations
from locvlm_jax.text import coords

DATA = os.environ.get("LOCVLM_TEST_DATA", "")


@pytest.fixture
def world(tmp_path):
  """Five images; one shows nothing but a crowd of what could be denied."""
  names = ["cup", "ball", "caf\u00e9 chair"]
  images = [
    {"id": i, "file_name": f"{i:012d}.png", "width": 40, "height": 30}
    for i in range(5)
  ]
  notes = [
    (0, 1, [2, 3, 10, 12], 0),
    (0, 2, [20, 5, 8, 8], 0),
    (1, 2, [20, 5, 8, 8], 0),
    (1, 2, [25, 15, 8, 8], 0),
    (2, 3, [0, 0, 2, 9], 0),  # beside the center
    (3, 1, [2, 3, 30, 12], 1),
    (3, 2, [2, 3, 9, 9], 1),
    (3, 3, [2, 3, 9, 9], 1),
    (4, 3, [15, 5, 9, 9], 0),
  ]
  content = {
    "images": images,
    "categories": [{"id": i + 1, "name": n} for i, n in enumerate(names)],
    "annotations": [
      {"id": k, "image_id": i, "category_id": c, "bbox": b, "iscrowd": crowd}
      for k, (i, c, b, crowd) in enumerate(notes)
    ],
  }
  (tmp_path / "instances.json").write_text(json.dumps(content))
  for row in images:
    Image.new("RGB", (40, 30)).save(tmp_path / row["file_name"])
  return tmp_path


def test_counts_by_reason_add_up(world):
  tested = world / "tested.json"
  tested.write_text('[{"image": "COCO_val2014_000000000004.jpg"}]')
  rows, summary = build(
    world / "instances.json", world, world / "out.jsonl", f"--exclude={tested}"
  )
  assert [row["id"] for row in rows] == ["0", "1", "2"]
  assert summary["images"] == {
    "of an evaluation set": 1,
    "nothing to ask": 1,
    "used": 3,
  }
  assert sum(summary["annotations"].values()) == 9
  assert summary["annotations"]["crowd"] == 3
  assert summary["annotations"]["not alone"] == 2
  assert summary["annotations"]["cropped"] == 1
  assert summary["annotations"]["of an evaluation set"] == 1
  said = collections.Counter(
    o for row in rows for o in row["provenance"]["objectives"]
  )
  assert summary["pairs"] == said
  assert summary["settings"]["geometry"] == "center_crop"
  assert summary["boxes"] == {}


def test_odd_boxes_are_counted_and_idle_exclusions_refused(world):
  path = world / "instances.json"
  content = json.loads(path.read_text())
  content["annotations"][0]["bbox"] = [2, 3, 10, 0]
  content["annotations"][8]["bbox"] = [15, 5, 99, 9]
  path.write_text(json.dumps(content))
  _, summary = build(path, world, world / "out.jsonl")
  assert summary["boxes"] == {"clipped": 1, "empty": 1}
  tested = world / "tested.json"
  tested.write_text('[{"image": "flickr_4.jpg"}]')
  done = run(
    "build_data",
    f"--instances={path}",
    f"--images={world}",
    f"--out={world}/o.jsonl",
    f"--exclude={tested}",
  )
  assert done.returncode == 70 and "names no image by COCO's id" in done.stderr


def test_the_same_pairs_as_on_the_fly(world):
  rows, _ = build(
    world / "instances.json",
    world,
    world / "out.jsonl",
    "--seed=5",
    "--geometry=pad",
    "--coords=nfp",
    "--location=point",
    "--image_size=32",
  )
  source = coco.Instances(str(world / "instances.json"), str(world))
  built = conversations.Conversations(str(world / "out.jsonl"), str(world))
  by_index = {row["provenance"]["index"]: k for k, row in enumerate(rows)}
  form = coords.Coords("nfp", 224, "point")
  spec = objectives.PairSpec(form, source.categories, 4)
  padded = geometry.make("pad", 40, 30, 32)
  for i in range(len(source)):
    rng = np.random.default_rng((5, i))
    pairs = objectives.pairs(source[i], padded, spec, rng)
    turns = [pair.turn for pair in pairs]
    if i in by_index:
      record = built[by_index[i]]
      assert list(record.turns) == turns
      assert record.image == source[i].image
    else:
      assert turns == []


def test_nothing_is_left_of_a_run_that_fails(world):
  path = world / "instances.json"
  text = path.read_text().replace('"category_id": 3', '"category_id": 9')
  path.write_text(text)
  done = run(
    "build_data",
    f"--instances={path}",
    f"--images={world}",
    f"--out={world}/out.jsonl",
  )
  assert done.returncode == 70 and "unknown category 9" in done.stderr
  assert not list(world.glob("out.jsonl*"))


def test_a_broken_line_is_named(tmp_path):
  path = tmp_path / "x.jsonl"
  path.write_text('{"id": "1", "conversations": []}\n{\n')
  with pytest.raises(errors.DataError, match="x.jsonl: line 2"):
    conversations.Conversations(str(path), "")


def cropped(box, width, height, size):
  """CLIP's shortest edge and center crop, by hand; in pixels, or None."""
  scale = size / min(width, height)
  w, h = (max(size, int(scale * v)) for v in (width, height))
  left, top = (w - size) // 2, (h - size) // 2
  x1, y1, x2, y2 = np.array(box) * ([w / width, h / height] * 2)
  x1, x2 = (min(max(x - left, 0), size) for x in (x1, x2))
  y1, y2 = (min(max(y - top, 0), size) for y in (y1, y2))
  return x1, y1, x2, y2


@pytest.mark.skipif(not DATA, reason="LOCVLM_TEST_DATA names no folder coco/")
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_every_pair_about_real_images_is_true(split, tmp_path):
  """Against the annotations, by other means than the package's."""
  folder = pathlib.Path(DATA, "coco")
  path = folder / "annotations" / f"instances_{split}.json"
  rows, summary = build(path, folder / split, tmp_path / "out.jsonl")
  content = json.loads(path.read_text())
  names = {c["id"]: c["name"] for c in content["categories"]}
  sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
  objects = collections.defaultdict(list)
  for note in content["annotations"]:
    objects[note["image_id"]].append(note)
  assert sum(summary["images"].values()) == len(content["images"])
  assert sum(summary["annotations"].values()) == len(content["annotations"])
  longest_first = sorted(map(re.escape, names.values()), key=len, reverse=True)
  pattern = re.compile(rf"\b({'|'.join(longest_first)})\b")
  seen = collections.Counter()
  for row in rows:
    notes = objects[int(row["id"])]
    values = [m["value"] for m in row["conversations"]]
    for question, answer in zip(values[::2], values[1::2], strict=True):
      name = pattern.search(question) or pattern.search(answer)
      found = [n for n in notes if names[n["category_id"]] == name[0]]
      where = re.search(r"\[(\d+),(\d+),(\d+),(\d+)\]", question + answer)
      seen[bool(where)] += 1
      if not where:
        assert not found, (row["id"], question)
        continue
      assert len(found) == 1 and not found[0]["iscrowd"], (row["id"], question)
      x, y, w, h = found[0]["bbox"]
      box = cropped((x, y, x + w, y + h), *sizes[int(row["id"])], 224)
      bins = np.array([int(v) for v in where.groups()])
      assert np.abs(bins + 0.5 - box).max() <= 0.5 + 1e-6, (row["id"], box)
  assert seen[False] == summary["pairs"]["neg_pred"] > 30
  assert seen[True] > 40


@pytest.fixture(scope="module")
def clips(microworld):
  return pathlib.Path(microworld(num_videos=12))


def build_videos(clips, out, *options):
  done = run(
    "build_data",
    "--dataset=localize_activitynet",
    f"--out={out}",
    f"--tracks={clips}/annotations/videos_train.json",
    f"--videos={clips}/videos",
    *options,
  )
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  return rows, json.loads(pathlib.Path(f"{out}.summary.json").read_text())


def test_pairs_about_videos_are_true_by_the_tracks(clips, tmp_path):
  """By hand: what is asked for stands still, what is denied is not there."""
  rows, summary = build_videos(clips, tmp_path / "o.jsonl", "--coords=nfp")
  content = json.loads((clips / "annotations/videos_train.json").read_text())
  videos = {v["file_name"]: v for v in content["videos"]}
  names = {c["id"]: c["name"] for c in content["categories"]}
  asked = collections.Counter()
  for row in rows:
    video = videos[row["video"]]
    tracks = {
      names[n["category_id"]]: n
      for n in content["annotations"]
      if n["video_id"] == video["id"]
    }
    turns = row["conversations"]
    assert turns[0]["value"].startswith("<video>\n")
    for kind, question, answer in zip(
      row["provenance"]["objectives"], turns[::2], turns[1::2], strict=True
    ):
      text = question["value"] + " " + answer["value"]
      assert not re.search("image|picture", text)
      said = {n for n in names.values() if re.search(rf"\b{n}\b", text)}
      asked[kind] += 1
      if kind == "neg_pred":
        assert said and not said & tracks.keys()
        continue
      (note,) = (tracks[name] for name in said)
      assert not note["moving"]
      box = np.array(json.loads(re.search(r"\[.*?\]", text)[0]))
      x, y, w, h = np.median(note["bboxes"], axis=0)
      scale = np.array([video["width"], video["height"]] * 2)
      wanted = np.array([x, y, x + w, y + h]) / scale
      np.testing.assert_allclose(box, wanted, atol=2e-2)
  assert min(asked.values()) > 2 and len(asked) == 3
  assert asked == summary["pairs"] and summary["images"]["used"] == len(rows)
  moving = sum(n["moving"] for n in content["annotations"])
  assert summary["annotations"]["not static"] == moving > 3
  assert sum(summary["annotations"].values()) == len(content["annotations"])
  assert summary["settings"]["geometry"] == "square"
  source = conversations.Videos(
    str(tmp_path / "o.jsonl"), str(clips / "videos")
  )
  assert len(source) == len(rows) and source[0].is_video


def test_flags_of_the_other_data_set_are_refused(tmp_path):
  for flags, message in (
    (["--dataset=localize_activitynet", "--videos=x"], "--tracks is missing"),
    (["--instances=x"], "--images is missing"),
    (["--instances=x", "--images=x", "--tracks=x"], "other data set"),
  ):
    done = run("build_data", f"--out={tmp_path}/o.jsonl", *flags)
    assert done.returncode == 78 and message in done.stderr


def test_a_data_set_of_so_many_pairs_is_drawn_from_all(world):
  options = ("--num_pairs=4", "--max_pairs=3")
  rows, summary = build(
    world / "instances.json", world, world / "out.jsonl", *options
  )
  assert len(rows) == 4 and len({row["id"] for row in rows}) == 4
  assert all(len(row["conversations"]) == 2 for row in rows)
  assert all(
    row["conversations"][0]["value"].startswith("<image>\n") for row in rows
  )
  kept = collections.Counter(
    o for r in rows for o in r["provenance"]["objectives"]
  )
  assert summary["settings"]["num_pairs"] == 4
  left_out = summary["pairs"].pop("left out")
  assert summary["pairs"] == kept
  every, whole = build(
    world / "instances.json", world, world / "all.jsonl", "--max_pairs=3"
  )
  assert left_out + 4 == sum(whole["pairs"].values())
  asked = {m["value"] for row in every for m in row["conversations"]}
  bare = {m.removeprefix("<image>\n") for m in asked}
  said = (m["value"] for row in rows for m in row["conversations"])
  assert {m.removeprefix("<image>\n") for m in said} <= bare


def test_more_pairs_than_there_are_is_refused():
  with pytest.raises(ValueError, match="--num_pairs=3: there are 2 pairs"):
    drawn_pairs.draw(["a", "b"], 3, seed=0)


def test_a_data_set_built_for_other_locations_is_refused(tmp_path):
  path = str(tmp_path / "pairs.jsonl")
  spec = coords.Coords("ivb", 224)
  wanted = built_for.Locations(spec, "center_crop", 224)
  built_for.check(path, wanted)  # LLaVA's conversations have no summary
  settings = wanted.settings()
  for name, other in (("num_bins", 336), ("geometry", "pad")):
    text = json.dumps({"settings": settings | {name: other}})
    pathlib.Path(path + ".summary.json").write_text(text)
    said = f"was built with --{name}={other}, and this run has {name}="
    with pytest.raises(errors.DataError, match=said):
      built_for.check(path, wanted)
  text = json.dumps({"settings": settings})
  pathlib.Path(path + ".summary.json").write_text(text)
  built_for.check(path, wanted)
  wide = coords.Coords("ivb", 224, fixed_width=True)
  with pytest.raises(errors.DataError, match="built without leading zeros"):
    built_for.check(path, built_for.Locations(wide, "center_crop", 224))

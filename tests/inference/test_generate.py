"""`generate`: a picture and a question from the command line."""

import json

import pytest
from PIL import Image
from zygote import run


@pytest.fixture(scope="module")
def image(tmp_path_factory):
  path = tmp_path_factory.mktemp("image") / "x.png"
  Image.new("RGB", (120, 100), (200, 30, 30)).save(path)
  return path


def test_an_answer_and_a_picture(image, tmp_path):
  drawn = tmp_path / "drawn.png"
  done = run(
    "generate",
    f"--image={image}",
    "--prompt=Where is the ball?",
    "--json",
    f"--draw={drawn}",
    "--max_new_tokens=24",
  )
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout.splitlines()[-1])
  assert said["answer"] and (said["location"] is None) == bool(said["reason"])
  if said["location"]:
    x1, y1, x2, y2 = said["location"]
    assert 0 <= x1 <= x2 <= 120 and 0 <= y1 <= y2 <= 100
  with Image.open(drawn) as picture:
    assert picture.size == (120, 100)


def test_a_location_that_can_always_be_read(image):
  done = run(
    "generate",
    f"--image={image}",
    "--prompt=Where is the ball?",
    "--json",
    "--constrained",
    "--expected=16",
  )
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout.splitlines()[-1])
  x1, y1, x2, y2 = said["location"]
  assert 0 <= x1 <= x2 <= 120 and 0 <= y1 <= y2 <= 100
  assert 0 < said["probability"] <= 1 and said["reason"] == ""
  box = {"label": "ball", "box": said["location"]}
  assert said["boxes"] == [{**box, "score": said["expected_iou"]}]
  assert said["probability"] < said["expected_iou"] <= 1
  mean, deviation = said["expected"], said["deviation"]
  assert 0 <= mean[0] <= mean[2] <= 1 and 0 <= mean[1] <= mean[3] <= 1
  assert any(deviation) and max(deviation) <= 0.5


@pytest.mark.parametrize("num", [0, 2])
def test_any_number_of_pictures(image, num):
  done = run(
    "generate",
    *[f"--image={image}"] * num,
    "--prompt=Hello.",
    "--temperature=1",
    "--top_p=0.9",
    "--max_new_tokens=4",
  )
  assert done.returncode == 0, done.stderr


def test_mistakes_are_one_line(image, tmp_path):
  done = run("generate", "--image=absent.png", "--prompt=What is this?")
  assert done.returncode == 70 and "absent.png" in done.stderr
  done = run(
    "generate",
    f"--image={image}",
    "--prompt=What is this?",
    f"--checkpoint={tmp_path}",
  )
  assert done.returncode == 78 and "give --config" in done.stderr


def test_every_object_is_listed_with_label_box_and_score(image):
  done = run("generate", f"--image={image}", "--detect=ball,cup", "--json")
  assert done.returncode == 0, done.stderr
  said = json.loads(done.stdout.splitlines()[-1])
  assert said["answer"].count(".") == 2
  for box in said["boxes"]:
    assert box["label"] in ("ball", "cup") and len(box["box"]) == 4
    assert box["score"] is None  # the reference has no calibration of lists

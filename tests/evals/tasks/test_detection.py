"""Detection: every box of a category, by COCO's AP and by F1."""

import dataclasses
import json
import sys

import cups
import numpy as np
import pytest
from eval_scenes import BOXES, POINTS, ask, rate, record

from locvlm_jax.data.question_view import View
from locvlm_jax.evals import predictions, results_files
from locvlm_jax.evals.scorers import detection
from locvlm_jax.evals.scorers.detection import Detected, Truth
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import answer as answers_lib
from locvlm_jax.inference.answer import Answer, Listing
from locvlm_jax.text import box_lists

SCENE = record(
  "7",
  cup=[(10, 20, 30, 60), (50, 20, 70, 60)],
  dog=(80, 10, 90, 40),
  owl=(0, 60, 40, 90),
  crowds=("owl",),
)


def right_answer(question, coords):
  """What an image shows, as the model should list it."""
  boxes = {name: [] for name in question.truth["names"]}
  for name, box, *_ in question.truth["objects"]:
    boxes[name].append(tuple(v / 100 for v in box))
  return box_lists.write(list(boxes.items()), coords)


def test_what_is_annotated_and_two_absent_categories_are_asked_for():
  questions = ask("detect", [SCENE])
  names = [name for q in questions for name in q.truth["names"]]
  assert {"cup", "dog"} < set(names) and len(names) == len(questions) == 4
  assert "owl" not in names  # a crowd: how many there are is not known
  cups = next(q for q in questions if q.listed == ("cup",))
  assert cups.question == "Find every cup." and len(cups.truth["objects"]) == 2
  together = ask("detect_several", [SCENE])
  assert [len(q.listed) for q in together] == [3, 1]
  every = ask("detect_coco", [SCENE])
  assert len(every) == 8 and ("owl",) in {q.listed for q in every}


def test_of_every_category_only_those_are_asked_that_were_looked_for():
  looked_for = dataclasses.replace(SCENE, absent=("kite",))
  questions = ask("detect_coco", [looked_for])
  # The owls are a crowd: in LVIS, of a category that is not exhaustive.
  assert {q.listed for q in questions} == {("cup",), ("dog",), ("kite",)}


def test_right_answers_have_full_marks_in_every_task():
  for task in ("detect", "detect_several", "detect_coco"):
    questions = ask(task, [SCENE])
    answers = [right_answer(q, BOXES) for q in questions]
    metrics = rate(task, questions, answers)
    # A box that is rounded to bins has an IoU of about 0.93.
    assert metrics["ap_unscored"] > 0.8 and "ap" not in metrics
    assert metrics["f1_50"] == metrics["none_right"] == 1
    assert metrics["some_right"] == 1 and metrics["duplicates"] == 0
    assert all(
      EVALS[task].judge(q, a)["correct"]
      for q, a in zip(questions, answers, strict=True)
      if "owl" not in q.listed
    )


def test_wrong_missing_repeated_and_foreign_boxes_are_told_apart():
  questions = [q for q in ask("detect", [SCENE]) if q.listed == ("cup",)]
  said = "cup [10,20,30,60] [11,20,30,60] [90,90,95,99] [1,2]. dog [0,0,9,9]."
  metrics = rate("detect", questions, [said])
  assert metrics["num_boxes"] == 3 and metrics["num_objects"] == 2
  assert metrics["duplicates"] == pytest.approx(1 / 3)
  assert metrics["f1_50"] == pytest.approx(2 / 5)
  assert metrics["unreadable_boxes"] == 1
  judged = EVALS["detect"].judge(questions[0], said)
  assert [b["iou"] > 0.9 for b in judged["boxes"]] == [True, False, False]
  assert not judged["correct"]


def test_boxes_of_a_cropped_away_object_count_as_missed():
  wide = record("8", width=200, cup=[(60, 10, 90, 60), (0, 10, 30, 60)])
  (question,) = [
    q
    for q in ask("detect_coco", [wide], geometry="center_crop")
    if q.listed == ("cup",)
  ]
  metrics = rate("detect_coco", [question], ["cup [10,10,40,60]."])
  assert metrics["f1_50"] == pytest.approx(2 / 3)


def test_names_with_full_stops_are_found_in_answers():
  names = ("bottle no. 5", "approx.", "the end")
  scene = record("9", **{name: (10, 20, 30, 60) for name in names})
  questions = ask("detect_several", [scene], vocabulary=names)
  answers = [right_answer(q, BOXES) for q in questions]
  assert rate("detect_several", questions, answers)["f1_50"] == 1


def test_scores_order_the_boxes_of_ap():
  questions = ask("detect", [SCENE])
  cup, others = "cup [0,0,9,9] [10,20,30,60].", "no x."
  answers = []
  for q in questions:
    is_cup = q.listed == ("cup",)
    listing = Listing("cup", 1.0, (0.1, 0.2), (0.9, 0.1))
    lists = (listing,) if is_cup else (Listing(q.listed[0], 0.1),)
    answers.append(Answer(cup if is_cup else others, lists=lists))
  metrics = rate("detect", questions, answers)
  # The right box has the higher score: 0.18 against 0.1.
  assert metrics["ap50"] > metrics["f1_50"] / 2 and metrics["ap50"] > 0.24
  worse = [
    Answer(cup, lists=(Listing("cup", 1.0, (0.9, 0.2), (0.9, 0.1)),))
    if q.listed == ("cup",)
    else a
    for q, a in zip(questions, answers, strict=True)
  ]
  assert rate("detect", questions, worse)["ap50"] < metrics["ap50"]


def test_scores_survive_the_file_of_predictions():
  (question, *_) = ask("detect", [SCENE])
  lists = (Listing("cup", 0.75, (0.5,), (0.25,)),)
  row = predictions.row(EVALS["detect"], question, Answer("x", lists=lists))
  again = json.loads(json.dumps(row))
  assert answers_lib.of(again["answer"], again).lists == lists
  assert lists[0].scores == (0.375,)


def test_points_cannot_be_compared_with_boxes():
  with pytest.raises(ValueError, match="coords.location='point' has no boxes"):
    ask("detect", [SCENE], coords=POINTS)


# --------------------------------------------------------------- the scorer


def drawn(seed=0):
  """Annotated and listed boxes of twenty images, some of them crowds."""
  rng = np.random.default_rng(seed)
  truths, found = [], []
  for i in range(20):
    for _ in range(rng.integers(0, 8)):
      x, y, w, h = rng.uniform((0, 0, 5, 5), (300, 300, 150, 150))
      name, crowd = str(rng.integers(3)), bool(rng.random() < 0.1)
      box = (x, y, x + w, y + h)
      truths.append(Truth(str(i), name, box, crowd, 0.7 * w * h))
      moved = tuple(np.array(box) + rng.normal(0, 0.08, 4) * [w, h, w, h])
      found.append(Detected(str(i), name, moved, round(rng.random(), 2)))
  return truths, found, [str(i) for i in range(20)]


def test_ap_equals_pycocotools_on_the_results_file(tmp_path):
  from pycocotools import coco, cocoeval

  truths, found, images = drawn()
  ours = detection.average_precision(truths, found, images)
  content = {
    "info": {},
    "images": [{"id": int(i)} for i in images],
    "categories": [{"id": 10 * i, "name": str(i)} for i in range(3)],
    "annotations": [
      {
        "id": k,
        "image_id": int(t.image),
        "category_id": 10 * int(t.category),
        "bbox": [*t.box[:2], t.box[2] - t.box[0], t.box[3] - t.box[1]],
        "area": t.area,
        "iscrowd": int(t.crowd),
      }
      for k, t in enumerate(truths, 1)
    ],
  }
  (tmp_path / "gt.json").write_text(json.dumps(content))
  rows = [
    detection.result(int(d.image), 10 * int(d.category), d) for d in found
  ]
  (tmp_path / "dt.json").write_text(json.dumps(rows))
  annotated = coco.COCO(str(tmp_path / "gt.json"))
  judge = cocoeval.COCOeval(
    annotated, annotated.loadRes(str(tmp_path / "dt.json")), "bbox"
  )
  judge.evaluate()
  judge.accumulate()
  judge.summarize()
  assert list(ours.values()) == judge.stats[:6].tolist()
  assert 0.1 < ours["ap"] < 0.9


def test_where_nothing_is_found_ap_is_zero_for_the_sizes_that_are_there():
  truths = [Truth("a", "cup", (0.0, 0.0, 9.0, 9.0))]
  ours = detection.average_precision(truths, [], ["a"])
  assert ours == {"ap": 0, "ap50": 0, "ap75": 0, "ap_small": 0,
                  "ap_medium": None, "ap_large": None}  # fmt: skip
  assert set(detection.average_precision([], [], ["a"]).values()) == {None}


def test_without_pycocotools_the_line_that_installs_it_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "pycocotools", None)
  with pytest.raises(ValueError, match="pip install pycocotools"):
    detection.average_precision(*drawn())


def test_boxes_on_a_crowd_are_neither_right_nor_wrong():
  crowd = ((0.0, 0.0, 50.0, 50.0), True)
  found = detection.match([(10.0, 10.0, 20.0, 20.0)], [crowd])
  assert found.ignored == (True,) and found.num == 0
  assert detection.f1([found], 0.5) is None


# ----------------------------------------------------------------- the files


def test_boxes_are_written_as_coco_and_yolo_have_them(tmp_path):
  questions = ask("detect", [SCENE])
  answers = [right_answer(q, BOXES) for q in questions]
  path = str(tmp_path / "results.json")
  results_files.write(questions, answers, path)
  rows = json.loads((tmp_path / "results.json").read_text())
  assert {r["image_id"] for r in rows} == {7} and len(rows) == 3
  cups = [r for r in rows if r["category_id"] == 4]  # the vocabulary's fourth
  assert sorted(r["bbox"] for r in cups)[0] == pytest.approx(
    [10.5, 20.5, 20, 40]
  )
  results_files.write(questions, answers, str(tmp_path / "yolo") + "/")
  lines = (tmp_path / "yolo" / "7.txt").read_text().splitlines()
  assert len(lines) == 3
  assert "3 0.205000 0.405000 0.200000 0.400000 1" in lines


def _guessed(question, rng):
  """Boxes near the annotated ones, with few different scores."""
  found = []
  for _, box, *_ in question.truth["objects"]:
    moved = np.array(box) / (40, 30, 40, 30) + rng.normal(0, 0.03, 4)
    found.append(tuple(np.clip(moved, 0, 0.99)))
  (name,) = question.listed
  scores = tuple(rng.choice([0.2, 0.5, 0.9], len(found)).tolist())
  listing = Listing(name, 1.0, scores, (1.0,) * len(found))
  return Answer(box_lists.write([(name, found)], BOXES), lists=(listing,))


def test_evaluate_s_files_have_the_same_ap_by_pycocotools(tmp_path):
  from pycocotools import coco, cocoeval

  made = cups.write(tmp_path)
  for note in made.content["annotations"]:
    note["id"] += 1  # pycocotools takes an object whose id is 0 for none
    note["area"] = note["bbox"][2] * note["bbox"][3]
  # Categories are in another order than their names, images than their ids.
  for kind, number in zip(made.content["categories"], (2, 1, 3), strict=True):
    kind["id"] = number
  source = made.changed(lambda content: None)
  view = View(BOXES, "square", 100, source.categories, 3,
              category_ids=source.category_ids)  # fmt: skip
  task = EVALS["detect_coco"]
  questions = task.questions(list(source), view)
  rng = np.random.default_rng(0)
  answers = [_guessed(q, rng) for q in questions]
  with open(tmp_path / "predictions.jsonl", "w") as out:
    predictions.write(out, task, 0, questions, answers)
  (said,) = results_files.write_beside(str(tmp_path), [EVALS["vqa"], task])
  assert "detect_coco_results.json (COCO)" in said
  annotated = coco.COCO(str(tmp_path / "instances.json"))
  found = annotated.loadRes(str(tmp_path / "detect_coco_results.json"))
  judge = cocoeval.COCOeval(annotated, found, "bbox")
  judge.evaluate()
  judge.accumulate()
  judge.summarize()
  metrics = task.score(questions, answers)
  names = ("ap", "ap50", "ap75", "ap_small")
  assert [metrics[n] for n in names] == judge.stats[:4].tolist()
  assert 0 < metrics["ap"] < 1 and metrics["ap"] != metrics["ap_unscored"]
  labels = sorted((tmp_path / "detect_coco_labels").iterdir())
  assert [p.suffix for p in labels] == [".txt"] * 6


def test_two_images_of_one_name_are_not_written_into_one_file(tmp_path):
  scenes = [SCENE, dataclasses.replace(SCENE, id="8")]
  scenes[1] = dataclasses.replace(scenes[1], image="b/7.png")
  questions = ask("detect", scenes)
  with pytest.raises(ValueError, match=r"would both be 7.txt"):
    results_files.write(questions, [""] * len(questions), str(tmp_path) + "/")
  with open(tmp_path / "predictions.jsonl", "w") as out:
    predictions.write(out, EVALS["detect"], 0, questions, [""] * len(questions))
  (said,) = results_files.write_beside(str(tmp_path), [EVALS["detect"]])
  assert "detect_results.json; no " in said and "would both be 7.txt" in said
  assert not (tmp_path / "detect_labels").exists()

"""The micro-world's validation data in the formats of published benchmarks.

  DIR/benchmarks/
    pope_{random,popular,adversarial}.json   POPE, three questions of each kind
    gqa.json                                 GQA, from the general questions
    refcoco_testB.json ... refcocog_test.json  referring expressions, by rows
    activitynet_{q,a}.json  msvd.json  msrvtt.csv  tgif.csv   video questions
    ade/ADE_val_1000001.{jpg,json}           ADE20K, of the held-out categories

VQAv2's files and Hal-Act's lists are among the annotations. So every evaluation
of the paper has a small twin, which takes the same way from file to score.
"""

import collections
import csv
import json
import os
import pathlib
import shutil

import numpy as np

from locvlm_jax.microworld.texts.wording import NUMBERS

FOLDER = "benchmarks"
_REFER = (
  "refcoco_testB", "refcocoplus_testB", "refcocog_val", "refcocog_test",
)  # fmt: skip
_YES_OR_NO = ("yes", "no")


def write(root: str, seed: int = 0) -> None:
  """Writes all files, from the annotations that are there.

  Args:
    root: the folder of a micro-world.
    seed: of POPE's random objects.
  """
  base = pathlib.Path(root)
  out = base / FOLDER
  out.mkdir(exist_ok=True)
  instances = _load(base, "instances_val")
  _write_pope(out, instances, np.random.default_rng(seed))
  _write_gqa(
    out, _load(base, "vqa_questions_val"), _load(base, "vqa_annotations_val")
  )
  _write_refer(out, _load(base, "refs_val"), instances)
  _write_videos(out, _load(base, "videos_val"))
  _write_ade(out, base, _load(base, "instances_novel_val"))


def _load(base: pathlib.Path, name: str):
  return json.loads((base / "annotations" / f"{name}.json").read_text("utf-8"))


def _dump(path: pathlib.Path, content: object) -> None:
  path.write_text(json.dumps(content), "utf-8")


def _present(content: dict) -> dict[int, list[str]]:
  """Maps each image to the categories that are in it, each once."""
  names = {c["id"]: c["name"] for c in content["categories"]}
  found = collections.defaultdict(dict)  # dicts, for their order
  for note in content["annotations"]:
    found[note["image_id"]][names[note["category_id"]]] = None
  return {image: list(there) for image, there in found.items()}


def _write_pope(out, content: dict, rng: np.random.Generator) -> None:
  """Writes POPE's three files about images of three categories or more.

  What is absent is chosen as in POPE: at random, among the most frequent, or
  among those that are most often beside what is there.
  """
  present = _present(content)
  names = [c["name"] for c in content["categories"]]
  often = collections.Counter(n for there in present.values() for n in there)
  beside = collections.defaultdict(collections.Counter)
  for there in present.values():
    for name in there:
      beside[name].update(n for n in there if n != name)
  files = {row["id"]: row["file_name"] for row in content["images"]}
  rows = collections.defaultdict(list)
  for image, there in present.items():
    if len(there) < 3 or len(names) - len(there) < 3:
      continue
    absent = [n for n in names if n not in there]
    near = sum((beside[n] for n in there), collections.Counter())
    drawn = {
      "random": [absent[i] for i in rng.permutation(len(absent))],
      "popular": sorted(absent, key=lambda n: -often[n]),
      "adversarial": sorted(absent, key=lambda n: -near[n]),
    }
    for kind, others in drawn.items():
      for here, gone in zip(there[:3], others, strict=False):
        for name, label in ((here, "yes"), (gone, "no")):
          rows[kind].append(
            {
              "question_id": len(rows[kind]) + 1,
              "image": files[image],
              "text": f"Is there a {name} in the image?",
              "label": label,
            }
          )
  for kind in ("random", "popular", "adversarial"):
    text = "".join(json.dumps(row) + "\n" for row in rows[kind])
    (out / f"pope_{kind}.json").write_text(text, "utf-8")


def _write_gqa(out, questions: dict, annotations: dict) -> None:
  answers = {
    a["question_id"]: _in_words(a["multiple_choice_answer"])
    for a in annotations["annotations"]
  }
  _dump(
    out / "gqa.json",
    {
      str(q["question_id"]): {
        "imageId": f"{q['image_id']:012d}",
        "question": q["question"],
        "answer": answers[q["question_id"]],
        "isBalanced": True,
        "types": {
          "structural": "verify"
          if answers[q["question_id"]] in _YES_OR_NO
          else "query"
        },
      }
      for q in questions["questions"]
    },
  )


def _in_words(answer: str) -> str:
  """Writes a number of VQAv2 as a word, since GQA compares letter by letter."""
  return NUMBERS[int(answer)] if answer.isdigit() else answer


def _write_refer(out, refs: list[dict], instances: dict) -> None:
  sizes = {r["id"]: (r["width"], r["height"]) for r in instances["images"]}
  for name in _REFER:
    _dump(
      out / f"{name}.json",
      [
        {
          "img_id": f"COCO_train2014_{ref['image_id']:012d}_{ref['ann_id']}",
          "bbox": ref["bbox"],
          "width": sizes[ref["image_id"]][0],
          "height": sizes[ref["image_id"]][1],
          "sents": said["sent"],
        }
        for ref in refs
        for said in ref["sentences"]
      ],
    )


def _write_videos(out, content: dict) -> None:
  """Writes questions with a short answer; all data sets' files ask the same."""
  rows = [
    (f"{talk['id']}_{i}", os.path.basename(talk["video"]), question, answer)
    for talk in content["conversations"]
    for i, (question, answer) in enumerate(_turns(talk))
    if len(answer.split()) <= 3
  ]
  stems = [os.path.splitext(name)[0] for _, name, _, _ in rows]
  _dump(
    out / "activitynet_q.json",
    [
      {"question_id": i, "video_name": stem, "question": q}
      for (i, _, q, _), stem in zip(rows, stems, strict=True)
    ],
  )
  _dump(
    out / "activitynet_a.json",
    [
      {"question_id": i, "answer": a, "type": 3 if a in _YES_OR_NO else 4}
      for i, _, _, a in rows
    ],
  )
  _dump(
    out / "msvd.json",
    [
      {"id": i, "video_id": stem, "question": q, "answer": a}
      for (i, _, q, a), stem in zip(rows, stems, strict=True)
    ],
  )
  _table(
    out / "msrvtt.csv",
    ",",
    ("video", "question", "answer", "qid"),
    [(s, q, a, i) for (i, _, q, a), s in zip(rows, stems, strict=True)],
  )
  _table(
    out / "tgif.csv",
    "\t",
    ("gif_name", "question", "answer", "type", "vid_id"),
    [(s, q, a, 0, i) for (i, _, q, a), s in zip(rows, stems, strict=True)],
  )


def _turns(talk: dict) -> list[tuple[str, str]]:
  """Lists (question, answer), as plain text, answers in lower case."""
  said = [
    m["value"].replace("<video>", "").strip() for m in talk["conversations"]
  ]
  answers = (a.rstrip(".").lower() for a in said[1::2])
  return list(zip(said[::2], answers, strict=True))


def _table(path, delimiter: str, head: tuple, rows: list[tuple]) -> None:
  with open(path, "w", encoding="utf-8", newline="") as f:
    writer = csv.writer(f, delimiter=delimiter)
    writer.writerows([head, *rows])


def _write_ade(out, base: pathlib.Path, content: dict) -> None:
  names = {c["id"]: c["name"] for c in content["categories"]}
  objects = collections.defaultdict(list)
  for note in content["annotations"]:
    x, y, w, h = note["bbox"]
    objects[note["image_id"]].append(
      {
        "id": note["id"],
        "name": names[note["category_id"]],
        "parts": {"part_level": 0},
        "polygon": {"x": [x, x + w, x + w, x], "y": [y, y, y + h, y + h]},
      }
    )
  folder = out / "ade"
  folder.mkdir(exist_ok=True)
  for row in content["images"]:
    if not (there := objects.get(row["id"])):
      continue
    stem = f"ADE_val_{row['id']:08d}"
    shutil.copyfile(
      base / "images" / "val" / row["file_name"], folder / f"{stem}.jpg"
    )
    _dump(
      folder / f"{stem}.json",
      {
        "annotation": {
          "filename": f"{stem}.jpg",
          "imsize": [row["height"], row["width"], 3],
          "object": there,
        }
      },
    )

"""Every file of others that is damaged is named in one line, whatever it is.

Each format is read from a small file, damaged at random in its structure, until
nothing is left to read: no error may come out but a fault that names the file.
"""

import json
import os
import pathlib
import tempfile
import warnings

import benchmark_files
import damage
import hypothesis
import pytest
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data.exclude import leakage
from locvlm_jax.data.formats import grounding, labelme, table
from locvlm_jax.data.sources import (
  ade20k,
  any_format,
  coco,
  conversations,
  object_captions,
  object_lists,
  questions,
  refer,
  tracks,
)
from locvlm_jax.evals import scoring
from locvlm_jax.pseudo import segmentations

_IMAGES = [{"id": 7, "file_name": "000000000007.jpg", "width": 9, "height": 8}]
_KINDS = [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}]
_COCO = {
  "images": [*_IMAGES, {**_IMAGES[0], "id": 8, "absent": [2]}],
  "categories": _KINDS,
  "annotations": [
    {"id": 3, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3.5, 4],
     "iscrowd": 0},
    {"id": 4, "image_id": 8, "category_id": 1, "bbox": [1, 2, 3.5, 4]},
  ],
}  # fmt: skip
_TALK = [
  {"from": "human", "value": "<image>\nWhere?"},
  {"from": "gpt", "value": "At [0.1, 0.2, 0.3, 0.4]."},
]
_TEXT = [{"from": "human", "value": "Hi"}, _TALK[1]]
_TALKS = [{"id": "a", "image": "x/1.jpg", "conversations": _TALK},
          {"id": 7, "conversations": _TEXT * 2}]  # fmt: skip
_FILMS = {
  "videos": [
    {"id": 1, "file_name": "a.gif", "width": 9, "height": 8, "length": 2},
    {"id": 2, "file_names": ["b/0.jpg", "b/1.jpg"], "width": 9, "height": 8,
     "length": 1, "absent": [1]},
  ],
  "categories": _KINDS,
  "annotations": [
    {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0,
     "bboxes": [[0, 0, 2, 2], None]},
    {"id": 2, "video_id": 2, "category_id": 2, "bboxes": [[0, 0, 2, 2]]},
  ],
}  # fmt: skip
_REFS = [{"image_id": 7, "ann_id": 3, "split": "train",
          "sentences": [{"sent": "a cup"}]}]  # fmt: skip
_SAID = [{"img_id": "COCO_train2014_000000000007_1", "sents": "a cup",
          "bbox": [1, 2, 3, 4], "width": 9, "height": 8}]  # fmt: skip
_ADE = {"annotation": {
  "filename": "a.jpg", "imsize": [8, 9, 3],
  "object": [{"id": 1, "name": "van, car", "raw_name": "van", "parts":
              {"part_level": 0}, "hypernym": ["vehicle"],
              "polygon": {"x": [1, 2], "y": [3, 4]}}]}}  # fmt: skip
_PANOPTIC = {
  "images": _IMAGES,
  "categories": [{**row, "isthing": 1} for row in _KINDS],
  "annotations": [
    {"image_id": 7, "file_name": "a.png",
     "segments_info": [{"id": 5, "category_id": 1, "iscrowd": 0}]}
  ],
}  # fmt: skip
_GQA = {
  "q1": {"imageId": "42", "question": "Which?", "answer": "left",
         "isBalanced": True, "types": {"structural": "query",
         "detailed": "choose"}, "groups": {"global": "side"},
         "entailed": ["q1"]}}  # fmt: skip
_CHOICES = {"q1": {"valid": ["left"], "plausible": ["left"]}}
_PREDICTED = [{"questionId": "q1", "prediction": "left"}]
_VQA, _HUMANS = benchmark_files.FILES["vqav2"]


def _read(source) -> None:
  """Reads all that a source has."""
  for index in range(len(source)):
    source[index]
  source.image_ids()
  source.object_captions()
  repr(source)


def _captioned(folder) -> None:
  (folder / "instances.json").write_text(json.dumps(_COCO))
  source = coco.Instances(str(folder / "instances.json"), str(folder))
  _read(object_captions.captioned(source, str(folder / "f.jsonl")))


def _referred(folder) -> None:
  (folder / "instances_f.json").write_text(json.dumps(_COCO))
  os.replace(folder / "f.json", folder / "refs_f.json")
  _read(refer.Refer(str(folder / "refs_f.json"), str(folder)))


def _beside(folder) -> None:
  """Damages the instances beside the expressions."""
  os.replace(folder / "f.json", folder / "instances.json")
  (folder / "refs.json").write_text(json.dumps(_REFS))
  _read(refer.Refer(str(folder / "refs.json"), str(folder)))


def _ade(folder) -> None:
  os.replace(folder / "f.json", folder / "ADE_f.json")
  source = ade20k.Ade20k(str(folder))
  list(source)


def _scored(task: str, **files):
  """Scores; files that are not the damaged one are written as they are."""

  def read(folder) -> None:
    paths = {key: str(folder / "f.json") for key in files}
    for key, content in files.items():
      if content is not None:
        paths[key] = str(folder / f"{key}.json")
        pathlib.Path(paths[key]).write_text(json.dumps(content))
    scoring.score(scoring.Request(task, **paths))

  return read


def _in_folder(source, name="f.json"):
  return lambda folder: _read(source(str(folder / name), str(folder)))


def _benchmark(name):
  return lambda folder: questions.read(name, str(folder / "f.json"))


def _boxes(reader, file: str):
  """Returns what reads the boxes of a file or folder about a picture."""

  def read(folder):
    Image.new("RGB", (9, 8)).save(folder / "a.png")
    if not file:
      (folder / "f.jsonl").unlink()
    reader.read(str(folder / file), "", "")

  return read


# name: (a file, what reads it from its folder)
FORMATS = {
  "COCO's instances": (_COCO, _in_folder(coco.Instances)),
  "COCO's captions": (
    {"images": _IMAGES, "annotations": [
      {"id": 1, "image_id": 7, "caption": "A cup."}]},
    _in_folder(coco.Captions)),
  "LLaVA's conversations": (_TALKS, _in_folder(conversations.Conversations)),
  "ShareGPT's conversations": (_TALKS, _in_folder(conversations.Text)),
  "conversations about videos": (
    {"conversations": [{"video": "v_1.pkl", "conversations": _TALK}]},
    _in_folder(conversations.Videos)),
  "Video-ChatGPT's": (
    [{"video_id": "v_1", "q": "Who?", "a": "A cat."}] * 2,
    _in_folder(conversations.Videos)),
  "YouTube-VIS's": (_FILMS, _in_folder(tracks.Tracks)),
  "lists of objects": (
    [{"video": "a.mp4", "objects": ["dog", "cup"]}],
    _in_folder(object_lists.ObjectLists, "f.jsonl")),
  "lists of objects from boxes": (
    _FILMS, _in_folder(object_lists.ObjectLists)),
  "captions of objects": (
    [{"annotation_id": 3, "image_id": 7, "category": "cup",
      "caption": "a red cup"}], _captioned),
  "referring expressions": (_SAID, _in_folder(refer.Refer)),
  "regions": (
    _SAID, lambda folder: _read(
      refer.Regions(str(folder / "f.json"), str(folder), "train"))),
  "references": (_REFS, _referred),
  "instances beside references": (_COCO, _beside),
  "ADE20K's": (_ADE, _ade),
  "panoptic segmentations": (_PANOPTIC, lambda folder: len(
    segmentations.Segmentations(str(folder / "f.json"), str(folder)))),
  "POPE": (benchmark_files.FILES["pope_random"][0] * 2, lambda folder:
           questions.read("pope_random", str(folder / "f.jsonl"))),
  "VQA's questions": (_VQA, _benchmark("vqav2")),
  "GQA's questions": (_GQA, _benchmark("gqa")),
  "ActivityNet-QA's questions": (
    benchmark_files.FILES["activitynet_qa"][0], _benchmark("activitynet_qa")),
  "MSVD-QA's": (benchmark_files.FILES["msvd_qa"][0], _benchmark("msvd_qa")),
  "VQA's answers": (_HUMANS, _scored(
    "vqav2", references=_VQA, answers=None,
    predictions=[{"question_id": 421, "answer": "yes"}])),
  "ActivityNet-QA's answers": (
    benchmark_files.FILES["activitynet_qa"][1], _scored(
      "activitynet_qa", answers=None,
      references=benchmark_files.FILES["activitynet_qa"][0],
      predictions=[{"id": "v_a_3", "pred": "no"}])),
  "GQA, scored": (_GQA, _scored(
    "gqa", references=None, answers=_CHOICES, predictions=_PREDICTED)),
  "GQA's choices": (_CHOICES, _scored(
    "gqa", references=_GQA, answers=None, predictions=_PREDICTED)),
  "predictions": (_PREDICTED, _scored(
    "gqa", references=_GQA, answers=_CHOICES, predictions=None)),
  "predictions of evaluate": (
    [{"task": "vqav2", "seed": 0, "id": "1", "question": "A?", "history": [],
      "answer": "yes", "truth": {"answers": ["yes"] * 10, "kind": "yes/no",
                                 "notes": {}}}],
    _scored("vqav2", predictions=None)),
  "boxes of labeling tools": (_COCO, _in_folder(any_format.AnyInstances)),
  "LabelMe's": (
    {"imagePath": "a.png", "imageWidth": 9, "imageHeight": 8, "shapes": [
      {"label": "cup", "shape_type": "circle", "points": [[1, 2], [3, 4.5]]},
      {"label": "dog", "points": [[1, 2], [3, 4], [5, 1]]}]},
    _boxes(labelme, "")),
  "a table of boxes": (
    [{"image": "a.png", "label": "cup", "x1": 1, "y1": "2", "x2": 3, "y2": 4,
      "width": 9, "height": 8}] * 2, _boxes(table, "f.jsonl")),
  "ODVG": (
    [{"filename": "a.png", "width": 9, "height": 8, "detection": {
      "instances": [{"bbox": [1, 2, 3, 4], "label": 0, "category": "cup"}]}}],
    _boxes(grounding, "f.jsonl")),
  "ODVG's phrases": (
    [{"filename": "a.png", "grounding": {"regions": [
      {"bbox": [[1, 2, 3, 4]], "phrase": "a cup"}]}}] * 2,
    _boxes(grounding, "f.jsonl")),
  "Qwen's boxes": (
    [{"image": "a.png", "conversations": [
      {"from": "gpt", "value": '{"bbox_2d": [1, 2, 3, 4], "label": "cup"}'}]},
     {"images": ["a.png"], "messages": [], "objects": {
       "ref": ["cup"], "bbox": [[1, 2, 3, 4]]}}],
    _boxes(grounding, "f.jsonl")),
  "excluded files": (_TALKS, lambda folder: leakage.named.__wrapped__(
    str(folder / "f.json"))),
  "excluded questions": (_VQA, lambda folder: leakage.named.__wrapped__(
    str(folder / "f.json"))),
}  # fmt: skip


def _check(name: str, content) -> None:
  """Reads a damaged file, and looks at the error if there is one."""
  _, read = FORMATS[name]
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "f.json").write_text(damage.text(content, as_lines=False))
    (folder / "f.jsonl").write_text(damage.text(content, as_lines=True))
    try:
      read(folder)
    except errors.Fault as e:
      assert str(folder) in str(e) and "\n" not in str(e), str(e)
    except ValueError as e:
      assert read.__module__ == __name__ and "\n" not in str(e), str(e)
      assert errors.code(e) == errors.BAD_CONFIG and str(folder) in str(e)


def _damage(name: str, examples: int) -> None:
  settings = hypothesis.settings(
    max_examples=examples,
    suppress_health_check=list(hypothesis.HealthCheck),
    database=None,
  )
  given = hypothesis.given(damage.damaged(FORMATS[name][0]))
  with warnings.catch_warnings():
    # Threads of other tests draw at random too, which it takes for ours.
    warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)
    settings(given(lambda content: _check(name, content)))()


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_of_each_format_is_read(name):
  content, read = FORMATS[name]
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "f.json").write_text(damage.text(content, as_lines=False))
    (folder / "f.jsonl").write_text(damage.text(content, as_lines=True))
    read(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_named_in_one_line(name):
  _damage(name, 50)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_is_named_in_one_line(name):
  _damage(name, 1_000)

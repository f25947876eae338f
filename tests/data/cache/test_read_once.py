"""What is read once: records of large files, and the sizes of images."""

import json
import os
import threading

import numpy as np
import pytest
from PIL import Image

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.data.cache import entries, sizes, texts
from locvlm_jax.data.media import images
from locvlm_jax.data.sources import coco, conversations


@pytest.fixture
def kept(tmp_path, monkeypatch):
  """A cache of its own, where every file counts as large."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(entries, "LARGE", 1)
  return tmp_path / "cache"


def _talk(image: str | None, answer: str) -> dict:
  said = [("human", "What?"), ("gpt", answer)]
  turns = [{"from": who, "value": text} for who, text in said]
  return {"id": "7", "image": image, "conversations": turns}


_TALKS = [
  _talk("a.jpg", "A cup."),
  _talk("b.jpg", ""),  # is left out
  _talk("c.jpg", "At [0.1, 0.2, 0.3, 0.4]: \u676f \U0001f600"),
]


def _opened(path, kind=conversations.Conversations):
  path.write_text(json.dumps(_TALKS))
  return kind(str(path), "pictures")


def _count_reads(monkeypatch) -> list:
  read, paths = reading.read_text, []

  def counted(path):
    paths.append(path)
    return read(path)

  monkeypatch.setattr(reading, "read_text", counted)
  return paths


def test_a_large_file_of_conversations_is_parsed_once(
  kept, tmp_path, monkeypatch
):
  parsed = _count_reads(monkeypatch)
  first = _opened(tmp_path / "a.json")
  again = _opened(tmp_path / "moved.json")  # goes by its content
  assert len(parsed) == 1
  assert [first[i] for i in range(2)] == [again[i] for i in range(2)]
  assert first.left_out == again.left_out != {}
  assert again.boxed == f"{tmp_path / 'moved.json'}: record 2"
  assert again.image_paths([1]) == [os.path.join("pictures", "c.jpg")]
  _opened(tmp_path / "a.json", conversations.Text)  # another reader of it
  assert len(parsed) == 2


def test_another_content_is_read_anew(kept, tmp_path):
  _opened(tmp_path / "a.json")
  (tmp_path / "a.json").write_text(json.dumps(_TALKS[:1]))
  source = conversations.Conversations(str(tmp_path / "a.json"), "")
  assert len(source) == 1 and not source.boxed


def test_of_processes_that_start_together_one_parses(
  kept, tmp_path, monkeypatch
):
  parsed, path = _count_reads(monkeypatch), tmp_path / "a.json"
  path.write_text(json.dumps(_TALKS))
  threads = [
    threading.Thread(target=conversations.Conversations, args=(str(path), ""))
    for _ in range(4)
  ]
  [thread.start() for thread in threads]
  [thread.join() for thread in threads]
  assert len(parsed) == 1


def test_a_wrong_record_is_no_entry_of_the_cache(kept, tmp_path):
  path = tmp_path / "a.json"
  path.write_text(json.dumps([*_TALKS, {"id": 8}]))
  for _ in range(2):
    with pytest.raises(errors.DataError, match="a.json: record 3: field"):
      conversations.Conversations(str(path), "")
  assert not [p for p in (kept / "locvlm_jax").iterdir() if p.is_dir()]


@pytest.mark.parametrize("kind", [coco.Instances, coco.Captions])
def test_a_large_file_of_annotations_is_parsed_once(
  kind, kept, microworld, monkeypatch
):
  path, images = _annotations(microworld(2, 1), kind)
  parsed = _count_reads(monkeypatch)
  first, again = kind(path, images), kind(path, images)
  assert len(parsed) == 1
  assert list(map(first.__getitem__, range(len(first)))) == list(
    map(again.__getitem__, range(len(again)))
  )
  assert again.path == path and again.image_ids() == first.image_ids()
  assert dict(again.box_counts) == dict(first.box_counts)


def _annotations(world: str, kind) -> tuple[str, str]:
  file = f"{kind.__name__.lower()}_train.json"
  notes = os.path.join(world, "annotations", file)
  return notes, os.path.join(world, "images", "train")


def test_a_damaged_entry_is_named(kept, tmp_path):
  _opened(tmp_path / "a.json")
  (ends,) = kept.rglob("texts/ends.npy")
  ends.write_bytes(ends.read_bytes()[:-3])
  with pytest.raises(errors.DataError, match="damaged .*: remove it"):
    _opened(tmp_path / "a.json")


def test_without_a_place_for_a_cache_files_are_read_all_the_same(
  kept, tmp_path, caplog
):
  kept.write_text("no folder")
  assert len(_opened(tmp_path / "a.json")) == 2
  assert "cannot be kept" in caplog.text
  Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
  assert sizes.read(str(tmp_path / "a.png")) == (3, 2)
  assert "sizes of images cannot be kept" in caplog.text


def test_texts_survive_the_disk(tmp_path):
  for name, found in {"a": ["", "", "\u676f", "b"], "b": ["", ""]}.items():
    texts.Texts.of(found).save(str(tmp_path / name))
    loaded = texts.Texts.load(str(tmp_path / name))
    assert list(loaded) == found and len(loaded) == len(found)
    assert [loaded[i] for i in range(len(found))] == found
  with pytest.raises(IndexError):
    loaded[2]


def _fresh_process():
  """Forgets what a process keeps in memory."""
  sizes.read.cache_clear()
  sizes._table.cache_clear()


def test_the_header_of_an_image_is_read_once_for_all_starts(
  kept, tmp_path, monkeypatch
):
  opened, read = [], images.read_size
  monkeypatch.setattr(
    images, "read_size", lambda path: opened.append(path) or read(path)
  )
  upright = Image.Exif()
  upright[0x0112] = 6  # a quarter turn
  path = str(tmp_path / "a.jpg")
  Image.fromarray(np.zeros((2, 5, 3), np.uint8)).save(path, exif=upright)
  for _ in range(2):
    _fresh_process()
    assert sizes.read(path) == (2, 5)
  assert len(opened) == 1
  Image.new("RGB", (40, 30)).save(path)  # another picture takes its place
  _fresh_process()
  assert sizes.read(path) == (40, 30)
  assert sizes.read(str(tmp_path / "absent.jpg")) is None

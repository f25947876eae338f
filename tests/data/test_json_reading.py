"""Files of others: what they may hold, and how a damaged one is named."""

import gzip
import json
import logging
import threading
import time

import pytest

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.text import surrogates


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize(
  "value",
  [None, [], {}, "", "a\\ud83d", "\N{GRINNING FACE}" * 2, "\ufffd\u2028",
   {"\N{GRINNING FACE}": [1, -2.5, True, {"": "\\\\ude00"}]}],
)  # fmt: skip
def test_json_without_halves_of_surrogates_is_read_as_it_is(value, ascii):
  source = json.dumps(value, ensure_ascii=ascii)
  assert reading.parse(source) == (value, 0)


@pytest.mark.parametrize(
  "text, number",
  [
    (r"\ud83d", 1), (r"a\ude00b", 1), (r"\ud83d\ude00", 0),
    (r"\ud83d\ud83d\ude00", 1), (r"\ude00\ud83d", 1), (r"\\ud83d", 0),
    (r"\uD83D\uDE00\uDE00", 1), (r"\\\ud83d", 1),
  ],
)  # fmt: skip
def test_half_of_a_surrogate_pair_is_replaced_wherever_it_is(text, number):
  source = f'{{"a{text}": ["{text}", 1, null]}}'
  value, repaired = reading.parse(source)
  assert repaired == 2 * number
  json.dumps(value, ensure_ascii=False).encode()  # it is text
  assert ("\ufffd" in str(value)) == bool(number)


def test_texts_that_were_cut_within_an_emoji_are_told(tmp_path, caplog):
  path = tmp_path / "talk.jsonl"
  path.write_text('"\\ud83d"\n"\\ud83d"\n')
  with caplog.at_level(logging.WARNING):
    assert reading.read_jsonl(str(path)) == ["\ufffd"] * 2
  assert "talk.jsonl: 2 texts have half of a surrogate pair" in caplog.text


def test_replacing_leaves_all_else_as_it_is():
  value = {"a": [1, 2.5, None, True, "x"], "b": {}}
  assert surrogates.replaced(value) == (value, 0)


def test_compressed_files_and_those_with_a_byte_order_mark_are_read(tmp_path):
  (tmp_path / "a.json").write_text('\ufeff{"a": 1}', encoding="utf-8")
  (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"a": 1}'))
  (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n'))
  assert reading.read_json(str(tmp_path / "a.json")) == {"a": 1}
  assert reading.read_json(str(tmp_path / "a.json.gz")) == {"a": 1}
  assert reading.read_jsonl(str(tmp_path / "a.jsonl.gz")) == [{"a": 1}]


@pytest.mark.parametrize(
  "name, content",
  [
    ("a.json", b"\xff"), ("a.json", b"{"), ("a.json", b"[" * 100_000),
    ("a.json", b"9" * 5_000), ("a.json.gz", b"{}"),
    ("a.json.gz", gzip.compress(b"{}" * 999)[:-9]), ("absent.json", None),
    ("a.json.gz", gzip.compress(b"{}")[:-8] + b"12345678"),
  ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_one_line(name, content, tmp_path):
  path = tmp_path / name
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.DataError) as raised:
    reading.read_json(str(path))
  assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_lines_of_a_table_have_the_fields_of_the_first_one(tmp_path):
  path = tmp_path / "t.csv"
  path.write_text('a,b\n1,"x\ny"\n\n2,z\n')
  assert reading.read_table(str(path), ",") == [
    {"a": "1", "b": "x\ny"},
    {"a": "2", "b": "z"},
  ]
  for wrong in ("1", "1,2,3", '1,"' + "x" * 200_000 + '"'):
    path.write_text(f"a,b\n{wrong}\n")
    with pytest.raises(errors.DataError, match="t.csv: line 2: "):
      reading.read_table(str(path), ",")


def test_other_threads_run_while_a_large_file_is_parsed(tmp_path):
  row = {"id": "a", "conversations": [{"from": "human", "value": "b" * 99}] * 9}
  path = tmp_path / "large.json"
  path.write_text(json.dumps([row] * 20_000))
  pauses, over = [], threading.Event()

  def beat():
    while not over.is_set():
      began = time.monotonic()
      time.sleep(0.001)
      pauses.append(time.monotonic() - began)

  thread = threading.Thread(target=beat)
  thread.start()
  began = time.monotonic()
  reading.read_json(str(path))
  seconds = time.monotonic() - began
  over.set()
  thread.join()
  assert max(pauses) < 0.5 * seconds, (max(pauses), seconds)

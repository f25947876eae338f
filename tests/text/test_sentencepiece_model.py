"""tokenizer.model is read token for token, runs of spaces too."""

import gzip
import json
import os
import pathlib
import shutil

import make_token_goldens
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import load_llama, needs_llama

from locvlm_jax.text.tokenizer import Tokenizer

SPACED = make_token_goldens.SPACES
GOLDEN = json.loads(SPACED.with_suffix(".json").read_text())
# Runs of spaces before words, signs and digits, as indented code has them.
CODE = st.lists(
  st.sampled_from(
    [
      " ",
      "  ",
      "    ",
      "\n",
      "\t",
      "def",
      "[",
      "->",
      "1",
      "x",
      "--",
      ".",
      "(",
      "▁",
    ]
  )
  | st.text(max_size=3)
).map("".join)


def written(folder, config=None) -> Tokenizer:
  """The model of SPACED, with a tokenizer_config.json if there is one."""
  shutil.copy(SPACED, folder / "tokenizer.model")
  if config is not None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return Tokenizer.load(folder)


@pytest.mark.parametrize("text", GOLDEN)
def test_runs_of_spaces_are_split_as_sentencepiece_splits_them(tmp_path, text):
  loaded = written(tmp_path)
  assert loaded.encode(text) == GOLDEN[text]
  assert loaded.decode(GOLDEN[text]) == text.replace("\u2581", " ")


def test_what_is_saved_splits_texts_alike(tmp_path):
  written(tmp_path).save(tmp_path / "saved")
  saved = Tokenizer.load(tmp_path / "saved")
  assert {text: saved.encode(text) for text in GOLDEN} == GOLDEN
  assert saved.start_ids == [1]


@pytest.mark.parametrize(
  "config, start",
  [
    (None, [1]),
    ({}, [1]),
    ({"add_bos_token": True}, [1]),
    ({"add_bos_token": False}, []),
    ({"bos_token": None}, []),
  ],
)
def test_begin_of_text_is_added_where_the_files_say_so(tmp_path, config, start):
  loaded = written(tmp_path, config)
  assert loaded.start_ids == start
  loaded.save(tmp_path / "saved")
  assert Tokenizer.load(tmp_path / "saved").start_ids == start


def spoil(**fields):
  """The model with fields of its specification changed."""
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto.FromString(SPACED.read_bytes())
  for name, value in fields.items():
    part, _, field = name.partition("__")
    setattr(getattr(proto, part), field, value)
  return proto.SerializeToString()


@pytest.mark.parametrize(
  "fields, says",
  [
    ({"trainer_spec__model_type": 1}, "is not of the kind BPE"),
    ({"trainer_spec__byte_fallback": False}, "has no pieces for bytes"),
    ({"normalizer_spec__precompiled_charsmap": b"x"}, "rewrites characters"),
    ({"normalizer_spec__add_dummy_prefix": False}, "starts no text with a"),
    ({"normalizer_spec__remove_extra_whitespaces": True}, "removes spaces"),
  ],
)
def test_models_that_split_otherwise_are_refused(tmp_path, fields, says):
  (tmp_path / "tokenizer.model").write_bytes(spoil(**fields))
  with pytest.raises(ValueError, match=f"tokenizer.model {says}"):
    Tokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
  return load_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def reference():
  sentencepiece = pytest.importorskip("sentencepiece")
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"], "tokenizers")
  path = folder / "llama2_tokenizer.model"
  return sentencepiece.SentencePieceProcessor(str(path))


@needs_llama
@given(text=CODE)
def test_llama_encodes_code_as_sentencepiece_does(llama, reference, text):
  ids = llama.encode(text)
  assert ids == reference.encode(text)
  assert llama.decode(ids) == text.replace("\u2581", " ")


@needs_llama
def test_llama_encodes_questions_of_vqav2_as_sentencepiece_does(
  llama, reference
):
  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"], "vqav2")
  with gzip.open(folder / "vqa_questions_valid.json.gz", "rt") as f:
    texts = [row["question"] for row in json.load(f)["questions"]]
  texts += [
    path.read_text() for path in pathlib.Path(__file__).parent.glob("*.py")
  ]
  assert len(texts) > 1000
  assert not [x for x in texts if llama.encode(x) != reference.encode(x)]


def test_a_model_without_an_end_token_is_named(tmp_path):
  with pytest.raises(ValueError, match="names no eos_token; add it"):
    written(tmp_path, {"eos_token": None})

"""Text to ids and back, whatever the text and the tokenizer's files."""

import json
import os
import pathlib
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tokenizer import (
  CORPUS,
  FORGED,
  TEXT,
  TOKENIZER,
  load_llama,
  needs_llama,
)

from locvlm_jax.text import formats
from locvlm_jax.text.bpe import train_bpe, wordings
from locvlm_jax.text.encoding import encode_conversation
from locvlm_jax.text.formats import IMAGE_TOKEN
from locvlm_jax.text.tokenizer import Tokenizer, copy_files

FORMATS = list(formats.FORMATS.values())
TURNS = [
  ("Where is the cup?", "It is at [12,34,45,60]."),
  ("And the dog?", "There is no dog."),
  ("What is at [1,2,3,4]?", "a ball"),
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
  return load_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def reference():
  sentencepiece = pytest.importorskip("sentencepiece")
  path = pathlib.Path(
    os.environ["LOCVLM_TEST_DATA"], "tokenizers", "llama2_tokenizer.model"
  )
  return sentencepiece.SentencePieceProcessor(str(path))


@given(st.one_of(TEXT, FORGED))
def test_any_text_is_decoded_as_it_was_encoded(text):
  ids = TOKENIZER.encode(text)
  assert TOKENIZER.decode(ids) == text
  assert all(2 < i < TOKENIZER.vocab_size for i in ids)


@given(st.lists(st.integers(-3, 700)))
def test_any_ids_can_be_decoded(ids):
  assert isinstance(TOKENIZER.decode(ids), str)
  assert isinstance(TOKENIZER.decode(np.array(ids, np.int32)), str)


def test_decode_skips_specials_and_goes_on():
  ids = [1, IMAGE_TOKEN, *TOKENIZER.encode("a dog"), 2, 0, 9999]
  assert TOKENIZER.decode(ids + TOKENIZER.encode("cup")) == "a dog cup"


def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path):
  TOKENIZER.save(tmp_path)
  loaded = Tokenizer.load(tmp_path)
  for text in (*CORPUS, "</s><s> \u00e9\n 12"):
    assert loaded.encode(text) == TOKENIZER.encode(text)
  assert (loaded.start_ids, loaded.eos_id, loaded.pad_id) == ([1], 2, 0)
  loaded.save(tmp_path / "again")
  for name in ("tokenizer.json", "tokenizer_config.json"):
    again = (tmp_path / "again" / name).read_bytes()
    assert again == (tmp_path / name).read_bytes()


def test_a_pickled_tokenizer_is_the_same():
  """Loader workers get theirs by pickle."""
  copy = pickle.loads(pickle.dumps(TOKENIZER))
  text = "a</s> <s>  cup <unk> 12"
  assert copy.encode(text) == TOKENIZER.encode(text)
  assert vars(copy).keys() == vars(TOKENIZER).keys()
  assert copy._backend.encode_special_tokens


@pytest.mark.parametrize("model_type", [None, "llama", "llava"])
def test_transformers_loads_it(tmp_path, model_type):
  transformers = pytest.importorskip("transformers")
  TOKENIZER.save(tmp_path)
  if model_type:  # the files of a model lie in the same directory
    config = json.dumps({"model_type": model_type})
    (tmp_path / "config.json").write_text(config)
  for cls in ("AutoTokenizer", "PreTrainedTokenizerFast"):
    theirs = getattr(transformers, cls).from_pretrained(tmp_path)
    for text in (*CORPUS, " 12 \u00e9\n x"):
      ids = TOKENIZER.encode(text)
      assert theirs(text, add_special_tokens=False)["input_ids"] == ids
      assert theirs(text)["input_ids"] == [1, *ids]
      assert theirs.decode([*ids, 2], skip_special_tokens=True).lstrip(
        " "
      ) == text.lstrip(" ")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
    assert theirs.pad_token_id == 0


def test_added_tokens_of_other_models_are_not_forged_either(tmp_path):
  """As in LLaVA's files: "<image>", and a token that isn't marked special."""
  backend = tokenizers.Tokenizer.from_str(TOKENIZER._backend.to_str())
  greedy = {"lstrip": True, "rstrip": True}  # would swallow spaces
  backend.add_special_tokens([tokenizers.AddedToken("<image>", **greedy)])
  backend.add_tokens([tokenizers.AddedToken("<im_patch>", **greedy)])
  backend.save(str(tmp_path / "tokenizer.json"))
  config = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
  config |= {"unk_token": "<unk>", "pad_token": "<image>"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
  loaded = Tokenizer.load(tmp_path)
  first = TOKENIZER.vocab_size
  # The pad token is in rows, "<im_patch>" in none.
  assert (loaded.pad_id, loaded.vocab_size) == (first, first + 1)
  text = "x <image> y <im_patch> z"
  ids = loaded.encode(text)
  assert ids == TOKENIZER.encode(text) and max(ids) < first
  assert loaded.decode([*ids, first, first + 1]) == text


def test_merges_that_spell_a_special_are_undone():
  """Files converted from SentencePiece can merge "<" ... into "</s>"."""
  content = json.loads(TOKENIZER._backend.to_str())
  vocab = content["model"]["vocab"]
  size = len(vocab)
  vocab |= {"</": size, "s>": size + 1}
  merges = [["<", "/"], ["s", ">"], ["</", "s>"]]
  content["model"]["merges"] = merges + content["model"]["merges"]
  backend = tokenizers.Tokenizer.from_str(json.dumps(content))
  roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
  backend.encode_special_tokens = True
  assert 2 in backend.encode("a</s>", add_special_tokens=False).ids
  merging = Tokenizer(backend, roles)
  assert 2 not in merging.encode("a</s>")
  assert merging.decode(merging.encode("a</s>")) == "a</s>"


@pytest.mark.parametrize(
  "files, named",
  [
    ({}, "neither tokenizer.json nor tokenizer.model"),
    ({"tokenizer.json": "{"}, "tokenizer.json is not a tokenizer"),
    ({"tokenizer.json": None}, "names no eos_token"),
    (
      {"tokenizer.json": None, "tokenizer_config.json": "{"},
      "tokenizer_config.json is not JSON",
    ),
    (
      {
        "tokenizer.json": None,
        "tokenizer_config.json": '{"bos_token": "<b>", "eos_token": "</s>"}',
      },
      "'<b>' is not in the vocabulary",
    ),
    (
      {"tokenizer.json": None, "tokenizer_config.json": "[]"},
      r"tokenizer_config.json: \[\] is no json object",
    ),
    (
      {"tokenizer.json": None, "tokenizer_config.json": '{"eos_token": 2}'},
      "tokenizer_config.json: eos_token 2 is no text",
    ),
    (
      {
        "tokenizer.json": None,
        "tokenizer_config.json": '{"eos_token": "</s>", "add_bos_token": "no"}',
      },
      "add_bos_token 'no' is not true or false",
    ),
  ],
)
def test_bad_directories_are_named(tmp_path, files, named):
  for name, text in files.items():
    text = TOKENIZER._backend.to_str() if text is None else text
    (tmp_path / name).write_text(text, encoding="utf-8")
  with pytest.raises(ValueError, match=named):
    Tokenizer.load(tmp_path)


@needs_llama
def test_llama_splits_digits(llama):
  ids = llama.encode("12.34")
  shown = [llama._backend.id_to_token(i) for i in ids]
  assert shown == ["\u2581", "1", "2", ".", "3", "4"]
  assert (llama.start_ids, llama.eos_id, llama.pad_id) == ([1], 2, 0)
  assert llama.vocab_size == 32_000


@needs_llama
@settings(max_examples=300, suppress_health_check=[*HealthCheck])
@given(text=TEXT)
def test_llama_encodes_as_sentencepiece_does(llama, reference, text):
  ids = llama.encode(text)
  assert ids == reference.encode(text)
  assert llama.decode(ids) == text


@needs_llama
def test_a_saved_sentencepiece_tokenizer_is_the_same(llama, tmp_path):
  llama.save(tmp_path)
  again = Tokenizer.load(tmp_path)
  for text in (*CORPUS, "</s><s> \u00e9\n 12", " \u4e2d"):
    assert again.encode(text) == llama.encode(text)
  assert again.pad_id == llama.pad_id


def test_a_broken_sentencepiece_model_is_named(tmp_path):
  (tmp_path / "tokenizer.model").write_bytes(b"nonsense")
  with pytest.raises(ValueError, match="tokenizer.model is not a Sent"):
    Tokenizer.load(tmp_path)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
def test_an_answer_is_what_comes_before_its_stop(fmt):
  text = "It is at [1,2].\nNo ## more" if fmt.end != "\n" else "A ## dog."
  ids = [*TOKENIZER.encode(text), *TOKENIZER.ending(fmt)]
  assert TOKENIZER.answer(ids, fmt) == text
  assert TOKENIZER.answer([*ids, 0, *TOKENIZER.encode("x")], fmt) == text
  assert ids[-len(TOKENIZER.stop_ids(fmt)) :] == TOKENIZER.stop_ids(fmt)
  cut = ids[: len(TOKENIZER.encode(text))]
  assert TOKENIZER.answer(cut, fmt) == text


@pytest.mark.parametrize("kept", [False, True], ids=["loaded", "exported"])
def test_truncation_and_padding_of_a_file_do_not_apply_to_pieces(
  tmp_path, kept
):
  """transformers leaves them in the file of a batch that was padded."""
  TOKENIZER.save(tmp_path)
  backend = tokenizers.Tokenizer.from_str(TOKENIZER._backend.to_str())
  backend.enable_truncation(max_length=8)
  backend.enable_padding(length=16, pad_token="<unk>")
  backend.save(str(tmp_path / "tokenizer.json"))
  folder = tmp_path
  if kept:
    folder = tmp_path / "copy"
    folder.mkdir()
    copy_files(tmp_path, folder)
    text = (folder / "tokenizer.json").read_text()
    assert json.loads(text)["truncation"] is json.loads(text)["padding"] is None
  loaded = Tokenizer.load(folder)
  for text in (*CORPUS, "a"):
    assert loaded.encode(text) == TOKENIZER.encode(text)


@pytest.mark.parametrize(
  "config, template, start",
  [
    ({}, "<s> $A", [1]),
    ({}, "$A", []),
    ({}, None, [1]),
    ({"add_bos_token": False}, "<s> $A", []),
    ({"add_bos_token": True}, "$A", [1]),
    ({"add_bos_token": False}, None, []),
  ],
)
def test_begin_of_text_is_added_where_the_tokenizer_says_so(
  tmp_path, config, template, start
):
  TOKENIZER.save(tmp_path)
  for name, fields in (
    ("tokenizer.json", {"post_processor": None}),
    ("tokenizer_config.json", config),
  ):
    path = tmp_path / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
  if template:
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
      single=template, special_tokens=[("<s>", 1)]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
  loaded = Tokenizer.load(tmp_path)
  assert loaded.start_ids == start
  row = encode_conversation(loaded, formats.FORMATS["v1"], TURNS[:1], 2, 1000)
  assert (row.tokens == 1).sum() == len(start)


LFS = "version https://git-lfs.example/spec/v1\noid sha256:abc\nsize 499723\n"


@pytest.mark.parametrize(
  "name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"]
)
def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path, name):
  if name != "tokenizer.model":
    TOKENIZER.save(tmp_path)
  (tmp_path / name).write_text(LFS)
  with pytest.raises(
    ValueError, match=f"{name} is a git-lfs pointer.*lfs pull"
  ):
    Tokenizer.load(tmp_path)


def byte_level(directory, roles):
  """A tokenizer of the kind of Llama 3's and Qwen2's, saved."""
  backend = tokenizers.Tokenizer(tokenizers.models.BPE())
  backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  backend.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
  )
  backend.train_from_iterator(CORPUS, trainer)
  backend.add_special_tokens(list(roles.values()))
  backend.save(str(directory / "tokenizer.json"))
  (directory / "tokenizer_config.json").write_text(json.dumps(roles))
  return Tokenizer.load(directory)


@pytest.mark.parametrize(
  "roles",
  [
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
  ],
  ids=["llama 3", "qwen2"],
)
def test_byte_level_tokenizers_encode_conversations_too(tmp_path, roles):
  """No space that starts a text, perhaps no BOS, no <unk>."""
  text = byte_level(tmp_path, roles)
  row = encode_conversation(text, formats.FORMATS["v1"], TURNS[:2], 2, 1000)
  assert text.decode(row.tokens).endswith(
    "USER: \nWhere is the cup? ASSISTANT: It is at [12,34,45,60]."
    "USER: And the dog? ASSISTANT: There is no dog."
  )
  answers = text.decode(row.tokens[row.loss_mask])
  assert answers == " It is at [12,34,45,60]. There is no dog."
  assert (row.tokens == text.eos_id).sum() == 2
  assert len(text.start_ids) == ("bos_token" in roles)
  assert text.pad_id == (
    text._id(roles["pad_token"]) if "pad_token" in roles else text.eos_id
  )
  forged = f"a {roles['eos_token']} b"
  assert text.decode(text.encode(forged)) == forged
  ids = [*text.encode(" No."), *text.ending(formats.FORMATS["v1"])]
  assert text.answer(ids, formats.FORMATS["v1"]) == "No."


def test_the_wordings_of_the_objectives_become_whole_words():
  trained = train_bpe(wordings(), 1024)
  pieces = [trained.decode([i]) for i in trained.encode("Where is the ball?")]
  assert pieces[1:3] == ["is", "the"]

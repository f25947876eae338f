"""Text to token ids and back.

Text never becomes a special token: "</s>" or "<image>" that a user or a
caption wrote is spelled out in ordinary characters.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import tokenizers
from jaxtyping import Integer
from tokenizers import processors

from locvlm_jax import errors
from locvlm_jax import files as files_lib
from locvlm_jax.text import formats, sentencepiece_model

IMAGE = "<image>"
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_JSON, _MODEL = "tokenizer.json", "tokenizer.model"
_COMPANIONS = ("special_tokens_map.json", "tokenizer_config.json")
# What `fingerprint` encodes: the places where tokenizers of one vocabulary
# differ, which are spaces, line breaks, numbers and letters they have not.
_PROBE = " The  box\n\t[12,0.30] isn't \u201cß\u201d: 鿆.</s>"


class Tokenizer:
  """A LLaMA-like tokenizer on top of the `tokenizers` library.

  Attributes:
    start_ids: starts each row: the BOS token, or nothing where the model has
      none, as Qwen's, or where its files say that none is added.
    eos_id: ends each answer.
    pad_id: fills a row; <unk>'s id where the model names no pad token, as in
      LLaVA v1, and EOS's where there is neither, as in Llama 3.
    vocab_size: ids in rows are below this. Added tokens that no row holds,
      such as transformers' "<image>", do not count: the model has no row of
      the embedding for them.
  """

  def __init__(self, backend: tokenizers.Tokenizer, specials: dict[str, str]):
    """Use `load` or `train_bpe`; `specials` maps roles to token texts."""
    self._specials = specials
    self._backend = _with_all_special(backend)
    ids = {role: self._id(text) for role, text in specials.items()}
    self.eos_id = ids["eos_token"]
    self.start_ids = _start_ids(self._backend, ids)
    self.pad_id = ids.get("pad_token", ids.get("unk_token", self.eos_id))
    # Ids that no text may become, with the text each would stand for.
    added = backend.get_added_tokens_decoder()
    self._forbidden = {i: token.content for i, token in added.items()}
    self._forbidden |= {ids[role]: text for role, text in specials.items()}
    self._word = len(self.encode("a"))
    every = set(backend.get_vocab().values())
    self.vocab_size = max(every - added.keys() | {*ids.values()}) + 1

  def __reduce__(self):
    # The library forgets `encode_special_tokens` when it is pickled.
    return Tokenizer, (self._backend, self._specials)

  def _id(self, text: str) -> int:
    if (i := self._backend.token_to_id(text)) is None:
      raise ValueError(f"special token {text!r} is not in the vocabulary")
    return i

  @classmethod
  def load(cls, directory: str | pathlib.Path) -> "Tokenizer":
    """Opens the tokenizer of a directory; see `open_files`."""
    return cls(*open_files(directory))

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes tokenizer.json and what transformers needs to load it."""
    write_files(directory, self._backend, self._specials)

  @property
  def special_texts(self) -> list[str]:
    """The texts that a reader of the files takes for special tokens."""
    return sorted({*self._forbidden.values(), *self._specials.values()})

  def fingerprint(self) -> str:
    """Hashes the pieces of the vocabulary and how a text is cut into them.

    Two directories have the same one if a model cannot tell them apart,
    whichever files they hold and whatever an export has added.
    """
    every = self._backend.get_vocab().items()
    pieces = sorted((i, piece) for piece, i in every if i < self.vocab_size)
    special = [self.start_ids, self.eos_id, self.pad_id]
    found = json.dumps([pieces, special, self.encode(_PROBE)])
    return hashlib.sha256(found.encode()).hexdigest()[:16]

  def encode(self, text: str) -> list[int]:
    """Encodes text to ids, none of them special, whatever the text says."""
    if not text:
      return []
    encoding = self._backend.encode(text, add_special_tokens=False)
    if self._forbidden.keys().isdisjoint(encoding.ids):
      return encoding.ids
    return [i for id_ in encoding.ids for i in self._spelled(id_)]

  def _spelled(self, id_: int) -> list[int]:
    """Spells a forbidden id in characters or bytes; others stay as they are.

    Converted LLaMA files can hold merges that end in "</s>".
    """
    if id_ not in self._forbidden:
      return [id_]
    spelled = []
    for char in self._forbidden[id_].replace(" ", sentencepiece_model.SPACE):
      whole = self._backend.token_to_id(char)
      parts = [f"<0x{byte:02X}>" for byte in char.encode()]
      ids = [whole] if whole is not None else map(self._id, parts)
      spelled.extend(ids)
    return spelled

  def decode(self, ids: Sequence[int] | Integer[np.ndarray, " n"]) -> str:
    """Decodes ids to text; special, visual and unknown ones are left out."""
    known = [
      int(i)
      for i in ids
      if 0 <= i < self.vocab_size and int(i) not in self._forbidden
    ]
    return self._backend.decode(known, skip_special_tokens=False)

  def piece(self, id_: int) -> str:
    """Looks up a token in the vocabulary, where a space is "▁" or "Ġ"."""
    return self._backend.id_to_token(int(id_))

  def encode_after(self, text: str) -> list[int]:
    """Encodes text that goes on after a word.

    SentencePiece starts a text of its own with a space, byte-level BPE does
    not; after a word both have the space if and only if it is there.
    """
    return self.encode("a" + text)[self._word :]

  def ending(self, fmt: formats.Format) -> list[int]:
    """Lists the ids that follow an answer in the format `fmt`."""
    text = fmt.end.removesuffix(formats.EOS)
    ids = self.encode_after(text)
    return [*ids, self.eos_id] if text != fmt.end else ids

  def stop_ids(self, fmt: formats.Format) -> list[int]:
    """Lists the ids that, generated one after the other, end an answer."""
    ids = self.ending(fmt)
    return ids[-1:] if ids[-1] == self.eos_id else ids

  def answer(
    self, ids: Sequence[int] | Integer[np.ndarray, " n"], fmt: formats.Format
  ) -> str:
    """Decodes a generated answer, without what stopped it."""
    ids, stop = [int(i) for i in ids], self.stop_ids(fmt)
    starts = range(len(ids) - len(stop) + 1)
    ends = (i for i in starts if ids[i : i + len(stop)] == stop)
    return self.decode(ids[: next(ends, len(ids))]).strip()


def exists(directory: str | pathlib.Path) -> bool:
  """Says whether `open_files` finds a tokenizer there."""
  return any((pathlib.Path(directory) / n).is_file() for n in (_JSON, _MODEL))


def copy_files(source: str | pathlib.Path, target: str | pathlib.Path) -> None:
  """Copies a tokenizer's files, whichever it has, to another directory.

  Truncation and padding are left out of tokenizer.json: see `open_files`.
  """
  names = (_JSON, _MODEL, *_COMPANIONS, "added_tokens.json")
  for path in (pathlib.Path(source) / name for name in names):
    if path.is_file():
      shutil.copyfile(path, pathlib.Path(target) / path.name)
  path = pathlib.Path(target) / _JSON
  if path.is_file():
    backend = _open_json(path)
    if backend.truncation or backend.padding:
      backend.no_truncation()
      backend.no_padding()
      backend.save(str(path))


def open_files(
  directory: str | pathlib.Path,
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
  """Opens the files of a tokenizer.

  Where there is no tokenizer.json, SentencePiece's tokenizer.model of the
  LLaMA family is read, which LLaMA's own and Vicuna's directories have.

  Returns:
    (the library's tokenizer, {role: text of a special token}).

  Raises:
    DataError: a file is missing, malformed, or names no eos token.
  """
  directory = pathlib.Path(directory)
  if not exists(directory):
    raise errors.DataError(
      f"{directory}: neither {_JSON} nor {_MODEL} is there; copy one from the"
      " model that the weights were trained from"
    )
  path, companions = directory / _JSON, _companions(directory)
  if path.is_file():
    backend = _open_json(path)
    specials = _specials(directory, companions, {})
  else:
    backend = sentencepiece_model.read(directory / _MODEL)
    specials = _specials(directory, companions, sentencepiece_model.ROLES)
  # Both would cut and fill every piece of a row. They stay in a file when a
  # batch was padded before it was saved.
  backend.no_truncation()
  backend.no_padding()
  _set_start(backend, companions, specials)
  return backend, specials


def _open_json(path: pathlib.Path) -> tokenizers.Tokenizer:
  try:
    return tokenizers.Tokenizer.from_file(str(path))
  except Exception as e:  # the library raises bare Exception
    raise files_lib.damaged(path, f"is not a tokenizer: {e}") from None


def _set_start(
  backend: tokenizers.Tokenizer,
  companions: Sequence[dict],
  specials: dict[str, str],
) -> None:
  """Makes the tokenizer add BOS, or not, as `add_bos_token` says.

  Where no file has that field, the tokenizer's own template says it.
  """
  said = [c["add_bos_token"] for c in companions if "add_bos_token" in c]
  bos = specials.get("bos_token")
  if not said or bos is None or backend.token_to_id(bos) is None:
    return
  first, again = (f"{bos} ", f" {bos}:1") if said[-1] else ("", "")
  backend.post_processor = processors.TemplateProcessing(
    single=f"{first}$A",
    pair=f"{first}$A{again} $B:1",
    special_tokens=[(bos, backend.token_to_id(bos))],
  )


def _start_ids(
  backend: tokenizers.Tokenizer, ids: Mapping[str, int]
) -> list[int]:
  """The ids before a text: BOS, unless the template goes without it."""
  bos = ids.get("bos_token")
  if bos is None:
    return []
  if backend.post_processor is None:  # it does not say
    return [bos]
  return [bos] if backend.encode("a").ids[:1] == [bos] else []


def with_image(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """Makes the tokenizer that transformers needs for a model of images.

  It has "<image>", their mark of a visual token. What follows one is a text of
  its own here, so it begins with a space where texts do.
  """
  content = json.loads(backend.to_str())
  outer = content["pre_tokenizer"] or {}
  for splitter in (outer, *outer.get("pretokenizers", ())):
    if splitter.get("prepend_scheme") == "first":
      splitter["prepend_scheme"] = "always"
  changed = tokenizers.Tokenizer.from_str(json.dumps(content))
  changed.add_special_tokens([IMAGE])
  return changed


def write_files(
  directory: str | pathlib.Path,
  backend: tokenizers.Tokenizer,
  specials: dict[str, str],
) -> None:
  """Writes what `open_files` reads; transformers loads the directory too."""
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  config = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "padding_side": "right",
    "model_max_length": 2048,
    **specials,
  }
  text = backend.to_str(pretty=False)
  (directory / _JSON).write_text(text, encoding="utf-8")
  for name, content in zip(_COMPANIONS, (specials, config), strict=True):
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (directory / name).write_text(text, encoding="utf-8")


def _with_all_special(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """Makes the library leave added tokens alone when they occur in text.

  It does so for tokens marked special only, and some models have others.
  """
  added = list(backend.get_added_tokens_decoder().values())
  backend.add_special_tokens(added)  # also marks those that it has already
  backend.encode_special_tokens = True
  return backend


def _companions(directory: pathlib.Path) -> list[dict]:
  """Reads the files that say more about a tokenizer, checked."""
  found = []
  for path in (directory / name for name in _COMPANIONS):
    if not path.is_file():
      continue
    try:
      content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
      raise files_lib.damaged(path, f"is not JSON: {e}") from None
    if not isinstance(content, dict):
      raise errors.DataError(f"{path}: {content!r:.50} is no json object")
    if type(content.get("add_bos_token", False)) is not bool:
      raise errors.DataError(
        f"{path}: add_bos_token {content['add_bos_token']!r:.50} is not true or"
        " false"
      )
    for role in ROLES:
      if role in content:
        content[role] = _token_text(content[role], f"{path}: {role}")
    found.append(content)
  return found


def _specials(
  directory: pathlib.Path, companions: Sequence[dict], usual: dict[str, str]
) -> dict[str, str]:
  """{role: text of its token}, from whichever file names it."""
  found = dict(usual)
  for role in ROLES:
    said = [content[role] for content in companions if role in content]
    if said:
      found[role] = next((text for text in said[::-1] if text), None)
  if not found.get("eos_token"):
    raise errors.DataError(
      f"{directory}/tokenizer_config.json names no eos_token; add it"
    )
  return {role: text for role, text in found.items() if text}


def _token_text(value: object, where: str) -> str | None:
  if isinstance(value, dict):
    value = value.get("content")
  if value is not None and not isinstance(value, str):
    raise errors.DataError(f"{where} {value!r:.50} is no text")
  return value

"""Text to token ids, and a conversation to ids with its loss mask.

A row is built from pieces that are tokenised one by one, so the mask comes
from the spans of the pieces and never from tokenising a part again (which is
how LLaVA masked whole samples by accident, LLaVA:llava/train/train.py). With
the format "v1" or "bare", three visual tokens (-1) and two turns:

  piece   <s> USER:  -1 -1 -1 \\nWhere? ASSISTANT:  At [4,5]. </s>
  target   .   . .    .  .  .  .  .  .    .  .      x  x x x  x

  piece   USER: And the cup? ASSISTANT:  No. </s>
  target   .  .   .  .  .  .   .   .     x x  x

Text never becomes a special token: "</s>" or "<image>" that a user or a
caption wrote is spelt out in ordinary characters.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32, Integer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from locvlm_jax import prompts

IMAGE_TOKEN = -1  # one visual token; no vocabulary has a negative id

_SPECIALS = ("<unk>", "<s>", "</s>")  # ids 0, 1, 2, as in LLaMA
_BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
_PRINTABLE = [chr(i) for i in range(33, 127)]
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
_JSON, _MODEL = "tokenizer.json", "tokenizer.model"
_COMPANIONS = ("special_tokens_map.json", "tokenizer_config.json")
_SPACE = "\u2581"  # SentencePiece's mark for a space


class TooLong(ValueError):
  """A conversation whose first turn doesn't fit into the text budget."""


class Tokenizer:
  """A LLaMA-like tokenizer on top of the `tokenizers` library.

  Attributes:
    start_ids: starts each row: the BOS token, or nothing where the model has
      none, as Qwen's.
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
    self.start_ids = [ids["bos_token"]] if "bos_token" in ids else []
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
    """Reads a directory; see `open_files`."""
    return cls(*open_files(directory))

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes tokenizer.json and what transformers needs to load it."""
    write_files(directory, self._backend, self._specials)

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, with no special id, whatever the text says."""
    if not text:
      return []
    encoding = self._backend.encode(text, add_special_tokens=False)
    if self._forbidden.keys().isdisjoint(encoding.ids):
      return encoding.ids
    return [i for id_ in encoding.ids for i in self._spelt(id_)]

  def _spelt(self, id_: int) -> list[int]:
    """A forbidden id as single characters, or as bytes; others as they are.

    Converted LLaMA files can hold merges that end in "</s>".
    """
    if id_ not in self._forbidden:
      return [id_]
    spelt = []
    for char in self._forbidden[id_].replace(" ", _SPACE):
      whole = self._backend.token_to_id(char)
      parts = [f"<0x{byte:02X}>" for byte in char.encode()]
      ids = [whole] if whole is not None else map(self._id, parts)
      spelt.extend(ids)
    return spelt

  def decode(self, ids: Sequence[int] | Integer[np.ndarray, " n"]) -> str:
    """The text of `ids`, special, visual and unknown ids left out."""
    known = [
      int(i)
      for i in ids
      if 0 <= i < self.vocab_size and int(i) not in self._forbidden
    ]
    return self._backend.decode(known, skip_special_tokens=False)

  def piece(self, id_: int) -> str:
    """The text of one token as the vocabulary has it, spaces as "▁" or "Ġ"."""
    return self._backend.id_to_token(int(id_))

  def encode_after(self, text: str) -> list[int]:
    """The ids of `text` where it goes on after a word.

    SentencePiece starts a text of its own with a space, byte-level BPE does
    not; after a word both have the space if and only if it is there.
    """
    return self.encode("a" + text)[self._word :]

  def ending(self, fmt: prompts.Format) -> list[int]:
    """The ids that follow an answer in the format `fmt`."""
    text = fmt.end.removesuffix(prompts.EOS)
    ids = self.encode_after(text)
    return [*ids, self.eos_id] if text != fmt.end else ids

  def stop_ids(self, fmt: prompts.Format) -> list[int]:
    """The ids that, generated one after the other, end an answer."""
    ids = self.ending(fmt)
    return ids[-1:] if ids[-1] == self.eos_id else ids

  def answer(
    self, ids: Sequence[int] | Integer[np.ndarray, " n"], fmt: prompts.Format
  ) -> str:
    """The text of a generated answer, without what stopped it."""
    ids, stop = [int(i) for i in ids], self.stop_ids(fmt)
    starts = range(len(ids) - len(stop) + 1)
    ends = (i for i in starts if ids[i : i + len(stop)] == stop)
    return self.decode(ids[: next(ends, len(ids))]).strip()


def exists(directory: str | pathlib.Path) -> bool:
  """Whether `open_files` finds a tokenizer there."""
  return any((pathlib.Path(directory) / n).is_file() for n in (_JSON, _MODEL))


def files(directory: str | pathlib.Path) -> list[str]:
  """The paths of a tokenizer's files, whatever it has."""
  names = (_JSON, _MODEL, *_COMPANIONS, "added_tokens.json")
  paths = [pathlib.Path(directory) / name for name in names]
  return [str(path) for path in paths if path.is_file()]


def open_files(
  directory: str | pathlib.Path,
) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
  """(the library's tokenizer, {role: text of a special token}) of a directory.

  Where there is no tokenizer.json, SentencePiece's tokenizer.model of the
  LLaMA family is read, which LLaMA's own and Vicuna's directories have.

  Raises:
    ValueError: a file is missing, malformed, or names no eos token.
  """
  directory = pathlib.Path(directory)
  if not exists(directory):
    raise ValueError(
      f"{directory}: neither {_JSON} nor {_MODEL} is there; copy one from the"
      " model that the weights were trained from"
    )
  path = directory / _JSON
  if not path.is_file():
    return _open_sentencepiece(directory)
  try:
    backend = tokenizers.Tokenizer.from_file(str(path))
  except Exception as e:  # the library raises bare Exception
    raise ValueError(f"{path} is not a tokenizer: {e}") from None
  return backend, _read_specials(directory)


def _open_sentencepiece(directory: pathlib.Path):
  path = directory / _MODEL
  try:
    import sentencepiece  # noqa: F401  transformers needs it
    import transformers

    # Not AutoTokenizer, which leaves out the space that starts a text.
    fast = transformers.LlamaTokenizerFast.from_pretrained(str(directory))
  except ImportError as e:
    raise ValueError(f"{path}: {e}; pip install {e.name}") from None
  except Exception as e:  # whatever those libraries raise
    raise ValueError(f"{path} is not a SentencePiece model: {e}") from None
  roles = {r: getattr(fast, r) for r in _ROLES if getattr(fast, r)}
  return fast.backend_tokenizer, roles


def write_files(
  directory: str | pathlib.Path,
  backend: tokenizers.Tokenizer,
  specials: dict[str, str],
) -> None:
  """The opposite of `open_files`; transformers loads the directory too."""
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


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Learns a BPE vocabulary that is split as LLaMA's is.

  Words start with a mark for their space, each digit stands alone, and what
  the vocabulary lacks falls back to bytes: " 12" is "▁", "1", "2".

  Args:
    texts: lines of plain text; conversation formats included, if the model
      is to see "USER:" as few tokens.
    vocab_size: at most; specials, 256 bytes and ASCII come first.

  Raises:
    ValueError: no room for the part that comes first.
  """
  fixed = len(_SPECIALS) + len(_BYTES) + len(_PRINTABLE) + 1
  if vocab_size < fixed:
    raise ValueError(
      f"vocab_size {vocab_size} is below {fixed}, which the special tokens,"
      " bytes and ASCII characters need; raise it"
    )
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = _splitter()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size, special_tokens=[*_SPECIALS, *_BYTES],
    initial_alphabet=[*_PRINTABLE, _SPACE], show_progress=False,
  )  # fmt: skip
  backend.train_from_iterator(texts, trainer)
  model = json.loads(backend.to_str())["model"]
  return _llama_like(model["vocab"], model["merges"])


def _splitter() -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="first"),
      pre_tokenizers.Digits(individual_digits=True),
      # Or else "cup?" and "cup." become pieces of their own, which a small
      # corpus can't teach to be the same cup.
      pre_tokenizers.Split(tokenizers.Regex("[?.,;!]"), "isolated"),
    ]
  )


def _llama_like(vocab: dict[str, int], merges: list) -> Tokenizer:
  """A tokenizer in which the bytes, unlike the specials, are plain tokens."""
  model = models.BPE(
    vocab=vocab, merges=[tuple(m) for m in merges], unk_token="<unk>",
    fuse_unk=True, byte_fallback=True,
  )  # fmt: skip
  backend = tokenizers.Tokenizer(model)
  backend.pre_tokenizer = _splitter()
  backend.decoder = decoders.Sequence(
    [
      decoders.Replace(_SPACE, " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  backend.add_special_tokens(
    [tokenizers.AddedToken(t, normalized=False) for t in _SPECIALS]
  )
  unk, bos, eos = _SPECIALS
  backend.post_processor = processors.TemplateProcessing(
    single=f"{bos} $A",
    pair=f"{bos} $A {bos}:1 $B:1",
    special_tokens=[(bos, vocab[bos])],
  )
  roles = dict(zip(_ROLES, (bos, eos, unk, unk), strict=True))
  return Tokenizer(backend, roles)


def _with_all_special(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
  """Makes the library leave added tokens alone when they occur in text.

  It does so for tokens marked special only, and some models have others.
  """
  added = list(backend.get_added_tokens_decoder().values())
  backend.add_special_tokens(added)  # also marks those that it has already
  backend.encode_special_tokens = True
  return backend


def _read_specials(directory: pathlib.Path) -> dict[str, str]:
  """Roles and token texts from whichever config file names them."""
  found = {}
  for name in _COMPANIONS:
    path = directory / name
    if not path.is_file():
      continue
    try:
      content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
      raise ValueError(f"{path} is not JSON: {e}") from None
    named = {r: content[r] for r in _ROLES if content.get(r)}
    found |= {r: _token_text(v) for r, v in named.items()}
  if "eos_token" not in found:
    raise ValueError(
      f"{directory}/tokenizer_config.json names no eos_token; add it"
    )
  return found


def _token_text(value: str | dict) -> str:
  return value if isinstance(value, str) else value["content"]


@dataclasses.dataclass(frozen=True)
class Encoded:
  """A conversation in tokens.

  Attributes:
    tokens: int32 [n], IMAGE_TOKEN at visual positions.
    loss_mask: bool [n], True where the token is a target.
    turns_used: how many turns fitted into the budget.
  """

  tokens: Int32[np.ndarray, " n"]
  loss_mask: Bool[np.ndarray, " n"]
  turns_used: int


def encode_conversation(
  tokenizer: Tokenizer,
  fmt: prompts.Format,
  turns: Sequence[prompts.Turn],
  num_image_tokens: int,
  max_text_tokens: int,
) -> Encoded:
  """A row for training: as many whole turns as fit.

  Args:
    tokenizer: text to ids.
    fmt: the conversation format.
    turns: questions and answers; the format "plain" takes the first answer
      as the caption.
    num_image_tokens: visual tokens of the row, 0 for text alone.
    max_text_tokens: budget of tokens that are not visual, specials included.

  Raises:
    TooLong: the first turn doesn't fit.
    ValueError: no turns, or an answer without text.
  """
  if not turns:
    raise ValueError("a conversation needs at least one turn; it has none")
  tokens = _head(tokenizer, fmt, num_image_tokens)
  mask, used = [False] * len(tokens), 0
  for question, answer in turns if fmt.questions else turns[:1]:
    asked = _question(tokenizer, fmt, question, used, num_image_tokens)
    answered = _answer(tokenizer, fmt, answer)
    length = len(tokens) + len(asked) + len(answered) - num_image_tokens
    if length > max_text_tokens:
      break
    tokens += asked + answered
    mask += [False] * len(asked) + [True] * len(answered)
    used += 1
  if not used:
    raise TooLong(_too_long(turns[0], length, max_text_tokens))
  return Encoded(np.array(tokens, np.int32), np.array(mask, bool), used)


def encode_prompt(
  tokenizer: Tokenizer,
  fmt: prompts.Format,
  turns_before: Sequence[prompts.Turn],
  question: str,
  num_image_tokens: int,
) -> Int32[np.ndarray, " n"]:
  """A prompt that ends where the answer's first token is to be generated.

  It is the beginning of encode_conversation([*turns_before, (question, a)]).

  Args:
    tokenizer: text to ids.
    fmt: the conversation format; "plain" ignores the question.
    turns_before: answered turns, such as in-context examples.
    question: the one to be answered.
    num_image_tokens: visual tokens, 0 for text alone.
  """
  tokens = _head(tokenizer, fmt, num_image_tokens)
  for i, (asked, answer) in enumerate(turns_before):
    tokens += _question(tokenizer, fmt, asked, i, num_image_tokens)
    tokens += _answer(tokenizer, fmt, answer)
  i = len(turns_before)
  tokens += _question(tokenizer, fmt, question, i, num_image_tokens)
  return np.array(tokens, np.int32)


def _head(tokenizer, fmt, num_image_tokens) -> list[int]:
  """From BOS to the image, if there is one, else BOS alone."""
  if not num_image_tokens:
    return list(tokenizer.start_ids)
  image = [IMAGE_TOKEN] * num_image_tokens
  return [*tokenizer.start_ids, *tokenizer.encode(fmt.start), *image]


def _question(tokenizer, fmt, question, index, num_image_tokens) -> list[int]:
  """A question up to its answer; the first one follows the image."""
  if not fmt.questions:
    return []
  bos = tokenizer.start_ids if fmt.bos and index else []
  first = "\n" if num_image_tokens else fmt.start
  before = fmt.user if index else first
  return [*bos, *tokenizer.encode(before + question.strip() + fmt.assistant)]


def _answer(tokenizer, fmt, answer: str) -> list[int]:
  """The space before an answer, the answer and its stop."""
  if not answer.strip():
    raise ValueError("a turn has an empty answer; leave the turn out")
  text = " " + answer.strip() if fmt.questions else answer.strip()
  encode = tokenizer.encode_after if fmt.questions else tokenizer.encode
  return [*encode(text), *tokenizer.ending(fmt)]


def _too_long(turn: prompts.Turn, length: int, limit: int) -> str:
  question, answer = turn
  return (
    f"the first turn needs {length} text tokens, {limit} are allowed:"
    f" {question[:40]!r} -> {answer[:40]!r}; raise the text length"
  )

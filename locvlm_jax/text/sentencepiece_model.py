"""SentencePiece's tokenizer.model -> the `tokenizers` library, token for token.

SentencePiece merges, of all neighbors whose union is a piece, those with the
highest score, and among equals the leftmost. The library merges by a list of
pairs, each of which has a rank of its own. Where several pairs have the same
score the longer left one has to come first, so that what is merged last at the
left goes on to grow: LLaMA's runs of up to 16 spaces all have one score.

  score   piece       pairs, in this order
  -259    "▁["        ▁ [
  -1e9    "▁▁▁"       ▁▁ ▁      then ▁ ▁▁, which never comes up
  -1e9    "▁▁"        ▁ ▁
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from locvlm_jax import errors, files

SPACE = "\u2581"  # the mark for a space
# What the family's tokens are called where no other file says it.
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_BPE = 2
# Types of pieces.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def read(path: pathlib.Path) -> tokenizers.Tokenizer:
  """Reads a model of the LLaMA family; its texts start with BOS.

  Raises:
    DataError: no such file, or a model that is built otherwise.
    ValueError: sentencepiece is not installed.
  """
  proto = _parsed(path)
  _check(proto, path)
  pieces = list(proto.pieces)
  vocab = {piece.piece: i for i, piece in enumerate(pieces)}
  scores = {p.piece: p.score for p in pieces if p.type == _NORMAL}
  backend = tokenizers.Tokenizer(
    models.BPE(
      vocab=vocab,
      merges=_merges(scores),
      unk_token=next(p.piece for p in pieces if p.type == _UNKNOWN),
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  backend.normalizer = normalizers.Sequence(
    [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
  )
  backend.decoder = decoders.Sequence(
    [
      decoders.Replace(SPACE, " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  backend.add_special_tokens(_added(pieces, (_UNKNOWN, _CONTROL)))
  backend.add_tokens(_added(pieces, (_USER_DEFINED,)))
  if (bos := ROLES["bos_token"]) in vocab:
    backend.post_processor = processors.TemplateProcessing(
      single=f"{bos} $A",
      pair=f"{bos} $A {bos}:1 $B:1",
      special_tokens=[(bos, vocab[bos])],
    )
  return backend


def _parsed(path: pathlib.Path):
  try:
    from sentencepiece import sentencepiece_model_pb2
  except ImportError as e:
    raise ValueError(f"{path}: {e}; pip install {e.name}") from None
  proto = sentencepiece_model_pb2.ModelProto()
  try:
    proto.ParseFromString(path.read_bytes())
  except Exception as e:  # whatever protobuf raises
    raise files.damaged(path, f"is not a SentencePiece model: {e}") from None
  return proto


def _check(proto, path: pathlib.Path) -> None:
  """Refuses what would be split otherwise than SentencePiece does."""
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  known = {_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE}
  needs = {
    "is not a SentencePiece model": len(proto.pieces) > 0,
    "is not of the kind BPE": trainer.model_type == _BPE,
    "has no pieces for bytes": trainer.byte_fallback,
    "rewrites characters": not normalizer.precompiled_charsmap,
    "starts no text with a space": normalizer.add_dummy_prefix,
    "removes spaces": not normalizer.remove_extra_whitespaces,
    "puts spaces behind words": not trainer.treat_whitespace_as_suffix,
    "has unused pieces": {p.type for p in proto.pieces} <= known,
  }
  for what, good in needs.items():
    if not good:
      raise errors.DataError(
        f"{path} {what}; only models like LLaMA's can be read: convert it to"
        " tokenizer.json"
      )


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
  """Lists the pairs that become a piece, those that are merged first first."""
  pairs = [
    (-score, -len(left), left, right)
    for piece, score in scores.items()
    for left, right in _splits(piece)
    if left in scores and right in scores
  ]
  return [(left, right) for _, _, left, right in sorted(pairs)]


def _splits(piece: str) -> Iterator[tuple[str, str]]:
  return ((piece[:i], piece[i:]) for i in range(1, len(piece)))


def _added(pieces: Iterable, types: tuple[int, ...]) -> list:
  return [
    tokenizers.AddedToken(p.piece, normalized=False, special=p.type != 4)
    for p in pieces
    if p.type in types
  ]

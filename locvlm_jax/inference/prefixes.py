"""Keys and values of what questions begin with, kept for the next question.

A prompt begins with its pictures, and many are asked about the same ones:
those of GQA 31 questions each, those of a conversation one in each turn. What
the vision tower and the language model make of that beginning is the same for
all of them, so it is computed once.

Letters: R rows that are computed together, C prefixes that are kept, P slots of
each, K pictures.
"""

import collections
import functools
import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Int
from PIL import Image

from locvlm_jax.data import rows as rows_lib
from locvlm_jax.inference import decode
from locvlm_jax.inference.question import Question, group_size, most_pictures
from locvlm_jax.models import llama
from locvlm_jax.models import video as video_lib
from locvlm_jax.models.kv_cache import Cache, Prefix
from locvlm_jax.parallel import sharding
from locvlm_jax.text import encoding

_ROOM = 4 << 30  # bytes


class Prefixes:
  """Keeps the beginnings of the prompts that were asked last.

  Args:
    model: a LocVLM.
    params: its parameters.
    mesh: that they are on.
    spec: how questions are put.
    capacity: C; a batch must not begin with more different ones.
    pictures: K, at most.
    sizes: R, each a program of its own; of several pictures only the least.
  """

  def __init__(
    self,
    model: Any,
    params: Mapping,
    mesh: jax.sharding.Mesh,
    spec: rows_lib.RowSpec,
    capacity: int,
    pictures: int = 1,
    sizes: Sequence[int] = (1,),
  ):
    self._model, self._params, self._spec = model, params, spec
    self._sizes, self._capacity = sorted(sizes), capacity
    slots = len(self._head(pictures))
    cfg = model.config
    # The last one takes the rows that fill a batch up.
    kept = llama.empty_cache(cfg.llm, capacity + 1, slots, cfg.dtype)
    # Stated, since a program that found it elsewhere would be another one.
    self._where = jax.sharding.NamedSharding(mesh, _heads_of(cfg.llm, mesh))
    self._kept = jax.device_put(kept, self._where)
    self._known: collections.OrderedDict[Hashable, tuple[int, bool]] = (
      collections.OrderedDict()
    )
    self.hits = self.misses = 0

  def lengths(self, questions: Sequence[Question]) -> list[int]:
    """Returns how many of each prompt's tokens are in its prefix."""
    return [
      len(self._head(len(q.pictures))) if q.pictures else 0 for q in questions
    ]

  def knows(self, question: Question) -> bool:
    """Says whether the prefix of a question is kept."""
    return key_of(question) in self._known

  def take(
    self,
    questions: Sequence[Question],
    read: Callable[[Sequence[Question]], dict[str, np.ndarray]],
  ) -> tuple[Prefix, np.ndarray]:
    """Finds the prefixes of a batch, and computes those that are missing.

    Args:
      questions: of the batch.
      read: the fields of a batch's pictures, with "valid".

    Returns:
      (the prefixes, whether the pictures of each row could be used). A
      question without pictures has no prefix.
    """
    keys = [key_of(q) if q.pictures else None for q in questions]
    wanted = dict(zip(keys, questions, strict=True))
    wanted.pop(None, None)
    for key in wanted.keys() & self._known.keys():
      self._known.move_to_end(key)
    missing = {k: q for k, q in wanted.items() if k not in self._known}
    self.misses += len(missing)
    self.hits += len(wanted) - len(missing)
    by_count = collections.defaultdict(list)
    for key, question in missing.items():
      by_count[len(question.pictures)].append((key, question))
    for several in by_count.values():
      self._add(several, read)
    known = self._known | {None: (self._capacity, True)}
    index, valid = zip(*(known[key] for key in keys), strict=True)
    lengths = np.array(self.lengths(questions), np.int32)
    prefix = Prefix(self._kept, np.array(index, np.int32), lengths)
    return prefix, np.array(valid, bool)

  def _add(self, missing: list[tuple[Hashable, Question]], read) -> None:
    """Computes prefixes of one length, several at a time."""
    several = len(missing[0][1].pictures) > 1
    sizes = self._sizes[:1] if several else self._sizes
    most = sizes[-1]
    for first in range(0, len(missing), most):
      part = missing[first : first + most]
      size = next(s for s in sizes if s >= len(part))
      filled = [q for _, q in part] + [part[-1][1]] * (size - len(part))
      fields = read(filled)
      valid = fields.pop("valid")
      for (key, _), is_valid in zip(part, valid, strict=False):
        self._known[key] = (self._room(), bool(is_valid))
      places = [self._known[key][0] for key, _ in part]
      index = places + [self._capacity] * (size - len(part))
      self._kept = _compute(
        self._model,
        self._where,
        self._params,
        np.array([self._head(len(filled[0].pictures))] * size, np.int32),
        video_lib.visual_input(fields),
        self._kept,
        np.array(index, np.int32),
      )

  def _room(self) -> int:
    """Returns a free place, or that of what was not asked for longest."""
    if (used := len(self._known)) < self._capacity:
      return used
    _, (place, _) = self._known.popitem(last=False)
    return place

  @functools.cache  # noqa: B019  lives as long as the model
  def _head(self, pictures: int) -> tuple[int, ...]:
    """The tokens of the beginning."""
    spec = self._spec
    count = pictures * spec.num_visual
    return tuple(encoding.encode_head(spec.tokenizer, spec.format, count))


def shared(
  model: Any,
  params: Mapping,
  mesh: jax.sharding.Mesh,
  spec: rows_lib.RowSpec,
  questions: Sequence[Question],
  rows: int,
) -> Prefixes | None:
  """Makes room for what questions have in common, if that is worth it.

  Args:
    model, params, mesh, spec: of the `Predictor`.
    questions: all that will be asked, in the order of `question.batches`.
    rows: of a batch.

  Returns:
    None where each picture has few questions, or a batch more pictures than
    there is room for.
  """
  several = group_size(questions, rows) if allowed(spec, mesh) else 0
  if not several:
    return None
  pictures = max(len(q.pictures) for q in questions)
  most, least = room(model, spec, pictures), most_pictures(questions, rows)
  if least > most:
    return None
  capacity = max(least, min(2 * several, most))
  sizes = math.ceil(several / 4), several
  return Prefixes(model, params, mesh, spec, capacity, pictures, sizes)


def room(model: Any, spec: rows_lib.RowSpec, pictures: int) -> int:
  """Returns how many prefixes of so many pictures `_ROOM` holds."""
  llm = model.config.llm
  numbers = 2 * llm.num_layers * llm.num_kv_heads * llm.head_dim
  slots = pictures * spec.num_visual  # the text before them is short
  each = slots * numbers * jnp.dtype(model.config.dtype).itemsize
  return _ROOM // each


def allowed(spec: rows_lib.RowSpec, mesh: jax.sharding.Mesh) -> bool:
  """Says whether prefixes can be kept: they are, where no rows are split.

  A format without questions has nothing but a prefix.
  """
  shards = math.prod(mesh.shape[axis] for axis in sharding.BATCH)
  return shards == 1 and jax.process_count() == 1 and spec.format.questions


def key_of(question: Question) -> Hashable:
  """Returns what the prefix of a question is known by.

  A picture of a file is known by its path, one in memory by its pixels.
  """
  pictures = tuple(map(_identity, question.pictures))
  return pictures, question.mirrored, question.size


def _identity(picture) -> Hashable:
  if not isinstance(picture, Image.Image):
    return str(picture)
  pixels = hashlib.sha256(picture.tobytes()).digest()
  return picture.mode, picture.size, pixels


def _heads_of(llm: llama.LlamaConfig, mesh: jax.sharding.Mesh):
  """The key/value heads are split as those of the model, where they divide."""
  divides = llm.num_kv_heads % mesh.shape[sharding.TENSOR] == 0
  axis = sharding.TENSOR if divides else None
  return jax.sharding.PartitionSpec(None, axis, None, None)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _compute(
  model,
  where,
  params,
  tokens: Int[ArrayLike, "R S"],
  images,
  kept: Cache,
  index,
) -> Cache:
  """Computes prefixes and puts them into their places."""
  run = decode.bound_apply(model, params)
  rows, slots = len(tokens), kept[0].k.shape[2]
  cache = llama.empty_cache(model.config.llm, rows, slots, model.config.dtype)
  lengths = jnp.full(rows, tokens.shape[1], jnp.int32)
  _, cache = run(tokens, images, lengths, cache, method="prefill")

  def put(old, new):
    new = old.at[index].set(new)
    return jax.lax.with_sharding_constraint(new, where)

  return jax.tree.map(put, kept, cache)

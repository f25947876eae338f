"""The legal locations of `coords` as tables of tokens, for decoding.

A location is a sequence of C numbers. Numbers are read in a trie, digit after
digit; a separator ends one and begins the next. For bins 0..223, here with the
tokens 1, 2 and the comma:

  node            next by 1   next by 2   whole   may become
  0  (nothing)    1           2           no      0..223
  1  "1"          3           4           1       1, 10..19, 100..199
  2  "2"          5           6           2       2, 20..29, 200..223
  5  "21"         7           8           21      21, 210..219

What a prefix may become is a few intervals, so that a number can also be kept
within bounds: no x2 below x1, no bin beyond the last. In diga they depend on
the anchor.

A list of locations goes on after each one, or ends; here with one token after
the closing bracket, elsewhere the bracket itself may say it, as "]." does:

  node          next by "]"   next by " ["   next by "."
  0  (inside)   1             -              -
  1  "]"        -             AGAIN          STOP

Letters: N nodes, A tokens, C numbers, I intervals of a node, P anchors, E nodes
of what follows a location.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from locvlm_jax.text import box_lists, tokenizer
from locvlm_jax.text import coords as coords_lib

_DECIMALS = 10_000  # nfp has four
# Where a token leads that completes what follows a location in a list.
AGAIN, STOP = -2, -3
_NOWHERE = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
  """Tables of the locations that one `coords.Coords` can write.

  Attributes:
    coords: the locations.
    ids: of the A tokens; no other is ever legal.
    next: node after a node and a token; -1: no number begins so.
    enter: node of the next number after a token that ends one; -1: it does not
      end it. After the last number 0, whatever the token.
    whole: the node's number, where it is one (see `is_whole`).
    is_whole: whether the node is a whole number.
    intervals: what the node may become, lowest and highest; empty ones have
      the lowest above the highest.
    low, high: least and greatest of each number.
    above: the number that this one may not be below; -1: none.
    shift: of each number's bounds by anchor, zero but in diga.
    longest: tokens of a location at most.
  """

  coords: coords_lib.Coords
  ids: Int[np.ndarray, " A"]
  next: Int[np.ndarray, "N A"]
  enter: Int[np.ndarray, "C A"]
  whole: Int[np.ndarray, " N"]
  is_whole: Bool[np.ndarray, " N"]
  intervals: Int[np.ndarray, "N I 2"]
  low: Int[np.ndarray, " C"]
  high: Int[np.ndarray, " C"]
  above: Int[np.ndarray, " C"]
  shift: Int[np.ndarray, "P C"]
  longest: int

  def text(self, numbers: Sequence[int] | Int[np.ndarray, " C"]) -> str:
    """Writes the location of C numbers as `coords` does."""
    if self.coords.form == "nfp":
      return _joined(self.coords, [f"{v / _DECIMALS:.4f}" for v in numbers])
    write = self.coords.bin_text if self.coords.form == "ivb" else str
    return _joined(self.coords, [write(int(v)) for v in numbers])


@dataclasses.dataclass(frozen=True, eq=False)
class ListGrammar:
  """Tables of the lists of locations that `box_lists.write` makes.

  Each location comes after the one before in the order of their numbers.

  Attributes:
    one: the grammar of one location.
    tail: node after a node of what follows a location, and a token; AGAIN,
      STOP, or -1: the token is not legal there.
    again, stop: whether a token at a node can lead to AGAIN, to STOP.
  """

  one: Grammar
  tail: Int[np.ndarray, "E A"]
  again: Bool[np.ndarray, "E A"]
  stop: Bool[np.ndarray, "E A"]

  @property
  def longest(self) -> int:
    """Counts the tokens of a location and what follows it, at most."""
    return self.one.longest + len(self.tail)


def build_list(
  coords: coords_lib.Coords, text: tokenizer.Tokenizer
) -> ListGrammar:
  """Builds the grammar of lists, as `build` does that of one location.

  Raises:
    ValueError: likewise.
  """
  endings = {AGAIN: box_lists.AGAIN + "[", STOP: box_lists.STOP}
  one = build(coords, text, *endings.values())
  tails = {end: _tail(coords, text, after) for end, after in endings.items()}
  nodes = list(
    dict.fromkeys(ids[:n] for ids in tails.values() for n in range(len(ids)))
  )
  shape, index = (len(nodes), len(one.ids)), one.ids.tolist().index
  tail = np.full(shape, _NOWHERE, np.int32)
  leads = {end: np.zeros(shape, bool) for end in tails}
  for end, ids in tails.items():
    for n, token in enumerate(ids):
      node = nodes.index(ids[:n])
      longer = ids[: n + 1]
      tail[node, index(token)] = nodes.index(longer) if longer in nodes else end
      leads[end][node, index(token)] = True
  return ListGrammar(one, tail, leads[AGAIN], leads[STOP])


def _tail(coords, text, after: str) -> tuple[int, ...]:
  """Finds the tokens behind the last digit of a location before `after`."""
  kinds = _kinds(coords)
  words = [next(iter(_numbers(coords, kind))) for kind in kinds]
  ids = text.encode_after(f" {_joined(coords, words)}{after}")
  last = max(i for i, t in enumerate(ids) if re.search("[0-9]", text.piece(t)))
  return tuple(ids[last + 1 :])


def build(
  coords: coords_lib.Coords, text: tokenizer.Tokenizer, *afters: str
) -> Grammar:
  """Builds the grammar of `coords` in the tokens of `text`.

  Only tokens that the tokenizer itself writes numbers with are legal, as in
  training.

  Args:
    coords: the form, its bins, box or point.
    text: the tokenizer.
    afters: what follows a location in answers, default a full stop: it may
      share a token with the closing bracket.

  Raises:
    ValueError: the tokenizer joins digits with separators, or the form is a
      baseline's.
  """
  if coords.form not in coords_lib.FORMS:
    raise ValueError(f"no grammar of {coords.form!r}: decode freely.")
  kinds = _kinds(coords)
  numbers = {kind: _numbers(coords, kind) for kind in kinds}
  places = [[*numbers[k]] for k in kinds]
  ids, pieces = _tokens(coords, places, afters or (".",), text)
  nodes = _nodes(numbers)
  index = {node: i for i, node in enumerate(nodes)}
  assert index[kinds[0], ""] == 0  # where every location begins
  following = [
    [index.get((kind, prefix + piece), -1) for piece in pieces]
    for kind, prefix in nodes
  ]
  whole = [numbers[kind].get(prefix) for kind, prefix in nodes]
  return Grammar(
    coords=coords,
    ids=np.array(ids, np.int32),
    next=np.array(following, np.int32),
    enter=_enter(kinds, pieces, index),
    whole=np.array([v or 0 for v in whole], np.int32),
    is_whole=np.array([v is not None for v in whole]),
    intervals=_padded(_intervals(following, whole)),
    longest=sum(max(map(len, numbers[kind])) + 1 for kind in kinds),
    **_bounds(coords, kinds, numbers),
  )


def _nodes(numbers: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
  """Lists the nodes of the tries: (kind of number, what is written of it)."""
  return [
    (kind, prefix)
    for kind in numbers
    for prefix in dict.fromkeys(
      word[:n] for word in numbers[kind] for n in range(len(word) + 1)
    )
  ]


def _enter(
  kinds: list[str], pieces: list[str], index: dict[tuple[str, str], int]
) -> Int[np.ndarray, "C A"]:
  """Finds where a token leads that ends one number and begins the next.

  Args:
    kinds: of the C numbers.
    pieces: the texts of the A tokens.
    index: of each node.
  """
  ends = [":" if kind == "anchor" else "," for kind in kinds[:-1]] + ["]"]

  def entered(place: int, piece: str) -> int:
    if not piece.startswith(ends[place]):
      return -1
    last = place == len(kinds) - 1
    return 0 if last else index.get((kinds[place + 1], piece[1:]), -1)

  return np.array(
    [[entered(c, piece) for piece in pieces] for c in range(len(kinds))],
    np.int32,
  )


def _padded(intervals: list[list[tuple[int, int]]]) -> Int[np.ndarray, "N I 2"]:
  """Pads each node's intervals with empty ones, (1, 0), to equal numbers."""
  most = max(map(len, intervals))
  rows = [[*runs, *[(1, 0)] * (most - len(runs))] for runs in intervals]
  return np.array(rows, np.int32)


def _joined(coords: coords_lib.Coords, words: Sequence[str]) -> str:
  if coords.form == "diga":
    return f"[{words[0]}:{','.join(words[1:])}]"
  return f"[{','.join(words)}]"


def _kinds(coords: coords_lib.Coords) -> list[str]:
  """Names what each of the C numbers is."""
  num = 2 if coords.location == "point" else 4
  if coords.form == "diga":
    return ["anchor", *["deviation"] * num]
  return ["bin" if coords.form == "ivb" else "fraction"] * num


def _numbers(coords: coords_lib.Coords, kind: str) -> dict[str, int]:
  """Lists all numbers of a kind, text -> value, in rising order."""
  if kind == "fraction":
    return {f"{v / _DECIMALS:.4f}": v for v in range(_DECIMALS + 1)}
  first, last = {
    "bin": (0, coords.num_bins),
    "anchor": (0, coords.grid**2),
    "deviation": (1 - coords.num_bins, coords.num_bins),
  }[kind]
  write = coords.bin_text if kind == "bin" else str
  return {write(v): v for v in range(first, last)}


def _tokens(coords, places, afters, text) -> tuple[list[int], list[str]]:
  """Finds the tokens that `text` writes all numbers with, after a bracket."""
  head, used = text.encode_after(" ["), set()
  for i in range(max(map(len, places))):
    words = [p[i % len(p)] for p in places]
    for after in afters:
      ids = text.encode_after(f" {_joined(coords, words)}{after}")
      _check_apart(ids, head, text)
      used.update(ids[len(head) :])
  ids = sorted(used)
  return ids, [text.piece(i) for i in ids]


def _check_apart(ids: list[int], head: list[int], text) -> None:
  """Refuses a tokenizer that joins digits with what is around them."""
  pieces = map(text.piece, ids)
  joined = next(
    (piece for piece in pieces if re.search("[0-9].*[^0-9.]", piece)),
    "[" if ids[: len(head)] != head else None,
  )
  if joined:
    raise ValueError(
      f"the tokenizer writes {joined!r} and a digit as one token; a grammar"
      " needs digits apart from what ends them: decode freely"
    )


def _intervals(
  following: list[list[int]], whole: list[int | None]
) -> list[list[tuple[int, int]]]:
  """Lists what each node may become, as runs of whole numbers."""

  @functools.cache
  def values(node: int) -> frozenset[int]:
    own = frozenset() if whole[node] is None else frozenset({whole[node]})
    return own.union(*(values(t) for t in set(following[node]) if t >= 0))

  return [_runs(sorted(values(node))) for node in range(len(whole))]


def _runs(values: list[int]) -> list[tuple[int, int]]:
  """Groups numbers into runs: [1, 2, 3, 7, 8] -> [(1, 3), (7, 8)]."""
  if not values:
    return []
  cuts = [i for i in range(1, len(values)) if values[i] > values[i - 1] + 1]
  edges = zip([0, *cuts], [*cuts, len(values)], strict=True)
  return [(values[a], values[b - 1]) for a, b in edges]


def _bounds(coords, kinds, numbers) -> dict[str, np.ndarray]:
  """Computes `low`, `high`, `above` and `shift` of a grammar."""
  first = int(kinds[0] == "anchor")
  top = {k: max(v.values()) for k, v in numbers.items()}
  above = [-1] * (first + 2) + [first, first + 1]
  centers = np.zeros((1, 2), np.int32)
  if first:
    every = range(coords.grid**2)
    centers = np.array([coords.anchor_bins(p) for p in every], np.int32)
  shift = np.tile(-centers, (1, (len(kinds) - first) // 2))
  return {
    "low": np.zeros(len(kinds), np.int32),
    "high": np.array([top[kind] for kind in kinds], np.int32),
    "above": np.array(above[: len(kinds)], np.int32),
    "shift": np.pad(shift, ((0, 0), (first, 0))),
  }

"""From a record to one row of a batch: read, crop, phrase, tokenize."""

import collections
import dataclasses
import functools
import logging
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from locvlm_jax.data import geometry as geometry_lib
from locvlm_jax.data import objectives
from locvlm_jax.data.cache import sizes
from locvlm_jax.data.media import clips as clips_lib
from locvlm_jax.data.media import images
from locvlm_jax.data.records import Record, Turn
from locvlm_jax.data.sources import conversation_boxes
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import encoding, formats, tree
from locvlm_jax.text import tokenizer as tokenizer_lib


@dataclasses.dataclass(frozen=True)
class RowSpec:
  """Everything that the shape and the wording of a row depend on.

  Attributes:
    tokenizer: text to ids.
    format: the conversation format.
    coords: how a location is written.
    geometry: "center_crop", "pad" or "square".
    image_size: side of the model's square input, in pixels.
    num_visual: visual tokens an image, or a video.
    text_length: T, the budget of tokens that are not visual.
    max_pairs: question-answer pairs of one image in one conversation; 1 gives
      single pairs.
    weights: relative frequency of loc_pred, neg_pred and rev_loc.
    vocabulary: the categories that objectives may name.
    captions: of objects, by category: neg_pred denies one of them in place of
      the category.
    boxes: what the boxes in a conversation's text are fractions of, one of
      `conversation_boxes.FRAMES`; empty: they stay as they are.
    clips: what reads videos; None: records are about images.
    detect: relative frequency of detect, beside `weights`.
    tree: the text tokens of a question of the objectives at most, where those
      about an image do not see each other; rows then have "segments". 0: they
      are turns of a conversation.
  """

  tokenizer: tokenizer_lib.Tokenizer
  format: formats.Format
  coords: coords_lib.Coords
  geometry: str
  image_size: int
  num_visual: int
  text_length: int
  max_pairs: int
  weights: tuple[float, float, float]
  vocabulary: tuple[str, ...] = ()
  captions: Mapping[str, Sequence[str]] | None = None
  boxes: str = ""
  clips: clips_lib.Clips | clips_lib.Features | None = None
  detect: float = 0.0
  tree: int = 0

  @property
  def length(self) -> int:
    """The length of a row in positions, S."""
    return self.num_visual + self.text_length


class RowMaker:
  """Makes rows and keeps account of what could not be used.

  Several threads may call it at once.

  Attributes:
    skipped: why each bad record was left out, by the name of its file.
    counts: rows made, rows skipped, turns that did not fit or whose boxes the
      geometry cropped away, first turns that were cut off and their tokens.
  """

  def __init__(self, spec: RowSpec):
    self.spec = spec
    self.skipped: dict[str, str] = {}
    self.counts = collections.Counter()
    self._lock = threading.Lock()

  @functools.cached_property
  def _pairs(self) -> objectives.PairSpec:
    """How objectives are phrased; unused where no source has objects."""
    s = self.spec
    return objectives.PairSpec(
      s.coords, s.vocabulary, s.max_pairs, s.weights, s.captions, s.detect
    )

  def __call__(
    self, record: Record, rng: np.random.Generator
  ) -> dict[str, np.ndarray]:
    """Makes one row; a bad record gives a placeholder without targets.

    Args:
      record: what the row is about.
      rng: decides all that is drawn.

    Returns:
      One row of the batch that `records` describes, without "example".
    """
    try:
      media, turns = self._media_and_turns(record, rng)
      if not turns:
        return self._nothing_to_ask()
      row = self._row(media, turns, self._encoded(record, turns))
    except (images.BadImage, encoding.TooLong) as e:
      return self._skip(record, str(e))
    with self._lock:
      self.counts["rows"] += 1
    return row

  def min_length(self, record: Record, rng: np.random.Generator) -> int:
    """Tells the least length of a row that holds `record`.

    Opens no image, but for the header of one whose size the record lacks and
    its text depends on.

    A row always has room for an image, text alone too: where targets can be
    follows from its length (`training.step.text_targets`).

    Args:
      record: what the row is about.
      rng: as it will be given to make the row.
    """
    size = record.width, record.height
    if not all(size) and self._depends_on_size(record):
      if record.is_video or not (size := sizes.read(record.image)):
        return self.spec.length
    try:
      turns = self._turns(record, size, rng)
      tokens = self._encoded(record, turns).tokens if turns else ()
    except encoding.TooLong:
      tokens = ()
    visual = 0 if record.image and len(tokens) else self.spec.num_visual
    return visual + max(len(tokens), 1)

  def _media_and_turns(self, record, rng):
    """Makes (the row's fields of image or video, the turns about it)."""
    if record.image is None:
      return self._blank(), list(record.turns)
    media, size = self._media(record)
    turns = self._turns(record, size, rng)
    if record.turns and (lost := len(record.turns) - len(turns)):
      with self._lock:
        self.counts["turns cropped away"] += lost
    return media, turns

  def _media(self, record) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Reads (fields of the row, width and height of the original)."""
    announced = record.width, record.height
    if self.spec.clips is None:
      image = images.load_image(record.image, announced)
      square = self._transform(image.size).apply_image(image)
      return {"images": square[None]}, image.size
    fields, size = self.spec.clips.fields(record.image)
    if all(announced) and size != announced:
      raise images.BadImage(f"is {size}, the annotation says {announced}")
    return fields, size

  def _blank(self) -> dict[str, np.ndarray]:
    """Makes the fields of a row without any image or video."""
    if self.spec.clips is not None:
      return self.spec.clips.blank()
    size = self.spec.image_size
    return {"images": np.zeros((1, size, size, 3), np.uint8)}

  def _depends_on_size(self, record) -> bool:
    """Says whether the turns follow from the size of the image."""
    if not record.turns:
      return True
    if not (self.spec.boxes and record.image):
      return False
    texts = (text for turn in record.turns for text in turn)
    return any(map(conversation_boxes.find_boxes, texts))

  def _turns(self, record, size, rng) -> list[Turn]:
    """Phrases what is said about the image; `size` is its width, height."""
    spec = self.spec
    if record.turns and self._depends_on_size(record):
      return conversation_boxes.rewrite(
        record.turns, spec.boxes, self._transform(size), spec.coords
      )
    if record.turns:
      return list(record.turns)
    transform = self._transform(size)
    found = objectives.pairs(record, transform, self._pairs, rng)
    return [pair.turn for pair in found]

  def _transform(self, size: tuple[int, int]) -> geometry_lib.Transform:
    return geometry_lib.make(self.spec.geometry, *size, self.spec.image_size)

  def _encoded(self, record, turns) -> encoding.Encoded:
    spec = self.spec
    encode = encoding.encode_conversation
    if spec.tree and not record.turns:
      encode = functools.partial(tree.encode_tree, most=spec.tree)
    return encode(
      spec.tokenizer,
      spec.format,
      turns,
      spec.num_visual if record.image else 0,
      spec.text_length,
      # One location of ours is short, and half of it says another one; a list
      # may be longer than any row.
      cut=bool(record.turns) or self._is_list(turns[0][1]),
    )

  def _is_list(self, answer: str) -> bool:
    """Says whether an answer of ours has several locations."""
    return bool(
      self.spec.detect and len(self.spec.coords.parse_all(answer)) > 1
    )

  def _row(self, media, turns, encoded) -> dict[str, np.ndarray]:
    with self._lock:
      self.counts["turns"] += encoded.turns_used
      self.counts["turns left out"] += len(turns) - encoded.turns_used
      if encoded.cut_off:
        self.counts["turns cut off"] += 1
        self.counts["tokens cut off"] += encoded.cut_off
    return self._padded(media, encoded, True)

  def _padded(self, media, encoded, valid) -> dict[str, np.ndarray]:
    spec, n = self.spec, len(encoded.tokens)
    padded = np.full(spec.length, spec.tokenizer.pad_id, np.int32)
    mask = np.zeros(spec.length, bool)
    padded[:n], mask[:n] = encoded.tokens, encoded.loss_mask
    if spec.tree:
      segments = np.zeros(spec.length, np.int32)
      segments[:n] = 1 if encoded.segments is None else encoded.segments
      media = {**media, "segments": segments}
    return {
      **media,
      "tokens": padded,
      "loss_mask": mask,
      "lengths": np.int32(n),
      "valid": np.bool_(valid),
    }

  def _nothing_to_ask(self) -> dict[str, np.ndarray]:
    """Makes an empty row where the filters left no question.

    That is no fault of the record, so the row counts as valid.
    """
    with self._lock:
      self.counts["nothing to ask"] += 1
    return self._padded(self._blank(), self._empty(), True)

  def _skip(self, record, reason: str) -> dict[str, np.ndarray]:
    """Makes the placeholder of a record that can't be used, and counts it."""
    name = record.image or record.id
    with self._lock:
      self.counts["skipped"] += 1
      if name not in self.skipped:
        logging.warning("skipped %s: %s", name, reason)
      self.skipped[name] = reason
    return self._padded(self._blank(), self._empty(), False)

  def _empty(self) -> encoding.Encoded:
    """Returns a conversation of one token and no target."""
    pad = np.array([self.spec.tokenizer.pad_id], np.int32)
    return encoding.Encoded(pad, np.zeros(1, bool), 0)

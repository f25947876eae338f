"""Referring expression comprehension: an expression -> its box.

One question for each expression of RefCOCO, RefCOCO+ or RefCOCOg, as in the
field: right when the IoU is 0.5 or more. Not in the paper, whose Section 4.6
goes the other way.
"""

import dataclasses
from collections.abc import Sequence

from locvlm_jax import coords as coords_lib
from locvlm_jax import prompts
from locvlm_jax.data import batch
from locvlm_jax.evals.example import Example, shuffled, square, take
from locvlm_jax.evals.loc_pred import LocPred


@dataclasses.dataclass(frozen=True)
class Rec(LocPred):
  """Metrics as of `LocPred`: `acc_iou50`, `mean_iou`, `parse_rate`, ...

  The true box is the whole one, in [0, 1] of the model's square where a crop
  left all of it: what the model cannot see counts as missed.
  """

  def examples(
    self, records: batch.Source, coords: coords_lib.Coords,
    geometry: str, image_size: int, vocabulary: Sequence[str], seed: int,
    limit: int | None = None,
  ) -> list[Example]:  # fmt: skip
    """At most `limit` questions; the expressions of a region stay together."""
    del vocabulary
    wording = prompts.LOC_PRED[coords.location][0]
    spec = dataclasses.asdict(coords)

    def groups():
      for record, _ in shuffled(records, seed):
        (thing,) = record.objects
        box = square(record, geometry, image_size).map_box(thing.box)
        yield [
          Example(
            f"{record.id}/{i}", record.image,
            prompts.fill(wording, obj=text),
            truth={"category": text, "box": list(box), "coords": spec,
                   "geometry": geometry},
            location=True,
          )
          for i, text in enumerate(thing.texts)
        ]  # fmt: skip

    return take(groups(), limit)

"""Referring expression comprehension: an expression -> its box.

One question for each expression of RefCOCO, RefCOCO+ or RefCOCOg, as in the
field: right when the IoU is 0.5 or more. Not in the paper, whose Section 4.6
goes the other way.
"""

import dataclasses
from collections.abc import Sequence

from locvlm_jax.data.records import Source
from locvlm_jax.evals.selection import shuffled, take, transform_of
from locvlm_jax.evals.tasks.loc_pred import LocPred
from locvlm_jax.inference.question import Question
from locvlm_jax.text import coords as coords_lib
from locvlm_jax.text import prompts


@dataclasses.dataclass(frozen=True)
class Rec(LocPred):
  """Metrics as of `LocPred`: `acc_iou50`, `mean_iou`, `parse_rate`, ...

  The true box is the whole one, in [0, 1] of the model's square where a crop
  left all of it: what the model cannot see counts as missed.
  """

  def examples(
    self,
    records: Source,
    coords: coords_lib.Coords,
    geometry: str,
    image_size: int,
    vocabulary: Sequence[str],
    seed: int,
    limit: int | None = None,
  ) -> list[Question]:
    """At most `limit` questions; the expressions of a region stay together."""
    del vocabulary
    wording = prompts.LOC_PRED[coords.location][0]
    spec = dataclasses.asdict(coords)

    def groups():
      for record, _ in shuffled(records, seed):
        (thing,) = record.objects
        box = transform_of(record, geometry, image_size).map_box(thing.box)
        yield [
          Question(
            f"{record.id}/{i}",
            record.image,
            prompts.fill(wording, obj=text),
            truth={
              "category": text,
              "box": list(box),
              "coords": spec,
              "geometry": geometry,
            },
            location=True,
          )
          for i, text in enumerate(thing.texts)
        ]

    return take(groups(), limit)

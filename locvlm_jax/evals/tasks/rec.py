"""Referring expression comprehension: an expression -> its box.

One question for each expression of RefCOCO, RefCOCO+ or RefCOCOg, as in the
field: right when the IoU is 0.5 or more. Not in the paper, whose Section 4.6
goes the other way.
"""

import dataclasses
from collections.abc import Iterator

from locvlm_jax.data.question_view import View
from locvlm_jax.data.records import Records
from locvlm_jax.evals.selection import shuffled, transform_of
from locvlm_jax.evals.tasks.loc_pred import LocPred, where_is
from locvlm_jax.inference.question import Question


@dataclasses.dataclass(frozen=True)
class Rec(LocPred):
  """Metrics as of `LocPred`: `acc_iou50`, `mean_iou`, `parse_rate`, ...

  The true box is the whole one, in [0, 1] of the model's square where a crop
  left all of it: what the model cannot see counts as missed. The expressions of
  a region stay together.
  """

  def _groups(self, records: Records, view: View) -> Iterator[list[Question]]:
    for record, _ in shuffled(records, view.seed):
      (region,) = record.objects
      transform = transform_of(record, view.geometry, view.image_size)
      box = transform.map_box(region.box)
      yield [
        where_is(text, box, f"{record.id}/{i}", record.image, view)
        for i, text in enumerate(region.texts)
      ]

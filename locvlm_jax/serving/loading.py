"""Makes what answers of a model that is loaded."""

import time

from locvlm_jax.inference.model import Model
from locvlm_jax.serving.batching import Batcher
from locvlm_jax.serving.chat import Served
from locvlm_jax.serving.limits import Limits
from locvlm_jax.serving.rows import LISTED, LOCATED
from locvlm_jax.serving.writer import Writer


def serve_model(
  model: Model,
  name: str,
  limits: Limits,
  rows: int = 16,
  kept: int = 0,
  lists: bool = False,
) -> Served:
  """Compiles a model's programs and begins to wait for questions.

  Args:
    model: that answers.
    name: that clients call it by.
    limits: of requests.
    rows: of a batch.
    kept: prefixes of pictures that are kept; 0: as many as fit.
    lists: whether it lists all objects of a category.
  """
  writer = Writer(model, limits, rows, kept, lists)
  writer.compile()
  return Served(
    name=name,
    created=int(time.time()),
    spec=model.predictor.spec,
    writer=writer,
    batcher=Batcher(writer.write, rows, limits.queue),
    limits=limits,
    lists=lists,
    calibrations={LOCATED: model.calibration, LISTED: model.lists},
  )

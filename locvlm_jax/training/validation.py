"""A loss and some tasks on held-out data, while training goes on."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from locvlm_jax import assemble
from locvlm_jax.data import catalog, rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.evals import session
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import predictor
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.training import step as step_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Validation:
  """Measures parameters; call it with them.

  Attributes:
    config: as plain data; `config.validation` says what is measured, on the
      data that `config.eval` names.
    model: `LocVLM`.
    mesh: of all processes; each has to be called alike.
  """

  config: Mapping
  model: Any
  mesh: jax.sharding.Mesh

  def __post_init__(self):
    if self.config["validation"]["every"] and self.config["validation"]["rows"]:
      assemble.with_validation_data(self.config)
    unknown = set(self.config["validation"]["tasks"]) - EVALS.keys()
    if unknown:
      raise ValueError(
        f"validation.tasks {sorted(unknown)}: not among {', '.join(EVALS)}."
      )

  def due(self, step: int) -> bool:
    """Whether there is something to be measured after `step`."""
    every = self.config["validation"]["every"]
    return bool(every) and step % every == 0

  def __call__(self, params: params_lib.Flat) -> dict[str, float]:
    """{"val.loss": mean of the targets, "val.TASK.METRIC": ...}."""
    dtype = jnp.dtype(self.config["model"]["dtype"])
    params = params_lib.unflatten(
      {p: v.astype(dtype) for p, v in params.items()}
    )
    found = {}
    if self.config["validation"]["rows"]:
      found["val.loss"] = self._mean_loss(params)
    answerer = dataclasses.replace(self._answerer, params=params)
    for name, questions in self._questions.items():
      scores = session.ask_task(
        EVALS[name],
        questions,
        answerer,
        batch_size=self.config["eval"]["batch_size"],
      )
      found |= {f"val.{name}.{k}": v for k, v in scores.items()}
    return found

  def _mean_loss(self, params: Mapping) -> float:
    loss = targets = 0.0
    for batch in self._batches:
      total, sums = self._loss(params, batch)
      loss, targets = loss + float(total), targets + float(sums["targets"])
    return loss / max(targets, 1.0)

  @functools.cached_property
  def _loss(self):
    return jax.jit(functools.partial(step_lib.loss_sums, self.model))

  @functools.cached_property
  def _batches(self) -> list[dict]:
    """Held-out rows of the kinds that are trained on, always the same."""
    config = assemble.with_validation_data(self.config)
    sources = catalog.open_sources(config["data"])
    text = assemble.load_tokenizer(config)
    make_row = rows.RowMaker(assemble.row_spec(config, text, sources))
    size = config["batch_size"]
    stream = stream_lib.train_iterator(
      sources,
      config["data"]["mixture"],
      make_row,
      batch_size=size,
      seed=config["eval"]["seed"],
      host=jax.process_index(),
      num_hosts=jax.process_count(),
    )
    number = -(-config["validation"]["rows"] // size)
    return [
      sharding.put_batch(step_lib.inputs(batch), self.mesh, size)
      for batch in itertools.islice(stream, number)
    ]

  @functools.cached_property
  def _questions(self) -> dict[str, list]:
    v = self.config["validation"]
    e = {**self.config["eval"], "samples": v["samples"]}
    config = {**self.config, "eval": e}
    return {
      name: assemble.questions(config, EVALS[name]) for name in v["tasks"]
    }

  @functools.cached_property
  def _answerer(self) -> predictor.Predictor:
    spec = assemble.question_spec(
      self.config, assemble.load_tokenizer(self.config)
    )
    return predictor.Predictor(
      self.config, self.model, {}, self.mesh, spec, origin={}
    )

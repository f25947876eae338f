"""A loss and some tasks on held-out data, while training goes on."""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax

from locvlm_jax import assemble
from locvlm_jax.config import Config
from locvlm_jax.data import rows
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.evals import session, units
from locvlm_jax.evals.scorers.metrics import Unit
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.inference import predictor
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.training import step as step_lib

# The first of these that a task has is what it is known by.
_MAIN = (
  "acc_iou50", "f1_50", "icl_disjoint.all", "direct.all", "accuracy", "match",
  "meteor",
)  # fmt: skip
_SHOWN = 3  # metrics of a task


@dataclasses.dataclass(frozen=True, eq=False)
class Validation:
  """Measures parameters; call it with them.

  Attributes:
    config: all of it; `config.validation` says what is measured, on the
      data that `config.eval` names.
    model: `LocVLM`.
    mesh: of all processes; each has to be called alike.
  """

  config: Config
  model: Any
  mesh: jax.sharding.Mesh

  def __post_init__(self):
    if self.config.validation.every and self.config.validation.rows:
      assemble.validation_sources(self.config)
    unknown = set(self.config.validation.tasks) - EVALS.keys()
    if unknown:
      raise ValueError(
        f"validation.tasks {sorted(unknown)}: not among {', '.join(EVALS)}."
      )

  def due(self, step: int) -> bool:
    """Says whether there is something to be measured after `step`."""
    every = self.config.validation.every
    return bool(every) and step % every == 0

  def __call__(self, params: params_lib.Flat) -> dict[str, float]:
    """{"val.loss": mean of the targets, "val.TASK.METRIC": ...}."""
    params = computed(params, self.config.model.dtype)
    found = {}
    if self.config.validation.rows:
      found["val.loss"] = self._mean_loss(params)
    model = dataclasses.replace(self._predictor, params=params)
    request = session.Request.of(self.config)
    for name, questions in self._questions.items():
      task = EVALS[name]
      scores = session.ask_task(
        task,
        questions,
        request.decoded(model, task, request.decoding.seed),
        batch_size=request.batch_size,
        max_bad_share=request.max_bad_share,
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
    config = self.config
    sources = assemble.validation_sources(config)
    text = assemble.load_tokenizer(config)
    make_row = rows.RowMaker(assemble.row_spec(config, text, sources))
    size = config.batch_size
    stream = stream_lib.train_iterator(
      sources,
      make_row,
      stream_lib.StreamSpec(dict(config.data.mixture), size, config.eval.seed),
      host=jax.process_index(),
      num_hosts=jax.process_count(),
    )
    number = -(-config.validation.rows // size)
    return [
      sharding.put_batch(step_lib.inputs(batch), self.mesh, size)
      for batch in itertools.islice(stream, number)
    ]

  @functools.cached_property
  def _questions(self) -> dict[str, list]:
    config = self.config
    return {
      name: assemble.questions(
        config,
        EVALS[name],
        seed=config.eval.seed,
        samples=config.validation.samples,
      )
      for name in config.validation.tasks
    }

  @functools.cached_property
  def _predictor(self) -> predictor.Predictor:
    text = assemble.load_tokenizer(self.config)
    spec = assemble.question_spec(self.config, text)
    decoding = predictor.Decoding.of(self.config.eval)
    return predictor.Predictor(self.model, {}, self.mesh, spec, decoding)


def told(step: int, numbers: Mapping[str, float]) -> str:
  """Writes a line for the loss and one for each task, its main metric first.

  Counts, and what a task measures besides, are in metrics.jsonl alone.

  Args:
    step: after which it was measured.
    numbers: as `Validation` returns them.

  >>> print(told(20, {"val.loss": 1.5, "val.vqa.num": 9, "val.vqa.exact": 1}))
  step 20  val.loss 1.5000
  step 20  val.vqa  exact 100.0 %
  """
  loss = numbers.get("val.loss")
  lines = [] if loss is None else [f"step {step}  val.loss {loss:.4f}"]
  tasks = collections.defaultdict(dict)
  for name, value in numbers.items():
    _, task, *metric = name.split(".", 2)
    if metric and units.of(f"{task}.{metric[0]}") != Unit.COUNT:
      tasks[task][metric[0]] = value
  for task, found in tasks.items():
    shown = (
      f"{name} {units.shown(found[name], units.of(f'{task}.{name}'))}"
      for name in sorted(found, key=_order)[:_SHOWN]
    )
    lines.append(f"step {step}  val.{task}  " + "  ".join(shown))
  return "\n".join(lines)


def _order(metric: str) -> tuple[int, int]:
  """Sorts main metrics first, then those of a whole task before its parts'."""
  main = _MAIN.index(metric) if metric in _MAIN else len(_MAIN)
  return main, metric.count(".")


def computed(params: params_lib.Flat, dtype: str) -> dict:
  """Nests parameters in the dtypes in which a trained model has them.

  Args:
    params: masters in float32, and what is frozen; quantized or not.
    dtype: of the computation.
  """
  kept = params_lib.kept_dtypes(params, (), dtype)
  return params_lib.unflatten({p: v.astype(kept[p]) for p, v in params.items()})

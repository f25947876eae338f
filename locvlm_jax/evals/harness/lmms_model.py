"""A model of ours in lmms-eval: `lmms-eval --model locvlm_jax`.

  --model_args checkpoint=DIR --batch_size 8

DIR is a run's workdir or a Llava directory. Videos are read as in `evaluate`,
which an endpoint, to which their frames go as pictures, can't do.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from locvlm_jax.evals.harness import lmms_requests
from locvlm_jax.inference.model import Model
from locvlm_jax.inference.predictor import Decoding
from locvlm_jax.inference.question import Question, batches

MANIFEST = ModelManifest(
  model_id="locvlm_jax", chat_class_path=f"{__name__}.LocVLM"
)


class LocVLM(lmms):
  """Answers questions about pictures and videos, in full batches.

  Args:
    checkpoint: a run's workdir or a Llava directory; default: the micro model.
    batch_size: questions at a time.
    device: as lmms-eval passes it; jax has its own.

  Raises:
    ValueError: nothing says how the weights were trained.
  """

  is_simple = False

  def __init__(
    self, checkpoint: str = "", batch_size: int = 8, device: str | None = None
  ):
    super().__init__()
    del device
    self._model = Model.load(checkpoint)
    self._batch_size = int(batch_size)

  def generate_until(self, requests) -> list[str]:
    """Answers each request, in their order."""
    kwargs = [request.args[2] for request in requests]
    order = sorted(range(len(requests)), key=lambda i: repr(kwargs[i]))
    answers = {}
    for _, group in itertools.groupby(order, lambda i: repr(kwargs[i])):
      numbers = list(group)
      decoding = lmms_requests.decoding_of(kwargs[numbers[0]])
      asked = [self._question(i, requests[i]) for i in numbers]
      answers |= self._answers(asked, decoding)
    return [answers[str(i)] for i in range(len(requests))]

  def _question(self, number: int, request) -> Question:
    _, doc_to_messages, _, doc, task, split = request.args
    messages = doc_to_messages(self.task_dict[task][split][doc])
    return lmms_requests.question_of(str(number), messages)

  def _answers(
    self, asked: Sequence[Question], decoding: Decoding
  ) -> dict[str, str]:
    predictor = dataclasses.replace(self._model.predictor, decoding=decoding)
    found = {}
    with jax.set_mesh(self._model.mesh):
      for batch, filled in batches(asked, self._batch_size):
        told = predictor(filled)
        found |= {q.id: str(a) for q, a in zip(batch, told, strict=False)}
    return found

  def loglikelihood(self, requests):
    """Refuses: it answers in words."""
    raise NotImplementedError("locvlm_jax answers in words: use generate_until")

  def generate_until_multi_round(self, requests):
    """Refuses: it answers in words, once."""
    raise NotImplementedError("locvlm_jax answers once: use generate_until")

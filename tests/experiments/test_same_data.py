"""What the arms of the spatial experiment learn from and are asked."""

import collections
import dataclasses
import statistics

import pytest
from changed import changed

from configs import micro
from locvlm_jax import assemble
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.evals.tasks import EVALS
from locvlm_jax.experiments import micro_arms

_STEPS = 50


@pytest.fixture(scope="module")
def root(microworld):
  return microworld(60, 20)


def _config(arm, root, seed=0):
  fields = dict(field.split("=", 1) for field in arm.fields)
  shares = {k: float(v) for k, v in fields.items() if "mixture" in k}
  config = micro.get_config(arm.words)
  config.root = root
  return changed(config, seed=seed, **shares)


class _Named:
  """A source whose records say all that they are as their id."""

  def __init__(self, name, source):
    self._name, self._source = name, source

  def __len__(self):
    return len(self._source)

  def __getitem__(self, i):
    record = self._source[i]
    whole = (self._name, record.image, record.id, record.turns)
    return dataclasses.replace(record, image=None, id=repr(whole))


def _examples(arm, root, seed=0) -> dict[str, list[str]]:
  """Returns the records that an arm sees, by their source, in order."""
  config = _config(arm, root, seed)
  sources = assemble.training_sources(config)
  named = {name: _Named(name, source) for name, source in sources.items()}
  spec = stream_lib.StreamSpec.of(config.data, config.batch_size, config.seed)
  number = range(_STEPS * config.batch_size)
  found = collections.defaultdict(list)
  for example in stream_lib.record_ids(named, spec, number):
    found[example.split("'")[1]].append(example)
  return found


@pytest.mark.parametrize("seed", [0, 1])
def test_both_arms_see_the_same_spatial_questions_in_the_same_order(root, seed):
  """And the general data of one is the beginning of the other's."""
  with_them = _examples(micro_arms.FULL, root, seed)
  without = _examples(micro_arms.BASELINE, root, seed)
  assert set(with_them) - set(without) == {"instances"}
  for name in ("spatial", "conversations", "text"):
    shorter = min(len(with_them[name]), len(without[name]))
    assert with_them[name][:shorter] == without[name][:shorter], name
  numbers = [len(arm["spatial"]) for arm in (with_them, without)]
  assert abs(numbers[0] - numbers[1]) <= 1
  total = sum(map(len, without.values()))
  assert numbers[0] / total == pytest.approx(micro_arms.DOSE, abs=0.002)


def test_text_in_the_objectives_place_leaves_the_general_questions_alone(root):
  text = _examples(micro_arms.MORE_TEXT, root)
  with_them = _examples(micro_arms.FULL, root)
  for name in ("spatial", "conversations"):
    numbers = [len(arm[name]) for arm in (text, with_them)]
    assert abs(numbers[0] - numbers[1]) <= 1
    assert text[name][: min(numbers)] == with_them[name][: min(numbers)]


def test_objectives_are_of_pictures_that_the_other_arm_has_seen(root):
  """They bring boxes, and no picture that the other arm does not have."""
  config = _config(micro_arms.BASELINE, root)
  general = assemble.training_sources(config)
  pictures = {
    source[i].image
    for source in general.values()
    for i in range(len(source))
    if source[i].image
  }
  config = _config(micro_arms.FULL, root)
  instances = assemble.training_sources(config)["instances"]
  assert {instances[i].image for i in range(len(instances))} <= pictures


@pytest.mark.parametrize(
  "name", ["spatial_trained", "spatial_trained_disjoint"]
)
def test_both_arms_are_asked_the_same_about_pictures_of_neither(root, name):
  asked = [
    assemble.questions(_config(arm, root), EVALS[name], seed=0, samples=200)
    for arm in (micro_arms.FULL, micro_arms.BASELINE)
  ]
  assert asked[0] == asked[1] and asked[0]
  sources = assemble.training_sources(_config(micro_arms.FULL, root))
  trained = {
    s[i].image for s in sources.values() for i in range(len(s)) if s[i].image
  }
  assert not trained & {q.image for q in asked[0]}


def test_neither_answer_is_more_often_right(root):
  """In what is trained on, and in what is asked."""
  config = _config(micro_arms.BASELINE, root)
  source = assemble.training_sources(config)["spatial"]
  answers = collections.Counter(
    answer for i in range(len(source)) for _, answer in source[i].turns
  )
  for one, other in (("Left.", "Right."), ("Above.", "Below.")):
    share = answers[one] / (answers[one] + answers[other])
    assert share == pytest.approx(0.5, abs=0.15), answers
  asked = assemble.questions(
    config, EVALS["spatial_trained"], seed=0, samples=2000
  )
  sides = collections.Counter(q.truth["label"] for q in asked)
  assert len(set(sides.values())) <= 2, sides
  assert statistics.pstdev(sides.values()) <= 1, sides

"""The train step and the loop: exact resume, meshes, accumulation, curves."""

import errno
import functools
import importlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changed import changed
from paths import GOLDEN
from toy_models import params_of

from configs import micro
from locvlm_jax import assemble, checks, errors, files
from locvlm_jax.config import Config, freeze
from locvlm_jax.data import packing
from locvlm_jax.data import rows as rows_lib
from locvlm_jax.data import stream as stream_lib
from locvlm_jax.evals import session
from locvlm_jax.models import params as params_lib
from locvlm_jax.parallel import sharding
from locvlm_jax.training import loop, optimizer, setup
from locvlm_jax.training import step as step_lib
from locvlm_jax.training.losses import digits
from locvlm_jax.weights import checkpoints, initial, runs
from locvlm_jax.weights.layouts import export


@pytest.fixture(scope="module")
def root(microworld):
  """A micro-world of 24 training and 8 validation images."""
  return microworld(num_train=24, num_val=8)


def _config(root, argument="base,tiny", **change) -> Config:
  c = micro.get_config(argument)
  c.root = root
  c.optim.name = "adamw"  # compiles faster; `test_optimizer` tests Muon
  return changed(c, **change)


def _curve(workdir) -> list[tuple[int, float, float]]:
  with open(os.path.join(workdir, "metrics.jsonl")) as f:
    rows = [json.loads(line) for line in f]
  return [(r["step"], r["loss"], r["grad_norm"]) for r in rows]


def _params(workdir) -> dict[str, np.ndarray]:
  flat = initial.open_params(str(workdir))[0]
  return {path: v.read() for path, v in flat.items()}


def _same(a, b) -> bool:
  return a.keys() == b.keys() and all(
    a[k].tobytes() == b[k].tobytes() for k in a
  )


def test_same_seed_same_curve_and_resume_is_bitwise(
  root, tmp_path, monkeypatch
):
  config = _config(root, steps=6, checkpoint_every=2)
  whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
  loop.train(config, whole)

  original = stream_lib.train_iterator

  def dies_after_five(*args, **kwargs):
    stream = original(*args, **kwargs)
    yield from (next(stream) for _ in range(5))
    raise KeyboardInterrupt

  monkeypatch.setattr(stream_lib, "train_iterator", dies_after_five)
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, broken)
  monkeypatch.setattr(stream_lib, "train_iterator", original)
  # Other reader threads and another mesh entry do not change the run.
  loop.train(changed(config, **{"data.threads": 0}), broken)

  assert _curve(whole) == _curve(broken)
  assert [row[0] for row in _curve(whole)] == [1, 2, 3, 4, 5, 6]
  assert _same(_params(whole), _params(broken))


@pytest.mark.parametrize("kind", [{"data.pack": 2}, {"data.tree": 100}])
def test_packed_rows_and_trees_train_from_the_config(root, tmp_path, kind):
  config = _config(root, **{"data.sort_window": 2}, **kind)
  loop.train(config, str(tmp_path))
  assert [row[0] for row in _curve(tmp_path)] == [1, 2]


def _poisoned(monkeypatch, steps, factor):
  """The loss is multiplied by `factor` on the batches of `steps`."""
  original = step_lib.inputs
  seen = iter(range(1, 1000))

  def inputs(batch):
    batch, step = original(batch), next(seen)
    bad = np.float32(factor if step in steps else 1.0)
    return batch | {"scale": np.full(len(batch["tokens"]), bad)}

  sums = step_lib.loss_sums

  def loss_sums(model, params, batch):
    loss, counts = sums(model, params, batch)
    return loss * batch["scale"].mean(), counts

  monkeypatch.setattr(step_lib, "inputs", inputs)
  monkeypatch.setattr(step_lib, "loss_sums", loss_sums)


def _incidents(workdir) -> list[dict]:
  with open(os.path.join(workdir, "incidents.jsonl")) as f:
    return [json.loads(line) for line in f]


def test_steps_that_are_not_finite_are_skipped_then_stop(
  root, tmp_path, monkeypatch
):
  config = _config(root, steps=8, checkpoint_every=1, checkpoint_keep=9)
  _poisoned(monkeypatch, {2, 4, 5, 6}, np.nan)
  with pytest.raises(errors.NotFinite, match="step 6: .* 3 times in a row"):
    loop.train(config, str(tmp_path))
  # The batches are told, and not one parameter moved.
  told = _incidents(tmp_path)
  assert [x["step"] for x in told] == [2, 4, 5, 6]
  assert told[0]["examples"] == list(range(8, 16))
  assert all(told[0]["records"])
  saved = checkpoints.Checkpoints(
    runs.checkpoint_dir(str(tmp_path)), read_only=True
  )
  assert saved.steps == [1, 2, 3, 4, 5]  # each refused if it were not finite
  params = {s: saved.info(s)["leaves"]["params"] for s in saved.steps}
  assert params[1] == params[2] != params[3] == params[4] == params[5]


def test_a_spike_is_told_and_its_step_can_be_replayed(
  root, tmp_path, monkeypatch, capsys
):
  config = _config(root, steps=14, checkpoint_every=4)
  _poisoned(monkeypatch, {13}, 20.0)
  loop.train(config, str(tmp_path))
  (told,) = _incidents(tmp_path)
  assert told["step"] == 13 and told["why"].startswith("spike")
  files = sorted(os.listdir(tmp_path))
  monkeypatch.undo()
  _poisoned(monkeypatch, {1}, 20.0)  # from step 12 on
  capsys.readouterr()
  loop.train(config, str(tmp_path), replay=13)
  out = capsys.readouterr().out
  numbers = json.loads(out.split("replay of step 13: ")[1].splitlines()[0])
  assert {k: repr(v) for k, v in numbers.items()} == told["scalars"]
  for example, record in zip(told["examples"], told["records"], strict=True):
    assert f"example {example}: {record}" in out
  assert sorted(os.listdir(tmp_path)) == files


def test_other_annotations_are_no_resumption(root, tmp_path):
  config = _config(root)
  notes = tmp_path / "captions.json"
  with open(config.data.captions) as f:
    content = json.load(f)
  notes.write_text(json.dumps(content))
  config = changed(config, **{"data.captions": str(notes)})
  loop.train(config, str(tmp_path / "run"))
  content["annotations"].pop()
  notes.write_text(json.dumps(content))
  with pytest.raises(errors.Mismatch, match="data.captions=.*has hash"):
    loop.train(config, str(tmp_path / "run"))


def test_validation_measures_held_out_data_and_the_best_is_kept(
  root, tmp_path, monkeypatch
):
  config = _config(
    root,
    "stage2,tiny",
    **{
      "init.checkpoint": "",
      "steps": 4,
      "checkpoint_every": 1,
      "checkpoint_keep": 1,
      "checkpoint_best": 1,
      "checkpoint_metric": "val.loss",
      "validation.every": 2,
      "validation.rows": 16,
      "validation.tasks": ("locpred",),
      "validation.samples": 4,
      "optim.lr": 1e-2,
    },
  )
  loop.train(config, str(tmp_path))
  with open(tmp_path / "metrics.jsonl") as f:
    rows = [json.loads(line) for line in f]
  found = {r["step"]: r for r in rows if "val.loss" in r}
  assert found.keys() == {2, 4}
  assert found[4]["val.locpred.num"] == 4
  assert 0 < found[4]["val.loss"] != found[2]["val.loss"]
  best = min(found, key=lambda step: found[step]["val.loss"])
  saved = checkpoints.Checkpoints(
    runs.checkpoint_dir(str(tmp_path)), read_only=True
  )
  assert {best, 4} <= set(saved.steps) and len(saved.steps) <= 3


def test_validation_names_what_is_missing(root, tmp_path):
  change = {"validation.every": 1, "eval.conversations": ""}
  with pytest.raises(ValueError, match="validation.every: eval names no file"):
    loop.train(_config(root, **change), str(tmp_path))
  change = {"validation.tasks": ("nothing",)}
  with pytest.raises(ValueError, match="validation.tasks .'nothing'.: not"):
    loop.train(_config(root, **change), str(tmp_path))


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(
  root, tmp_path, monkeypatch
):
  def full(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", full)
  monkeypatch.setattr(setup.Data, "open", lambda _: pytest.fail("too late"))
  with pytest.raises(errors.DataError, match="written there .Read-only file"):
    loop.train(_config(root), str(tmp_path))


def test_resume_under_another_config_is_refused(root, tmp_path):
  loop.train(_config(root), str(tmp_path))
  with pytest.raises(ValueError, match="another config.*optim/lr"):
    loop.train(_config(root, **{"optim.lr": 0.5}), str(tmp_path))


def test_stage_after_stage_then_evaluation(root, tmp_path):
  base, one, two = (str(tmp_path / n) for n in ("base", "one", "two"))
  loop.train(_config(root), base)
  c = _config(root, "stage1,tiny", **{"init.checkpoint": base})
  loop.train(c, one)
  before, after = _params(base), _params(one)
  moved = {p for p in after if not np.array_equal(after[p], before[p])}
  assert moved and all(p.startswith("adapter/") for p in moved)

  c = _config(root, "stage2,tiny", **{"init.checkpoint": one})
  loop.train(c, two)
  trained = {
    p for p, v in _params(two).items() if not np.array_equal(v, after[p])
  }
  assert {p.split("/")[0] for p in trained} == {"adapter", "llm"}

  metrics = session.evaluate(c, two, ["locpred", "hallucination"])
  assert metrics["locpred.num"] > 0
  assert 0 <= metrics["hallucination.accuracy"] <= 1
  with open(os.path.join(two, "predictions.jsonl")) as f:
    assert {json.loads(line)["task"] for line in f} == {
      "locpred",
      "hallucination",
    }


@pytest.mark.parametrize(
  "name, words",
  [
    ("locvlm_b", "stage1"),
    ("locvlm_b", "stage2"),
    pytest.param("locvlm_l", "stage2", marks=pytest.mark.slow),
    ("coco", "stage2"),
    ("micro", "baseline"),
  ],
)
def test_every_tiny_config_trains(root, tmp_path, name, words):
  module = importlib.import_module(f"configs.{name}")
  c = module.get_config(f"{words},tiny")
  if name == "micro":
    c.root = root
  else:
    c.tokenizer = micro.BASE
    c.prompt_format = c.prompt_format.replace("v1", "bare")  # fewer tokens
    c.data.images = f"{root}/images/train"
    c.data.instances = f"{root}/annotations/instances_train.json"
    c.data.captions = f"{root}/annotations/captions_train.json"
  loop.train(freeze(c), str(tmp_path))
  assert [step for step, *_ in _curve(tmp_path)] == [1, 2]


@pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with coco/",
)
def test_real_coco_from_annotations_to_numbers(tmp_path):
  from configs import coco

  folder = os.path.join(os.environ["LOCVLM_TEST_DATA"], "coco")
  c = coco.get_config("tiny")
  c.data.instances = f"{folder}/annotations/instances_val2017.json"
  c.data.images = f"{folder}/val2017"
  config = freeze(c)
  loop.train(config, str(tmp_path))
  metrics = session.evaluate(config, str(tmp_path), c.eval.tasks)
  assert metrics["locpred.num"] == metrics["hallucination.num"] == 8
  with open(tmp_path / "data.json") as f:
    assert json.load(f)["skipped"] == {}


# ------------------------------------------------------------ the step alone


@pytest.fixture(scope="module")
def parts(root):
  """(config, model, flat parameters, one batch of 8 rows)."""
  # Of its own, so that tuning the micro model leaves the golden curve alone.
  config = _config(
    root,
    "stage2,tiny",
    **{
      "optim.name": "adamw",
      "data.text_length": 64,
      "data.objectives.loc_pred": 1.0,
      "data.per_object": False,
      "data.mixture.instances": 0.8,
      "data.mixture.conversations": 0.15,
      "data.mixture.text": 0.05,
    },
  )
  text = assemble.load_tokenizer(config)
  sources = assemble.training_sources(config)
  make_row = rows_lib.RowMaker(assemble.row_spec(config, text, sources))
  batch = next(
    stream_lib.train_iterator(
      sources,
      make_row,
      stream_lib.StreamSpec(dict(config.data.mixture), 8, seed=0, threads=0),
    )
  )
  model = assemble.model(config)
  from locvlm_jax.models import locvlm

  flat = params_lib.flatten(locvlm.init_params(model, jax.random.key(1)))
  return config, model, flat, step_lib.inputs(batch)


def _run(parts, mesh_shape, steps=2, accumulate=1, batch=None, lr=1e-2):
  """Losses and parameters after some steps on a mesh."""
  config, model, flat, default = parts
  batch = default if batch is None else batch
  mesh = sharding.make_mesh(mesh_shape)
  where = sharding.param_shardings(flat, mesh)
  placed = {p: jax.device_put(v, where[p]) for p, v in flat.items()}
  trainable, frozen = params_lib.split(placed, config.trainable)
  how = changed(config, **{"optim.lr": lr, "optim.warmup_ratio": 0.0})
  tx = optimizer.make(how.optim, 1000)
  with jax.set_mesh(mesh):
    state, shardings = step_lib.init_state(trainable, frozen, tx, mesh)
    # init_state's arrays are donated: the caller keeps its own.
    state = jax.tree.map(jnp.copy, state)
    step = step_lib.jit_train_step(
      model, tx, shardings, sharding.batch_sharding(mesh), accumulate
    )
    losses = []
    for _ in range(steps):
      rows = len(batch["tokens"])
      state, scalars = step(state, sharding.put_batch(batch, mesh, rows))
      losses.append(float(scalars["loss"]))
  assert step._cache_size() == 1
  return losses, {p: np.asarray(v) for p, v in state.trainable.items()}


def _close(a, b, tolerance=1e-5):
  np.testing.assert_allclose(a[0], b[0], rtol=tolerance)
  for path in a[1]:
    np.testing.assert_allclose(
      a[1][path], b[1][path], atol=10 * tolerance, err_msg=path
    )


@pytest.mark.parametrize(
  "pack, mesh", [(4, {"fsdp": 2, "tensor": 2}), (2, {"data": 4})], ids=str
)
def test_packed_rows_train_as_single_ones(parts, pack, mesh):
  """The same examples in longer rows: the same loss, the same update."""
  config, model, flat, batch = parts
  config = changed(config, **{"optim.eps": 1e-3})
  parts = config, model, flat, batch
  single = {**batch, "valid": np.ones(8, bool), "example": np.arange(8)}
  rows = [{k: v[i] for k, v in single.items()} for i in range(8)]
  packed = step_lib.inputs(packing.packed(rows, pack))
  assert packed["images"].shape[:2] == (8 // pack, pack)
  assert len(np.unique(packed["lengths"])) > 1
  _close(_run(parts, {"data": 4}), _run(parts, mesh, batch=packed))


@pytest.mark.parametrize(
  "mesh, name",
  [
    ({"data": 2, "fsdp": 2}, "adamw"),
    ({"fsdp": 2, "tensor": 2}, "adamw"),
    ({"fsdp": 4}, "adamw"),
    ({"fsdp": 2, "tensor": 2}, "muon"),
  ],
  ids=str,
)
def test_meshes_equal_replicas(parts, mesh, name):
  # SGD-like comparison would hide nothing, but Adam divides by the size of
  # the gradient: an eps well above rounding keeps noise from being amplified.
  config = changed(parts[0], **{"optim.eps": 1e-3, "optim.name": name})
  parts = (config, *parts[1:])
  _close(_run(parts, {"data": 4}), _run(parts, mesh))


def test_accumulation_weighs_every_token_alike(parts):
  config = changed(parts[0], **{"optim.eps": 1e-3})
  parts = (config, *parts[1:])
  # Uneven rows: the classic bug averages the means of the microbatches.
  batch = dict(parts[3])
  mask = batch["loss_mask"].copy()
  mask[::2] &= np.cumsum(mask[::2], axis=1) <= 1
  batch["loss_mask"] = mask
  run = functools.partial(_run, parts, {"data": 1, "fsdp": 1, "tensor": 4})
  if parts[1].config.llm.num_kv_heads % 4:
    run = functools.partial(_run, parts, {"data": 2, "tensor": 2})
  _close(run(batch=batch), run(batch=batch, accumulate=4))


def test_one_batch_overfits(parts):
  losses, _ = _run(parts, {"data": 4}, steps=60, lr=3e-3)
  assert losses[-1] < 0.25 * losses[0], losses


def test_loss_is_the_mean_over_supervised_tokens(parts):
  """Against a plain loop over all positions, without the text-only head."""
  _, model, flat, batch = parts
  batch = {name: jnp.asarray(value) for name, value in batch.items()}
  params = params_lib.unflatten(flat)
  total, sums = jax.jit(functools.partial(step_lib.loss_sums, model))(
    params, batch
  )
  hidden = model.apply(
    {"params": params}, batch["tokens"], batch["images"], batch["lengths"]
  )
  logits = model.apply({"params": params}, hidden, method="logits")
  logp = np.asarray(jax.nn.log_softmax(logits))
  expected, count = 0.0, 0
  for row, position in zip(*np.nonzero(batch["loss_mask"]), strict=True):
    expected -= logp[row, position - 1, batch["tokens"][row, position]]
    count += 1
  assert int(sums["targets"]) == count
  np.testing.assert_allclose(float(total), expected, rtol=1e-5)


def test_the_loss_on_digits_is_the_same_on_every_mesh(parts):
  _, model, flat, batch = parts
  vocabulary = np.arange(model.config.llm.vocab_size, dtype=np.int32)
  kind = np.where(vocabulary < 500, 1, 2).astype(np.int32)  # all in brackets
  of = digits.DigitLoss(2.0, vocabulary[:10], kind, vocabulary % 10, 96)
  sums = jax.jit(functools.partial(step_lib.loss_sums, model, digits=of))
  total, counts = sums(params_lib.unflatten(flat), batch)
  assert float(counts["digit_loss"]) > 0
  plain, _ = jax.jit(functools.partial(step_lib.loss_sums, model))(
    params_lib.unflatten(flat), batch
  )
  expected = float(plain) + 2 * float(counts["digit_loss"])
  np.testing.assert_allclose(float(total), expected, rtol=1e-5)
  mesh = sharding.make_mesh({"fsdp": 2, "tensor": 2})
  where = sharding.param_shardings(flat, mesh)
  placed = {p: jax.device_put(v, where[p]) for p, v in flat.items()}
  with jax.set_mesh(mesh):
    rows = sharding.put_batch(batch, mesh, len(batch["tokens"]))
    found, _ = sums(params_lib.unflatten(placed), rows)
  np.testing.assert_allclose(float(found), float(total), rtol=1e-5)


def test_text_targets_after_an_image():
  """The first word of a caption is predicted from the last visual token."""
  tokens = jnp.array([[1, -1, -1, 7, 8, 2, 0]])
  mask = jnp.array([[False, False, False, True, True, True, False]])
  at, labels, weight = step_lib.text_targets(tokens, mask, 5)
  assert at.tolist() == [[0, 2, 3, 4, 5]]
  assert (labels * weight).tolist() == [[0, 7, 8, 2, 0]]
  assert weight.tolist() == [[False, True, True, True, False]]


def test_batch_that_the_mesh_does_not_divide_is_refused(root):
  config = _config(root, batch_size=6)
  mesh = sharding.make_mesh({"data": 4})
  with pytest.raises(ValueError, match="batch_size=6.*mesh.data=4"):
    checks.check_batch(config, mesh)


@pytest.mark.parametrize(
  "field, value",
  [
    ("steps", -5),
    ("optim.lr", float("nan")),
    ("batch_size", 0),
    ("optim.warmup_ratio", 1.5),
    ("accumulate", 3),
    ("data.tree", -1),
    ("data.tree", 10_000),
    ("data.conversation_boxes", "square"),
    ("prompt_format", "v9"),
    ("eval.prompt_format", "v9"),
  ],
)
def test_bad_values_name_the_field(root, field, value):
  config = changed(_config(root), **{field: value})
  with pytest.raises(ValueError, match=field):
    checks.check(config)


@pytest.mark.parametrize(
  "field, value", [("data.pack", 2), ("prompt_format", "plain")]
)
def test_a_tree_is_refused_beside_what_it_excludes(root, field, value):
  config = changed(_config(root), **{"data.tree": 60, field: value})
  with pytest.raises(ValueError, match=f"data.tree=60 with {field}="):
    checks.check(config)


def test_too_many_bad_records_stop_the_run(root):
  config = _config(root)
  text = assemble.load_tokenizer(config)
  make_row = rows_lib.RowMaker(assemble.row_spec(config, text, {}))
  make_row.counts.update(rows=98, skipped=2)
  make_row.skipped = {"a.jpg": "truncated", "b.jpg": "missing"}
  for share in (0.05, 0.01):
    data = setup.Data(
      changed(config, **{"data.max_bad_share": share}), {}, make_row, {}
    )
    if share == 0.05:
      data.check_bad_share()
  with pytest.raises(errors.DataError, match="2 of 100.*a.jpg: truncated"):
    data.check_bad_share()


def test_golden_loss_curve(parts):
  """Twenty steps on one batch; a change of this curve has to be explained.

  `python -m pytest tests/test_train.py -k golden` prints the new values.
  """
  losses, _ = _run(parts, {"data": 4}, steps=20, lr=3e-3)
  print(json.dumps([round(x, 4) for x in losses]))
  path = GOLDEN / "loss_curve.json"
  with open(path) as f:
    np.testing.assert_allclose(losses, json.load(f), rtol=5e-3)


@pytest.mark.parametrize("stored", [False, True], ids=["referred", "stored"])
def test_a_run_with_frozen_weights_resumes_bitwise(
  root, tmp_path, monkeypatch, stored
):
  """Its checkpoints refer to them; those of earlier versions store them."""
  config = _config(root, trainable=("adapter",))
  shape = assemble.model(config).config
  export.save_llava(str(tmp_path / "llava"), params_of(shape), shape)
  config = changed(config, **{"init.llava": str(tmp_path / "llava")})
  workdir = str(tmp_path / "run")
  if stored:
    monkeypatch.setattr(setup.frozen, "reference", lambda *_: None)
  loop.train(config, workdir)
  monkeypatch.undo()
  own = runs.open_params(workdir)[0]
  assert ("llm/embedding" in own) == stored
  wanted = {
    p: x.read() for p, x in initial.open_params(workdir, config.init)[0].items()
  }
  shutil.rmtree(os.path.join(runs.checkpoint_dir(workdir), "2"))
  (tmp_path / "llava").rename(tmp_path / "moved")
  config = changed(config, **{"init.llava": str(tmp_path / "moved")})
  loop.train(config, workdir)
  found = {
    p: x.read() for p, x in initial.open_params(workdir, config.init)[0].items()
  }
  assert _same(found, wanted)


@pytest.mark.parametrize(
  "change",
  [
    {
      "model.llm.base_weights": "nf4",
      "lora.rank": 2,
      "trainable": ("adapter", "llm/layers/.*_lora_[ab]"),
    },
    {"optim.moments": "8bit", "optim.masters": "split"},
    {"optim.masters": "stochastic"},
  ],
  ids=["nf4", "8bit", "stochastic"],
)
def test_a_run_in_few_bytes_resumes_bitwise(root, tmp_path, change):
  config, workdir = _config(root, **change), str(tmp_path / "run")
  loop.train(config, workdir)
  wanted = _params(workdir)
  shutil.rmtree(os.path.join(runs.checkpoint_dir(workdir), "2"))
  loop.train(config, workdir)
  assert _same(_params(workdir), wanted)

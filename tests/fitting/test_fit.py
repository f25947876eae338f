"""Fitting to boxes of one's own: what is found, decided, and run."""

import json
import os
import pathlib
import shutil
import subprocess

import box_files
import pytest
import zygote
from paths import ASSETS

from locvlm_jax import assemble, errors
from locvlm_jax.data.sources import any_format
from locvlm_jax.fitting import division, fit_recipe, survey, what_trains
from locvlm_jax.parallel import sharding
from locvlm_jax.training import recipe
from locvlm_jax.training.room import memory
from locvlm_jax.training.room.layout import Layout


def _scenes(number: int, size=(40, 30)) -> list:
  return [
    (f"{i:02}.png", size, [("cup", (2, 3, 12, 15 + i % 9))] * (i % 2))
    for i in range(number)
  ]


def _files(data) -> list[str]:
  return [row["file_name"] for row in data.content["images"]]


def test_a_tenth_of_the_pictures_is_held_out_by_a_seed(tmp_path):
  path = box_files.write_yolo(tmp_path / "d", _scenes(30))
  first, again = (division.divide(path, "", seed=3) for _ in range(2))
  assert first == again
  assert division.divide(path, "", seed=4) != first
  assert "3 of 30 pictures are drawn with seed 3, and held out" in first.told
  parts = _files(first.train) + _files(first.held_out)
  assert len(first.held_out.content["images"]) == 3
  assert sorted(parts) == [name for name, _, _ in _scenes(30)]
  notes = [p.content["annotations"] for p in (first.train, first.held_out)]
  assert sum(map(len, notes)) == 15


def test_wrong_records_are_named_by_the_file_that_has_them(tmp_path):
  path = box_files.write_coco(tmp_path / "d", _scenes(9))
  file = pathlib.Path(path)
  file.write_text(file.read_text().replace("[2, 3, 10,", "[2, 3, -10,", 1))
  with pytest.raises(errors.DataError, match="coco.json: annotation 0: bbox"):
    division.divide(path, "", seed=0)


def test_parts_have_areas_and_ids_that_pycocotools_reads(tmp_path):
  path = box_files.write_coco(tmp_path / "d", _scenes(9))
  file = pathlib.Path(path)
  file.write_text(file.read_text().replace('"bbox"', '"area": 7, "bbox"', 1))
  divided = division.divide(path, "", seed=0)
  parts = divided.train.content, divided.held_out.content
  notes = [note for part in parts for note in part["annotations"]]
  assert {note["area"] for note in notes} == {7, 150, 170, 190}
  assert all(note["id"] for note in notes)


def test_copies_of_a_picture_by_roboflow_stay_together(tmp_path):
  scenes = [
    (f"{i % 4}_jpg.rf.{i:032x}.png", (9, 8), [("cup", (1, 1, 5, 6))])
    for i in range(12)
  ]
  path = box_files.write_coco(tmp_path / "d", scenes)
  divided = division.divide(path, "", seed=0)
  assert len({name[0] for name in _files(divided.held_out)}) == 1
  assert len(_files(divided.held_out)) == 3


def test_splits_of_the_data_are_kept_and_the_rest_is_told(tmp_path):
  for split, number in (("train", 4), ("valid", 2), ("test", 3)):
    box_files.write_labelme(tmp_path / "d" / split, _scenes(number))
  divided = division.divide(str(tmp_path / "d"), "", seed=0)
  assert len(_files(divided.train)) == 4 and len(_files(divided.held_out)) == 2
  assert "valid is held out, test not used" in divided.told


def test_a_held_out_split_of_the_same_pictures_is_none(tmp_path):
  path = box_files.write_yolo(tmp_path / "d", _scenes(20))
  config = pathlib.Path(path) / "data.yaml"
  config.write_text("train: images\nval: images\nnames: [cup]\n")
  divided = division.divide(path, "", seed=0)
  assert "all pictures of val are in train" in divided.told
  assert len(_files(divided.train)) == 18


def test_one_picture_cannot_be_divided(tmp_path):
  path = box_files.write_csv(tmp_path / "d", _scenes(2)[1:])
  with pytest.raises(errors.DataError, match="1 pictures can't be divided"):
    division.divide(path, "", seed=0)


def _surveyed(folder: pathlib.Path, boxes, size=(200, 100)) -> survey.Survey:
  path = box_files.write_yolo(folder, [("a.png", size, boxes)])
  return survey.survey(any_format.AnyInstances(path, ""), side=50)


def test_the_geometry_shows_what_a_center_crop_would_cut_away(tmp_path):
  left, middle = ("cup", (2, 10, 40, 90)), ("cup", (80, 10, 120, 90))
  dot = ("dot", (99, 50, 100, 51))
  found = _surveyed(tmp_path / "a", [left, middle, dot])
  assert (found.cut, found.tiny, found.unique) == (1, 1, 1)
  said = "\n".join(survey.describe(found))
  assert "cut away 1 boxes (50.0%); 1 are below a pixel" in said
  assert "pictures: 1, 0 of them without an object; from 200 x 100" in said
  assert survey.choose_geometry(found, "center_crop")[0] == "pad"
  for own in ("pad", "square"):
    assert survey.choose_geometry(found, own)[0] == own
  found = _surveyed(tmp_path / "b", [middle])
  assert survey.choose_geometry(found, "center_crop")[0] == "center_crop"


def test_pictures_without_a_single_object_are_a_reason_to_see_each(tmp_path):
  cups = [("cup", (1, 1, 9, 9)), ("cup", (20, 1, 29, 9))]
  found = _surveyed(tmp_path / "a", cups)
  assert (found.unique, found.repeated) == (0, 1)
  per_object, why = survey.choose_rows(found)
  assert not per_object and "1 of 1 pictures with objects" in why
  assert survey.choose_rows(_surveyed(tmp_path / "b", cups[:1]))[0]


def _configs(*fields: str):
  """The configs of all of a Llava, and of a LoRA, as `train` makes them."""
  flags = [f"--config.init.llava={ASSETS / 'micro_base'}", *fields]
  return [
    what_trains.config_of([f"--config=configs/fit.py:stage2,{words}", *flags])
    for words in ("llava", "llava,lora")
  ]


def _needs(config) -> int:
  """What `plan` and `train` estimate for the devices here."""
  mesh = sharding.make_mesh(assemble.mesh_sizes(config))
  kind, shards = mesh.devices.flat[0].device_kind, dict(mesh.shape)
  return memory.memory(config, Layout.of(config), kind, shards).total


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_the_estimate_of_plan_decides_between_all_a_lora_and_neither():
  whole, lora = configs = _configs(
    "--config.batch_size=4", "--config.lora.rank=2"
  )
  # Taken over from the Llava, and set by a flag.
  assert whole.model.llm.width == 128 and whole.batch_size == 4
  all_of_it, less = _needs(whole), _needs(lora)
  assert less < all_of_it
  enough, between = (int(n / 0.9) for n in (all_of_it, less))
  is_lora, why = what_trains.decide(*configs, enough)
  assert not is_lora and why.startswith("all of adapter and LLM are trained")
  is_lora, why = what_trains.decide(*configs, between)
  assert is_lora and why.startswith("a LoRA is trained: by an estimate")
  sizes = (all_of_it, less, between)
  assert [f"{n / 2**30:.2f} GiB" in why for n in sizes] == [True] * 3
  with pytest.raises(ValueError, match="for a LoRA, and only 0.00 GiB") as said:
    what_trains.decide(*configs, 1 << 20)
  assert "smaller --model" in str(said.value)


def test_what_files_cache_counts_as_memory_at_hand(tmp_path):
  said = tmp_path / "meminfo"
  said.write_text("MemFree: 10 kB\nMemAvailable:   2048 kB\n")
  assert what_trains.host_bytes(str(said)) == 2 << 20
  assert what_trains.host_bytes(str(tmp_path / "absent")) > 0


def _fit(folder: pathlib.Path, data: str, **changes) -> fit_recipe.Fit:
  given = {"model": "micro", "seed": 0, "fields": ("steps=3",)} | changes
  words = ("python", "-m", "locvlm_jax.fit")
  return fit_recipe.Fit(data, "", str(folder / "run"), command=words, **given)


_EVALUATION = {
  "config": {
    "trainable": ["adapter"],
    "steps": 3,
    "batch_size": 2,
    "data": {
      "mixture": {"instances": 1.0},
      "instances": "train.json",
      "objectives": {"loc_pred": 1.0},
    },
  },
  "metrics": {"locpred.acc_iou50": 0.5},
  "units": {},
  "versions": {},
}


@pytest.fixture
def calls(monkeypatch):
  """Records the commands; each leaves what the real one would."""
  seen = []

  def fake(line, env):
    seen.append(line[2:])
    flags = dict(x[2:].split("=", 1) for x in line[3:])
    if line[2] == "locvlm_jax.evaluate":
      with open(os.path.join(flags["workdir"], "results.json"), "w") as f:
        json.dump(_EVALUATION, f)
    return subprocess.CompletedProcess(line, 0)

  monkeypatch.setattr(recipe.subprocess, "run", fake)
  return seen


def test_fit_runs_what_train_and_evaluate_run_and_nothing_twice(
  tmp_path, calls, capsys
):
  data = box_files.write_yolo(tmp_path / "d", _scenes(20))
  fit_recipe.run(_fit(tmp_path, data))
  names = [call[0].removeprefix("locvlm_jax.") for call in calls]
  assert names == ["evaluate", "train", "evaluate", "report"]
  before, train, after, _ = calls
  assert f"--workdir={tmp_path}/run/before" in before
  assert any(word.startswith("--llava=") for word in before)
  assert not any(word.startswith("--llava=") for word in train + after)
  for call in calls[:3]:
    assert "--config=configs/fit.py:stage2,micro" in call
    assert "--config.steps=3" in call and "--config.geometry=square" in call
    assert f"--config.data.instances={tmp_path}/run/data/train.json" in call
    assert f"--config.eval.instances={tmp_path}/run/data/held_out.json" in call
  said = capsys.readouterr().out
  assert "YOLO" in said and "train: categories: 1: cup 9" in said
  assert (tmp_path / "run/data/about.txt").read_text() in said
  results = json.loads((tmp_path / "run/results.json").read_text())
  assert list(results["stages"]) == ["before", "stage2"]
  assert (results["before"], results["show"]) == ("before", "stage2")
  fit_recipe.run(_fit(tmp_path, data))
  assert [call[0] for call in calls[4:]] == ["locvlm_jax.report"]


def test_what_is_trained_of_a_llava_is_decided_once(
  tmp_path, calls, monkeypatch
):
  data = box_files.write_yolo(tmp_path / "d", _scenes(20))
  llava = str(ASSETS / "micro_base")
  asked = []

  def choose(*flags) -> tuple[bool, str]:
    asked.append(flags)
    return len(asked) == 1, "because"

  monkeypatch.setattr(what_trains, "choose", choose)
  fit_recipe.run(_fit(tmp_path, data, model=llava))
  whole, lora = asked[0]
  # Of what train is given, no more and no less.
  assert {*lora, f"--workdir={tmp_path}/run/stage2"} == {*calls[1][1:]}
  assert whole[0] == "--config=configs/fit.py:stage2,llava"
  assert whole[1:] == lora[1:] and "--config.steps=3" in whole
  assert "--config=configs/fit.py:stage2,llava,lora" in calls[1]
  fit_recipe.run(_fit(tmp_path, data, model=llava))
  assert len(calls) == 5  # the page alone is made again
  (tmp_path / "run/data/words.json").unlink()
  fit_recipe.run(_fit(tmp_path, data, model=llava))
  assert "--config=configs/fit.py:stage2,llava" in calls[6]


def test_a_llava_in_another_layout_is_refused_with_the_next_step(tmp_path):
  (tmp_path / "m").mkdir()
  with pytest.raises(errors.DataError, match=r"m/config.json: No such file"):
    fit_recipe.base_of(str(tmp_path / "m"))
  (tmp_path / "m" / "config.json").write_text('{"model_type": "llava_llama"}')
  with pytest.raises(errors.DataError, match=r"m: .* locvlm_jax.convert makes"):
    fit_recipe.base_of(str(tmp_path / "m"))


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"model": "no/such"}, "--model=no/such: no such directory"),
    ({"fields": ("steps",)}, "--set=steps: write FIELD=VALUE"),
    ({"data": "no/such"}, "no/such: no such file"),
  ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_runs(
  tmp_path, calls, changes, message
):
  data = box_files.write_csv(tmp_path / "d", _scenes(9))
  with pytest.raises(ValueError, match=message):
    fit_recipe.run(_fit(tmp_path, **({"data": data} | changes)))
  assert not calls and not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["", ":train"])
def test_a_run_among_the_data_is_refused(tmp_path, split):
  data = box_files.write_labelme(tmp_path / "d" / "train", _scenes(9))
  folder = str(tmp_path / "d") + split
  with pytest.raises(ValueError, match="--out=.*/run: is within --data="):
    fit_recipe.run(_fit(pathlib.Path(data), folder))
  assert not (pathlib.Path(data) / "run").exists()


@pytest.mark.slow
def test_fit_goes_from_a_yolo_folder_to_a_page_and_can_be_run_again(tmp_path):
  data = box_files.write_yolo(tmp_path / "d", _scenes(40))
  fields = ("steps=2", "checkpoint_every=2", "eval.samples=4",
            "eval.batch_size=4")  # fmt: skip
  flags = [f"--data={data}", f"--out={tmp_path / 'run'}"]
  flags += [f"--set={field}" for field in fields]
  for _ in range(2):
    done = zygote.run("fit", *flags)
    assert done.returncode == 0, done.stderr
  assert done.stdout.count("finished before") == 3
  page = (tmp_path / "run" / "report.html").read_text()
  assert "before" in page and "stage2" in page and "data:image/" in page


def _foreign_llava(folder: pathlib.Path) -> str:
  """A Llava in Hugging Face's layout that says nothing of its training."""
  folder.mkdir()
  for file in (ASSETS / "micro_base").iterdir():
    if file.name != "origin.json":
      shutil.copy(file, folder)
  return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["llava", "llava,lora"])
def test_fit_takes_a_llava_of_others_whole_and_by_a_lora(tmp_path, words):
  data = box_files.write_yolo(tmp_path / "d", _scenes(40))
  model = _foreign_llava(tmp_path / "llava")
  decided = tmp_path / "run" / "data" / "words.json"
  decided.parent.mkdir(parents=True)
  decided.write_text(json.dumps(words))
  fields = ("steps=2", "batch_size=4", "checkpoint_every=2", "eval.samples=4",
            "eval.batch_size=4")  # fmt: skip
  flags = [f"--set={field}" for field in fields]
  done = zygote.run(
    "fit", f"--data={data}", f"--out={tmp_path / 'run'}", f"--model={model}",
    *flags,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  trained = results["stages"]["stage2"]["trained_on"]
  assert ("lora" in trained) == ("lora" in words)
  assert (tmp_path / "run" / "stage2" / "detect_results.json").exists()

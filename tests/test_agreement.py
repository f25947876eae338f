"""Weights are used as they were trained, by every command, or not at all."""

import json
import pathlib
import shutil

import pytest
from changed import changed
from converted import to_hf
from small_tokenizer import TOKENIZER
from stored_run import write
from zygote import run

import locvlm_jax
from configs import locvlm_l, locvlm_vid_b, micro
from locvlm_jax import agreement, errors
from locvlm_jax.config import Config
from locvlm_jax.evals import session
from locvlm_jax.inference import predictor
from locvlm_jax.training import loop
from locvlm_jax.weights import meaning

TINY = "--config=configs/micro.py:stage2,tiny"
# {field: (as the run was trained, what contradicts it)}.
FIELDS = {
  "model.llm.theta": (1e6, 1e4),
  "coords.form": ("nfp", "ivb"),
  "geometry": ("pad", "square"),
  "prompt_format": ("v1", "bare"),
  "video.frames": (3, 2),
}
TRAINED = {name: trained for name, (trained, _) in FIELDS.items()}


def _config(root: str = "", **fields) -> Config:
  config = micro.get_config("stage2,tiny")
  config.root = root
  # Each of the four devices of the tests gets one.
  config.model.vision.num_heads = config.model.llm.num_kv_heads = 4
  return changed(config, **fields)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
  """A run, its export, and a tokenizer that is not theirs."""
  folder = tmp_path_factory.mktemp("places")
  TOKENIZER.save(folder / "other")
  trained = write(folder / "run", _config(**TRAINED))
  return {
    "OTHER": str(folder / "other"),
    "RUN": trained,
    "LLAVA": to_hf(trained, folder / "llava"),
    "NEW": str(folder / "new"),
  }


COMMANDS = (
  "evaluate TINY --workdir=RUN",
  "evaluate TINY --workdir=NEW --llava=LLAVA",
  "generate TINY --prompt=x --checkpoint=RUN",
  "generate TINY --prompt=x --checkpoint=LLAVA",
  "convert TINY --input=RUN --output=NEW",
  "convert TINY --input=LLAVA --output=NEW",
  "convert TINY --input=RUN --output=NEW --to=ours",
  "convert TINY --input=LLAVA --output=NEW --to=ours",
  "pseudo_label TINY --mode=self_training --out=NEW --workdir=RUN",
  "pseudo_label TINY --mode=self_training --out=NEW --llava=LLAVA",
  "train TINY --workdir=NEW --config.init.checkpoint=RUN",
  "train TINY --workdir=NEW --config.init.llava=LLAVA",
  "reproduce --config=configs/micro.py:tiny --workdir=NEW --stages=stage2"
  " --config.init.checkpoint=RUN",
)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_flag_that_contradicts_the_weights_is_refused_by_every_command(
  line, places
):
  """One line names each field with both of its values."""
  words = line.replace("TINY", TINY).split()
  for name, path in places.items():
    words = [w.replace(name, path) for w in words]
  flags = [f"--config.{n}={against}" for n, (_, against) in FIELDS.items()]
  done = run(*words, *flags, f"--config.tokenizer={places['OTHER']}")
  (said,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
  assert done.returncode == 78 and "Traceback" not in done.stderr
  for name, (trained, against) in FIELDS.items():
    assert f"{name}={against!r} (there: {trained!r})" in said
  assert f"tokenizer={places['OTHER']!r} (there: " in said
  assert "--override=" in said


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_alone_is_refused_or_overridden(name, start, places):
  directory, (trained, against) = places["RUN"], FIELDS[name]
  config = _config(**TRAINED | {name: against})
  pattern = rf"{name}={against!r} \(there: {trained!r}\)\. Leave"
  with pytest.raises(ValueError, match=pattern):
    agreement.adopt(config, directory, {name}, start=start)
  with pytest.raises(ValueError, match=pattern):
    agreement.check(config, directory, start=start)
  for allowed in (name, name.split(".")[0]):
    kept = agreement.adopt(config, directory, {name}, [allowed], start=start)
    assert agreement.check(kept, directory, start=start) == {
      name: {"trained": trained, "used": against}
    }


@pytest.mark.parametrize("place", ["RUN", "LLAVA"])
def test_what_the_command_line_does_not_say_is_taken_from_the_weights(
  place, places, capsys
):
  config = agreement.adopt(_config(), places[place], {"eval.samples"})
  assert agreement.check(config, places[place]) == {}
  assert config.coords.form == "nfp" and config.geometry == "pad"
  assert config.model.llm.theta == 1e6 and config.video.frames == 3
  assert config.prompt_format == "v1"
  assert "was trained: " in capsys.readouterr().err


def test_a_results_file_says_what_was_used_and_what_was_overridden(
  places, tmp_path, microworld, monkeypatch
):
  def answer(self, questions):
    return [""] * len(questions)

  monkeypatch.setattr(predictor.Predictor, "__call__", answer)
  config = _config(microworld(num_train=1, num_val=2))
  shared = (config, places["LLAVA"], {"coords.form"}, ["coords"])
  config = agreement.adopt(*shared)
  session.evaluate(config, str(tmp_path), ["revloc"], places["LLAVA"])
  results = json.loads((tmp_path / "results.json").read_text())
  found = {"coords.form": {"trained": "nfp", "used": "ivb"}}
  assert results["origin"]["overridden"] == found
  assert results["config"]["geometry"] == "pad"
  assert results["config"]["model"]["llm"]["theta"] == 1e6


def test_a_program_without_a_command_line_is_refused_too(places, tmp_path):
  config = _config()
  message = r"geometry='square' \(there: 'pad'\)"
  with pytest.raises(ValueError, match=message):
    locvlm_jax.load(places["RUN"], config=config)
  with pytest.raises(ValueError, match=message):
    loop.train(
      changed(config, **{"init.checkpoint": places["RUN"]}), str(tmp_path)
    )
  assert locvlm_jax.load(places["RUN"]).predictor.spec.geometry == "pad"


@pytest.mark.parametrize("name", ["coord", "optim.lr", "video.cache"])
def test_a_name_that_no_weights_depend_on_cannot_be_overridden(name, places):
  with pytest.raises(ValueError, match=f"--override={name}: not model, coords"):
    agreement.adopt(_config(), places["RUN"], (), [name])


# ------------------------------------------------------ from stage to stage


def _written(tmp_path, config: Config) -> str:
  return write(tmp_path / config.stage, config)


def test_a_stage_goes_its_own_way_where_its_config_says_so(tmp_path):
  """LocVLM-L pads from stage 2 on; captions have no question to format."""
  words = {"tokenizer": micro.BASE, "model.llm.vocab_size": 1024}
  one = changed(locvlm_l.get_config("stage1,tiny"), **words)
  two = changed(locvlm_l.get_config("stage2,tiny"), **words)
  three = changed(locvlm_vid_b.get_config("tiny"), **words)
  first = _written(tmp_path, one)
  assert agreement.adopt(two, first, start=True).geometry == "pad"
  assert agreement.adopt(two, first, start=True).prompt_format == "v1"
  video = agreement.adopt(three, first, start=True)
  assert video.video.frames == three.video.frames
  assert video.geometry == "square" and video.coords.num_bins == 336
  assert video.prompt_format == video.eval.prompt_format == "v1"


def test_training_may_add_a_lora_and_keeps_that_of_a_run(tmp_path):
  plain, lora = _config(), _config(**{"lora.rank": 2, "stage": "lora"})
  first = _written(tmp_path, plain)
  assert agreement.adopt(lora, first, start=True).lora.rank == 2
  second = _written(tmp_path, lora)
  assert agreement.adopt(plain, second, start=True).lora.rank == 2
  with pytest.raises(ValueError, match=r"lora.rank=0 \(there: 2\)"):
    agreement.check(plain, second)
  merged = to_hf(second, tmp_path / "merged")
  assert agreement.recorded(merged).lora.rank == 0


# -------------------------------------------------------------- tokenizers


def test_a_tokenizer_that_has_moved_is_known_by_what_it_does(tmp_path, places):
  moved = str(shutil.copytree(micro.BASE, tmp_path / "moved"))
  config = _config(**{"tokenizer": moved})
  kept = agreement.adopt(config, places["RUN"], {"tokenizer"})
  assert kept.tokenizer == moved
  # An export adds <image>, and its files are written anew.
  text = meaning.fingerprint(places["LLAVA"])
  assert (
    text == meaning.fingerprint(moved) != meaning.fingerprint(places["OTHER"])
  )


def test_a_tokenizer_that_is_gone_or_has_changed_is_told(tmp_path):
  words = shutil.copytree(micro.BASE, tmp_path / "words")
  trained = write(tmp_path / "run", _config(**{"tokenizer": str(words)}))
  TOKENIZER.save(words)
  with pytest.raises(ValueError, match="tokenizer .*words, which has changed"):
    agreement.adopt(_config(**{"tokenizer": str(words)}), trained)
  with pytest.raises(ValueError, match="words, which has changed"):
    locvlm_jax.load(trained)
  shutil.rmtree(words)
  with pytest.raises(ValueError, match="not there: set --config.tokenizer"):
    agreement.adopt(_config(**{"tokenizer": ""}), trained)
  config = agreement.adopt(_config(), trained)  # the same one, elsewhere
  assert config.tokenizer == micro.BASE


# ------------------------------------------------------- directories of others


def _llava(places, folder: pathlib.Path, **fields) -> str:
  """The export as if others had made it: without origin.json."""
  shutil.copytree(places["LLAVA"], folder)
  (folder / "origin.json").unlink()
  content = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(content | fields))
  return str(folder)


def test_a_llava_of_others_says_its_shape_and_how_it_cuts_pictures(
  places, tmp_path
):
  plain = _llava(places, tmp_path / "plain")
  config = agreement.adopt(_config(), plain)
  assert config.model.llm.theta == 1e6  # in its config.json
  assert config.geometry == "square"  # is not, and the config decides
  padded = _llava(places, tmp_path / "pad", image_aspect_ratio="pad")
  assert agreement.adopt(_config(), padded).geometry == "pad"
  with pytest.raises(ValueError, match=r"geometry='square' \(there: 'pad'\)"):
    agreement.adopt(_config(), padded, {"geometry"})
  tiles = _llava(places, tmp_path / "tiles", image_aspect_ratio="anyres")
  with pytest.raises(ValueError, match="image_aspect_ratio 'anyres'; only"):
    agreement.adopt(_config(), tiles)


def test_what_others_made_is_asked_as_a_whole(places, tmp_path):
  """One of LLaVA's own has to be converted; a LoRA needs its weights."""
  own = tmp_path / "own"
  own.mkdir()
  (own / "config.json").write_text('{"mm_projector_type": "linear"}')
  with pytest.raises(ValueError, match="own: neither a run nor .*convert"):
    agreement.adopt(_config(), str(own))
  config = _config(**{"lora.rank": 2, "eval.override": ("lora",)})
  config = agreement.adopt(config, places["LLAVA"])
  with pytest.raises(ValueError, match="no file gives 14 parameters .*_lora_a"):
    locvlm_jax.load(places["LLAVA"], config=config)


# ---------------------------------------------------------- a path of nothing


def test_a_path_that_is_no_model_is_told_with_what_was_meant(places):
  inside = str(pathlib.Path(places["RUN"], "checkpoints", "1"))
  for path, message in (
    ("/typo", "/typo: no such directory: name a run's workdir or a Llava"),
    (inside, f"lies in the run {places['RUN']}: name that"),
    (inside + "00", f"lies in the run {places['RUN']}: name that"),
  ):
    for config in (None, _config()):
      with pytest.raises(errors.DataError, match=message):
        locvlm_jax.load(path, config=config)

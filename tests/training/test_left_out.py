"""The start of training says which records show images that are tested."""

import json

from changed import changed
from paths import ASSETS

from configs import micro
from locvlm_jax.data.exclude import exclusion
from locvlm_jax.data.sources import coco
from locvlm_jax.training import data_hashes, setup


def test_the_start_of_training_names_what_is_left_out(microworld, tmp_path):
  root = microworld(num_train=2, num_val=8)
  with open(f"{root}/annotations/instances_train.json") as f:
    images = json.load(f)["images"]
  tested = tmp_path / "tested.json"
  tested.write_text(json.dumps([{"image": images[0]["file_name"]}]))
  c = micro.get_config("stage2")
  c.root, c.tokenizer = root, str(ASSETS / "micro_base")
  mixture = {f"data.mixture.{n}": 0.0 for n in c.data.mixture}
  mixture["data.mixture.instances"] = 1.0
  line, *_ = setup.Data.open(changed(c, **mixture)).left_out()
  assert line.startswith("nothing is left out of training: no image of ")
  with_one = mixture | {"data.exclude": (str(tested),)}
  line, *_ = setup.Data.open(changed(c, **with_one)).left_out()
  assert line.startswith("left out of training: ")
  assert "records of instances, whose images are tested: " in line
  assert line.endswith(f" in {tested}")
  alone = mixture | {"data.exclude_eval": False}
  line, *_ = setup.Data.open(changed(c, **alone)).left_out()
  assert "no evaluation set is named" in line


def test_hosts_that_leave_out_other_records_differ(microworld):
  """As where one of them has the tested pictures and another has not."""
  root = microworld(num_train=2, num_val=8)
  annotations = f"{root}/annotations/instances_train.json"
  source = coco.Instances(annotations, f"{root}/images/train")
  found = [
    data_hashes._of_left_out(
      {"instances": exclusion.WithoutExcluded(source, exclusion.Found(by_file))}
    )
    for by_file in ({}, {1: "a.json"}, {1: "b.json"}, {0: "a.json"})
  ]
  assert found[1] == found[2] and len(set(found)) == 3

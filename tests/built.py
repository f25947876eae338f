"""The build_data command, run by a fork."""

import json
import pathlib

from zygote import run


def build(instances, images, out, *options):
  done = run(
    "build_data",
    f"--instances={instances}",
    f"--images={images}",
    f"--out={out}",
    *options,
  )
  assert done.returncode == 0, done.stderr
  summary = json.loads(pathlib.Path(f"{out}.summary.json").read_text())
  lines = pathlib.Path(out).read_text(encoding="utf-8").splitlines()
  rows = [json.loads(line) for line in lines]
  return rows, summary

"""Times `build_data` on a file of COCO 2017's size.

  python -m benchmarks.build_data

Generates 118,287 images and 860,001 annotations of 80 categories, polygons
included, and runs the command on them. Prints its summary, its seconds, the
seconds of all cores (fewer than the cores had: they were shared), and its peak
memory.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

NUM_IMAGES, NUM_ANNOTATIONS, NUM_CATEGORIES = 118_287, 860_001, 80


def annotations(rng: np.random.Generator) -> list[dict]:
  """Draws boxes; some categories are far more frequent, as in COCO."""
  n = NUM_ANNOTATIONS
  share = 1 / np.arange(1, NUM_CATEGORIES + 1)
  categories = 1 + rng.choice(NUM_CATEGORIES, n, p=share / share.sum())
  images = rng.integers(0, NUM_IMAGES, n)
  corner = rng.uniform(0, [500, 380], (n, 2)).round(2)
  size = rng.uniform(4, [139, 99], (n, 2)).round(2)
  crowds = rng.random(n) < 0.01
  polygon = rng.uniform(0, 480, 24).round(2).tolist()
  return [
    {
      "id": i,
      "image_id": int(images[i]),
      "category_id": int(categories[i]),
      "bbox": [*corner[i].tolist(), *size[i].tolist()],
      "iscrowd": int(crowds[i]),
      "area": float(size[i].prod()),
      "segmentation": [polygon],
    }
    for i in range(n)
  ]


def write(path: str) -> None:
  """Writes the annotation file."""
  images = [
    {"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480}
    for i in range(NUM_IMAGES)
  ]
  categories = [
    {"id": i, "name": f"thing {i}"} for i in range(1, NUM_CATEGORIES + 1)
  ]
  content = {
    "images": images,
    "categories": categories,
    "annotations": annotations(np.random.default_rng(0)),
  }
  with open(path, "w", encoding="utf-8") as f:
    json.dump(content, f)


def main() -> None:
  """Prints what the command took."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "instances.json")
    write(path)
    print(f"{os.path.getsize(path) / 2**20:,.0f} MiB of annotations")
    began = time.monotonic()
    subprocess.run(
      [
        sys.executable,
        "-m",
        "locvlm_jax.build_data",
        f"--instances={path}",
        f"--images={folder}",
        f"--out={folder}/out.jsonl",
      ],
      check=True,
    )
    seconds = time.monotonic() - began
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  cores, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
  print(f"{seconds:.1f} s, {cores:.1f} s of cores, peak {peak:.2f} GiB")


if __name__ == "__main__":
  main()

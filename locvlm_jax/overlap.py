"""Counts the images that files share: `python -m locvlm_jax.overlap FILE FILE`.

Files of COCO, VQA, POPE, RefCOCO or LLaVA, json or jsonl, plain or gzip.
Images are the same if COCO's id is, or Visual Genome's, whatever split their
names say.
"""

from locvlm_jax import command


def main(argv: list[str]) -> None:
  """Prints a table: each file's number of images, and each pair's."""
  from locvlm_jax.data.exclude import leakage

  if len(argv) < 2:
    raise ValueError("name the files to compare.")
  print(leakage.table(argv[1:]))


if __name__ == "__main__":
  command.run(main, takes_arguments=True)

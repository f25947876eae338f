"""Shows what training sees: `python -m locvlm_jax.data.inspect --config F`.

Prints the first rows of the training stream as text, what is trained on
between « and » (in color on a terminal), and writes the model's own input of
each with the locations that its text holds drawn in.
"""

import os
import sys

from absl import flags

from locvlm_jax import command

command.define_config()
_ROWS = flags.DEFINE_integer("rows", 8, "How many rows to show.", 1)
_OUT = flags.DEFINE_string(
  "out", "runs/inspect", "The folder to write the pictures to."
)


def main(argv: list[str]) -> None:
  """Prints a paragraph and writes a picture for each row."""
  del argv
  from locvlm_jax import assemble, checks
  from locvlm_jax.data import rendering, stream
  from locvlm_jax.data import rows as rows_lib
  from locvlm_jax.data.exclude import exclusion
  from locvlm_jax.text import coords

  config = command.config()
  checks.check(config)
  sources = assemble.training_sources(config)
  left_out = exclusion.describe(sources, assemble.test_sets(config))
  print(*left_out, sep="\n", end="\n\n")
  text = assemble.load_tokenizer(config)
  spec = assemble.row_spec(config, text, sources)
  make_row = rows_lib.RowMaker(spec)
  rows = stream.train_iterator(
    sources,
    make_row,
    stream.StreamSpec(
      dict(config.data.mixture),
      batch_size=1,
      seed=config.seed,
      mix_by=config.data.mix_by,
      threads=0,
    ),
  )
  print(*sources.values(), sep="\n", end="\n\n")
  os.makedirs(_OUT.value, exist_ok=True)
  form = coords.Coords(**config.coords)
  for number, row in zip(range(_ROWS.value), rows, strict=False):
    row = {name: value[0] for name, value in row.items()}
    shown = rendering.marked_text(row, text, sys.stdout.isatty())
    print(rendering.header(row, spec), shown, sep="\n", end="\n\n")
    path = os.path.join(_OUT.value, f"{number:03}.png")
    rendering.picture(row, shown, form).save(path)
  print(f"{_OUT.value}: {_ROWS.value} pictures; {dict(make_row.counts)}")
  for name, why in make_row.skipped.items():
    print(f"skipped {name}: {why}")


if __name__ == "__main__":
  command.run(main, required=["config"])

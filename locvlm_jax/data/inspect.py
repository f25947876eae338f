"""What training sees: `python -m locvlm_jax.data.inspect --config F`.

Prints the first rows of the training stream as text, what is trained on
between « and » (in colour on a terminal), and writes the model's own input of
each with the locations that its text holds drawn in.
"""

import os
import sys

from absl import flags

from locvlm_jax import command

_ROWS = flags.DEFINE_integer("rows", 8, "How many.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/inspect", "Folder of the pictures.")


def main(argv: list[str]) -> None:
  """A paragraph and a picture for each row."""
  del argv
  from PIL import Image

  from locvlm_jax import assemble, checks
  from locvlm_jax.data import rows as rows_lib
  from locvlm_jax.data import stream
  from locvlm_jax.text import coords

  config = command.config()
  checks.check(config)
  data = config.data
  sources = assemble.training_sources(config)
  text = assemble.load_tokenizer(config)
  spec = assemble.row_spec(config, text, sources)
  make_row = rows_lib.RowMaker(spec)
  rows = stream.train_iterator(
    sources,
    dict(data.mixture),
    make_row,
    batch_size=1,
    seed=config.seed,
    threads=0,
    mix_by=data.mix_by,
  )
  os.makedirs(_OUT.value, exist_ok=True)
  form = coords.Coords(**config.coords)
  for number, row in zip(range(_ROWS.value), rows, strict=False):
    row = {name: value[0] for name, value in row.items()}
    shown = marked(row, text, sys.stdout.isatty())
    print(header(row, spec), shown, sep="\n", end="\n\n")
    path = os.path.join(_OUT.value, f"{number:03}.png")
    picture = Image.fromarray(still(row)).resize((512, 512))
    draw(picture, shown, form).save(path)
  print(f"{_OUT.value}: {_ROWS.value} pictures; {dict(make_row.counts)}")
  for name, why in make_row.skipped.items():
    print(f"skipped {name}: {why}")


def still(row: dict):
  """A row's image, or the frame in the middle of its video."""
  image = row["images"][0]
  return image[row["frames"][0] // 2] if "frames" in row else image


def header(row: dict, spec) -> str:
  """The example's index and how much of the row it takes."""
  used, trained = int(row["lengths"]), int(row["loss_mask"].sum())
  visual = int((row["tokens"] == -1).sum())
  return (
    f"example {int(row['example'])}: {used} of {spec.length} positions,"
    f" {visual} visual, {trained} trained"
    + ("" if row["valid"] else "  (a record that can't be used)")
  )


def marked(row: dict, text, colour: bool = False) -> str:
  """The text of a row with what is trained marked, stops included."""
  start, end = ("\033[32m", "\033[0m") if colour else ("«", "»")
  tokens = row["tokens"][: int(row["lengths"])].tolist()
  mask = row["loss_mask"][: len(tokens)].tolist()
  parts, first = [], 0
  for i in range(1, len(tokens) + 1):
    if i < len(tokens) and _kind(tokens, mask, i) == _kind(tokens, mask, first):
      continue
    kind, run = _kind(tokens, mask, first), tokens[first:i]
    said = f"<{len(run)} visual>" if kind == "image" else _said(run, text)
    parts.append(f"{start}{said}{end}" if kind == "trained" else said)
    first = i
  return "".join(parts)


def _kind(tokens: list[int], mask: list[bool], i: int) -> str:
  return "image" if tokens[i] < 0 else "trained" if mask[i] else "given"


def _said(tokens: list[int], text) -> str:
  """Text with EOS written out where it is."""
  ended = tokens[-1] == text.eos_id
  return text.decode(tokens) + ("</s>" if ended else "")


def draw(picture, text: str, form):
  """Every location of the text, drawn on the square picture."""
  import re

  from PIL import ImageDraw

  pen, side = ImageDraw.Draw(picture), picture.size[0]
  for written in re.findall(r"\[[^\]]*\]", text):
    value, _ = form.parse(written)
    if value is not None and len(value) == 4:
      pen.rectangle([v * side for v in value], outline="red", width=3)
    elif value is not None:
      pen.circle([v * side for v in value], 6, outline="red", width=3)
    if value is not None:
      pen.text([v * side + 5 for v in value[:2]], written, "red")
  return picture


if __name__ == "__main__":
  command.run(main)

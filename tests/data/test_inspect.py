"""The command that shows what training sees."""

import numpy as np
from PIL import Image
from row_specs import row_spec

from locvlm_jax.data import rendering, rows


def test_inspected_rows_mark_what_is_trained(world, text):

  spec = row_spec(text, text_length=200)
  make = rows.RowMaker(spec)
  row = make(world.source()[1], np.random.default_rng(0))
  row["example"] = np.int32(7)
  shown = rendering.marked_text(row, text)
  assert "<4 visual>" in shown and shown.endswith("</s>»")
  trained = [part.split("»")[0] for part in shown.split("«")[1:]]
  said = text.decode(row["tokens"][row["loss_mask"]]).split()
  assert " ".join(trained).replace("</s>", "").split() == said
  used = int(row["lengths"])
  assert rendering.header(row, spec).startswith(f"example 7: {used} of 204")
  picture = Image.new("RGB", (96, 96))
  drawn = rendering.draw(picture, "At [8,8,24,24].", spec.coords)
  # Bins 8 and 24 of 32: the frame is at 8.5 / 32 and 24.5 / 32 of 96 pixels.
  assert drawn.getpixel((25, 50)) == (255, 0, 0)
  assert drawn.getpixel((50, 50)) == (0, 0, 0)

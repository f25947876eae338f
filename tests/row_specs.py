"""What a row of the tests holds."""

from locvlm_jax.data import rows
from locvlm_jax.text import coords, formats


def row_spec(text, **change) -> rows.RowSpec:
  fields = {
    "tokenizer": text,
    "format": formats.FORMATS["bare"],
    "coords": coords.Coords("ivb", 32, "box"),
    "geometry": "square",
    "image_size": 32,
    "num_visual": 4,
    "text_length": 60,
    "max_pairs": 4,
    "weights": (1.0, 1.0, 1.0),
    "vocabulary": ("cup", "ball", "star"),
  }
  return rows.RowSpec(**{**fields, **change})

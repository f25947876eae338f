"""Whether the locations of a built data set are those that a run trains.

`build_data` writes locations as text, in one form, for one square; beside its
jsonl is a summary that says which.
"""

import dataclasses
import os

from locvlm_jax import errors
from locvlm_jax.data import reading
from locvlm_jax.text.coords import Coords


@dataclasses.dataclass(frozen=True)
class Locations:
  """How a run writes locations.

  Attributes:
    coords: their form.
    geometry: how an image becomes the model's square.
    image_size: the side of that square, in pixels.
  """

  coords: Coords
  geometry: str
  image_size: int

  def settings(self) -> dict[str, object]:
    """Names them as `build_data` does, and by the config's fields."""
    binned = {} if self.coords.form == "nfp" else {"num_bins": "num_bins"}
    names = {"coords": "form", "location": "location", **binned}
    found = {k: getattr(self.coords, name) for k, name in names.items()}
    return {**found, "geometry": self.geometry, "image_size": self.image_size}


def check(path: str, wanted: Locations) -> None:
  """Refuses a data set that was built for other locations.

  One without a summary, such as LLaVA's conversations, is no such data set.

  Raises:
    DataError: names the setting, and both values.
  """
  summary = f"{path}.summary.json"
  if not os.path.exists(summary):
    return
  content = reading.read_json(summary)
  settings = content.get("settings") if isinstance(content, dict) else None
  if not isinstance(settings, dict):
    raise errors.DataError(f"{summary}: has no settings; build the data again.")
  if wanted.coords.fixed_width:
    raise errors.DataError(
      f"{path} was built without leading zeros, and this run has"
      " coords.fixed_width=True: set it to False."
    )
  for name, value in wanted.settings().items():
    if settings.get(name, value) != value:
      raise errors.DataError(
        f"{path} was built with --{name}={settings[name]}, and this run has"
        f" {name}={value}: build it again, or change the run's config."
      )

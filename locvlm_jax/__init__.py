"""LocVLM in JAX: a visual LLM that reads and writes image coordinates as text.

The paper is "Learning to Localize Objects Improves Spatial Reasoning in
Visual-LLMs" (CVPR 2024). Every command explains itself:
`python -m locvlm_jax.train --help`. From Python:

  import locvlm_jax
  model = locvlm_jax.load()                # or a run's folder, or a Llava's
  model.answer("scene.jpg", "What is closest to the cup?")
  model.locate("scene.jpg", "the cup").box  # in pixels
"""

import pathlib

__version__ = "0.1.0"

ASSETS = pathlib.Path(__file__).parent / "assets"


def load(directory: str = "", **options):
  """Loads a model to ask: see `locvlm_jax.inference.model.Model.load`."""
  # Late: `import locvlm_jax` alone needs no jax.
  from locvlm_jax.inference.model import Model

  return Model.load(directory, **options)

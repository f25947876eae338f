"""LocVLM in JAX: a visual LLM that reads and writes image coordinates as text.

The paper is "Learning to Localize Objects Improves Spatial Reasoning in
Visual-LLMs" (CVPR 2024). Every command explains itself:
`python -m locvlm_jax.train --help`.
"""

import pathlib

__version__ = "0.1.0"

ASSETS = pathlib.Path(__file__).parent / "assets"

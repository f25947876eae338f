"""Where things lie in the repository."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden"
ASSETS = ROOT / "locvlm_jax/assets"

"""Measurements: `python -m locvlm_jax.bench NAME --help`."""

"""What the convert command does, in this process."""

from locvlm_jax import assemble, provenance
from locvlm_jax.weights import conversion


def to_hf(directory, output, vision="", base="", tokenizer="", dtype=None):
  """Converts a directory into Hugging Face's layout, and returns `output`."""
  inputs = conversion.Inputs(str(directory), vision, base)
  opened = conversion.open_model(inputs, assemble.model, provenance.versions)
  conversion.write_hf(opened, str(output), tokenizer, dtype)
  return str(output)

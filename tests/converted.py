"""The convert command, run in this process."""

from absl import flags
from absl.testing import flagsaver

from locvlm_jax import convert


def to_hf(directory, output, **options):
  """Runs the command in this process."""
  flags.FLAGS.unparse_flags()
  flags.FLAGS(["convert", f"--output={output}"])
  with flagsaver.flagsaver(input=str(directory), output=str(output), **options):
    convert.main([])
  return str(output)

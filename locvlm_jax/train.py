"""Trains one stage: `python -m locvlm_jax.train --config F --workdir DIR`.

From `init.checkpoint` or `init.llava` it takes model, coords, geometry,
prompt_format, tokenizer and video too.

Run again with the same arguments it resumes from the newest checkpoint, and
goes on exactly where it stopped. The workdir receives

  checkpoints/      parameters, optimizer, position in the data, config
  metrics.jsonl     one line every `log_every` steps; also for TensorBoard
  incidents.jsonl   the examples of steps that were skipped, or a spike
  config.json       every field as resolved
  parameters.txt    shape, dtype and sharding of each parameter
  profile/          traces of the steps that `config.profile` names

With --replay STEP it computes that step again, exactly as it was, from the
newest checkpoint before it, prints its numbers and examples, and writes
nothing. Exit codes are listed in `locvlm_jax/errors.py`.
"""

from absl import flags

from locvlm_jax import command

command.define_config()
command.define_workdir("The folder that keeps the run.")
_REPLAY = flags.DEFINE_integer(
  "replay", 0, "Compute this step again and write nothing; 0: train.", 0
)

_OVERRIDE = command.define_override()


def main(argv: list[str]) -> None:
  """Trains, or replays a step."""
  del argv
  from locvlm_jax import agreement, before_jax
  from locvlm_jax.training import loop

  before_jax.keep_memory()
  config, workdir = command.config(), command.workdir()
  config = agreement.adopt_start(config, command.said(), _OVERRIDE.value)
  loop.train(config, workdir, _REPLAY.value)


if __name__ == "__main__":
  command.run(main, required=["config", "workdir"])

"""From annotations to batches; nothing here imports jax."""

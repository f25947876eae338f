"""Whether a training step fits on a device, and what does."""

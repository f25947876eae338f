"""Whether a training step has room in a device's memory, and what has."""

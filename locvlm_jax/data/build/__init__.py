"""Training data on disk: Localize-Instruct."""

"""Text: coordinates, wordings, conversation formats, tokens; no jax here."""

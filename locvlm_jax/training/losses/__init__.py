"""Losses beside the cross-entropy of tokens."""

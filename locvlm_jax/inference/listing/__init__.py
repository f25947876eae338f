"""Answers that list every location of some categories."""

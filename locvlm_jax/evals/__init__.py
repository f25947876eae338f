"""Evaluation: tasks, their scores, and the session that asks."""

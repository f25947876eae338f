"""Scores of answers, equal to the official programs' where there is one."""

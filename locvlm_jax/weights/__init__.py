"""Weights in other projects' layouts: key tables, readers and writers."""

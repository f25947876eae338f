"""Readers of other people's annotations: boxes about pictures, by format."""

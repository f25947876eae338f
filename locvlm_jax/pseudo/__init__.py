"""Pseudo-data (paper, Section 3.4): captions and boxes that models make."""

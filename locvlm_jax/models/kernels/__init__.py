"""Attention of packed rows and on TPUs."""

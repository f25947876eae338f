"""Weights in Hugging Face's and LLaVA's layouts: tables, readers, writers."""

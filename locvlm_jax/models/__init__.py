"""The model: attention, CLIP ViT, adapter, LLaMA, and LocVLM of them all."""

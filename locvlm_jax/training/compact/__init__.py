"""An optimizer's state in fewer bytes, for full fine-tuning on one device."""

"""The padded square of LocVLM, for towers whose own mean is another color.

transformers reads this file beside the weights, with trust_remote_code=True.
"""

from transformers import LlavaImageProcessorPil

PAD_COLOR = (122, 116, 104)  # CLIP's mean color, as in training


class LocvlmImageProcessor(LlavaImageProcessorPil):
  """Pads with CLIP's mean color and normalizes as preprocessor_config says."""

  def pad_to_square(self, image, background_color=PAD_COLOR):
    """Centers an image [3, H, W] on the square of its longer side."""
    del background_color
    return super().pad_to_square(image, background_color=PAD_COLOR)

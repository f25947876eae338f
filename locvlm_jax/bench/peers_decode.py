"""Greedy generation by transformers' Llava on PyTorch, for `bench.decode`."""

import jax
import numpy as np
import torch
import transformers

from locvlm_jax.bench import decode, peers, workload
from locvlm_jax.models import clip_vit
from locvlm_jax.text import formats


class Generator:
  """transformers' Llava on the same device as ours.

  Args:
    settings: of the measurement.
    vocab_size: of our model; ids from there on are never generated.
  """

  def __init__(self, settings: decode.Settings, vocab_size: int):
    self._vocab_size = vocab_size
    self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    self._dtype = getattr(torch, settings.dtype)
    if settings.model:
      config = workload.model_config(settings.model)
      model = peers.random_llava(config, self._device, self._dtype)
    else:
      model = transformers.LlavaForConditionalGeneration.from_pretrained(
        settings.checkpoint, dtype=self._dtype
      ).to(self._device)
    self._model = model.eval()

  def __call__(self, batch: dict[str, np.ndarray], num: int) -> np.ndarray:
    """Returns its `num` greedy tokens of each row, [B, G]."""
    tokens = batch["tokens"][:, : batch["lengths"].max()]
    image_id = self._model.config.image_token_id
    # transformers takes prompts that are padded on the left.
    ids, mask = np.zeros_like(tokens), np.zeros_like(tokens)
    for i, n in enumerate(batch["lengths"]):
      ids[i, -n:], mask[i, -n:] = tokens[i, :n], 1
    ids = np.where(ids == formats.IMAGE_TOKEN, image_id, ids)
    mean, std = clip_vit.MEAN["clip"], clip_vit.STD["clip"]
    pixels = (batch["images"][:, 0] / 255 - mean) / std
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=self._dtype)
    hides_image = image_id >= self._vocab_size
    with torch.inference_mode():
      out = self._model.generate(
        input_ids=torch.tensor(ids, dtype=torch.long).to(self._device),
        attention_mask=torch.tensor(mask).to(self._device),
        pixel_values=pixels.to(self._device),
        do_sample=False,
        use_cache=True,
        max_new_tokens=num,
        eos_token_id=None,
        pad_token_id=0,
        suppress_tokens=[image_id] if hides_image else None,
      )
    return out[:, tokens.shape[1] :].cpu().numpy()

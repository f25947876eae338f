"""LocVLM-L: CLIP ViT-L/14 at 336 px, an MLP adapter, LLaMA-2-7B.

The words and the fields to set are those of `configs/locvlm_b.py`. Stage 1
follows LLaVA-1.5 (`LLaVA:scripts/v1_5/pretrain.sh`).
"""

from configs import base, locvlm_b


def get_config(argument: str = ""):
  """LocVLM-L; the words are `locvlm_b.WORDS`, and tiny."""
  variant = base.words(argument, locvlm_b.WORDS)
  c = base.get_config()
  c.model.vision.image_size = 336
  c.model.adapter = "mlp"
  c.model.llm.update(eps=1e-5, max_positions=4096)  # LLaMA-2
  c.coords.num_bins = 336
  c.geometry = "pad"
  c.init.override = ("geometry",)  # stage 1 crops, as LLaVA-1.5's does
  if "stage1" in variant:
    c = locvlm_b.stage1(c, lr=1e-3, batch_size=256)
    c.geometry = "center_crop"
  c = locvlm_b.stage2_words(c, variant)
  c = base.paper_words(c, variant)
  return base.tiny(c) if "tiny" in variant else c

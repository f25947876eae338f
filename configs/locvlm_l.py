"""LocVLM-L: CLIP ViT-L/14 at 336 px, an MLP adapter, LLaMA-2-7B.

The words and the fields to set are those of `configs/locvlm_b.py`. Stage 1
follows LLaVA-1.5 (`LLaVA:scripts/v1_5/pretrain.sh`). Both stages of LLaVA-1.5
on its own files:

  locvlm_l.py:pretrain558k   --config.data.conversations=\
                             blip_laion_cc_sbu_558k.json
  locvlm_l.py:mix665k        --config.data.conversations=\
                             llava_v1_5_mix665k.json

with the folder of their images in `--config.data.conversation_images`. Boxes in
the text of the latter are rewritten in the form and geometry of LocVLM-L.
"""

from configs import base, locvlm_b, variants


def get_config(argument: str = ""):
  """LocVLM-L; words: `locvlm_b.WORDS`, pretrain558k, mix665k, and tiny."""
  variant = base.words(argument, (*locvlm_b.WORDS, "pretrain558k", "mix665k"))
  c = base.get_config()
  c.model.vision.image_size = 336
  c.model.adapter = "mlp"
  c.model.llm.update(eps=1e-5, max_positions=4096)  # LLaMA-2
  c.coords.num_bins = 336
  c.geometry = "pad"
  c.init.override = ("geometry",)  # stage 1 crops, as LLaVA-1.5's does
  if variant & {"stage1", "pretrain558k"}:
    c = locvlm_b.stage1(c, lr=1e-3, batch_size=256)
    c.geometry = "center_crop"
  if "pretrain558k" in variant:
    c = locvlm_b.llava_captions(c, 558_128)
  c = mix665k(c) if "mix665k" in variant else c
  c = locvlm_b.sharegpt(c, num_visual=576) if "sharegpt" in variant else c
  c = locvlm_b.stage2_words(c, variant)
  c = variants.paper_words(c, variant)
  return variants.tiny(c) if "tiny" in variant else c


def mix665k(c):
  """One epoch of LLaVA-1.5's mixture (`LLaVA:scripts/v1_5/finetune.sh`)."""
  c.data.mixture.update(instances=0.0, conversations=1.0)
  c.data.mix_by = "epoch"
  c.data.conversation_boxes = "pad"
  c.data.text_length = locvlm_b.LLAVA_LENGTH - 576
  c.batch_size = 128
  c.steps = -(-665_298 // c.batch_size)
  return c

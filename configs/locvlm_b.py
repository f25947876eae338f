"""LocVLM-B: CLIP ViT-L/14 at 224 px, a linear adapter, LLaMA-7B.

`configs/locvlm_b.py:stage1` aligns the adapter on captions (CC3M, as LLaVA
v1); `:stage2`, the default, trains adapter and LLM on the three objectives,
about all images of `data.instances`; `:localize_instruct_200k` on the paper's
200K pairs, from a file of `build_data`; `:baseline` on LLaVA's conversations
without the objectives, the first row of Table 11. `lora` trains updates alone,
`qlora` updates of an LLM in 4 bits; `one_gpu` trains all on one GPU of 80 GB.
`paper_literal` takes the warm-up ratio that the paper prints, 0.3; `paper`
decodes answers as the paper, with a temperature of 0.2 and three seeds.

`chat595k` is stage 1 on LLaVA's own file of CC3M, `sharegpt` trains on
conversations without an image:

  locvlm_b.py:chat595k   --config.data.conversations=chat.json
                         --config.data.conversation_images=FOLDER
  locvlm_b.py:sharegpt   --config.data.text=FILE.json

Set `--config.init.vision`, `--config.init.llm`, `--config.tokenizer`, and the
`--config.data` and `--config.eval` paths; stage 2 starts from stage 1 with
`--config.init.checkpoint=WORKDIR`.
"""

from configs import base, variants

WORDS = (
  "stage1", "stage2", "localize_instruct_200k", "baseline", "lora", "qlora",
  "one_gpu", "sharegpt", *variants.PAPER_WORDS,
)  # fmt: skip
# Positions of a row of LLaVA's, visual tokens included (`LLaVA:scripts`).
LLAVA_LENGTH = 2048


def get_config(argument: str = ""):
  """LocVLM-B; the words are `WORDS`, chat595k, and tiny."""
  variant = base.words(argument, (*WORDS, "chat595k"))
  c = base.get_config()
  if variant & {"stage1", "chat595k"}:
    c = stage1(c, lr=2e-3, batch_size=128)
  c = llava_captions(c, 595_375) if "chat595k" in variant else c
  c = sharegpt(c, num_visual=256) if "sharegpt" in variant else c
  c = stage2_words(c, variant)
  c = variants.paper_words(c, variant)
  return variants.tiny(c) if "tiny" in variant else c


def stage2_words(c, variant: set[str]):
  """Applies the words that say what stage 2 trains on, and what it trains."""
  if "localize_instruct_200k" in variant:
    c = variants.localize_instruct_200k(c)
  c = variants.baseline(c) if "baseline" in variant else c
  c = variants.one_gpu(c) if "one_gpu" in variant else c
  if "qlora" in variant:
    return variants.qlora(c)
  return variants.lora(c) if "lora" in variant else c


def stage1(c, lr: float, batch_size: int):
  """Adapter only, on captions (LLaVA v1: `scripts/pretrain.sh`)."""
  c.stage = "stage1"
  c.trainable = ("adapter",)
  c.eval.prompt_format = c.prompt_format
  c.prompt_format = "plain"
  c.optim.lr = lr
  c.batch_size = batch_size
  c.steps = 595_375 // batch_size  # one epoch of CC3M-595K
  c.data.mixture.update(instances=0.0, captions=1.0)
  c.data.text_length = 64
  # The frozen LLM fits on one GPU in bfloat16: no sharding needed.
  c.mesh.update(data=-1, fsdp=1)
  return c


def llava_captions(c, records: int):
  """Stage 1 on a file of LLaVA's: a caption is the answer of a conversation.

  Args:
    c: the config of stage 1.
    records: of the file, of which a run is one epoch.
  """
  c.data.mixture.update(captions=0.0, conversations=1.0)
  c.data.mix_by = "epoch"
  c.data.text_length = 192
  c.steps = -(-records // c.batch_size)
  return c


def sharegpt(c, num_visual: int):
  """Conversations of ShareGPT alone, in rows as long as LLaVA's.

  Args:
    c: the config of stage 2.
    num_visual: visual tokens, for which each row has room.
  """
  c.data.mixture.update(instances=0.0, text=1.0)
  c.data.mix_by = "epoch"
  c.data.text_length = LLAVA_LENGTH - num_visual
  c.batch_size = 128
  c.steps = -(-40_688 // c.batch_size)  # one epoch of those in mix665k
  return c

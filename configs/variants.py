"""What the words after the colon of a config change, for all configs."""

import ml_collections

# Words of the LocVLM configs that take over what the paper says.
PAPER_WORDS = ("paper", "paper_literal")


def paper_words(
  c: ml_collections.ConfigDict, variant: set[str]
) -> ml_collections.ConfigDict:
  """Applies those of PAPER_WORDS that a config's argument has."""
  c = paper(c) if "paper" in variant else c
  return paper_literal(c) if "paper_literal" in variant else c


def localize_instruct_200k(
  c: ml_collections.ConfigDict,
) -> ml_collections.ConfigDict:
  """Stage 2 on the paper's Localize-Instruct-200K (Section 4.1).

  10 epochs of 200K pairs in batches of 64, each pair a row; `build_data
  --num_pairs 200000` makes the file for `data.conversations`.
  """
  c.data.mixture.update(instances=0.0, conversations=1.0)
  c.batch_size = 64
  c.steps = 10 * 200_000 // c.batch_size
  return c


def baseline(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The steps of stage 2 without the three objectives (Table 11, first row).

  On LLaVA's conversations, which `data.conversations` names.
  """
  c.stage = "baseline"
  c.data.mixture.update(instances=0.0, conversations=1.0)
  c.data.text_length = 512  # long answers
  return c


def paper_literal(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The schedule as printed in Section 4.1: warm-up ratio 0.3."""
  c.optim.warmup_ratio = 0.3
  return c


def paper(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Decodes as the paper (Section 4.1): multinomial, temperature 0.2.

  It names no number of tokens: these are those of the code that it follows,
  128 of LLaVA (`llava/eval/model_vqa_loader.py`) and 1024 of Video-ChatGPT.
  """
  c.eval.update(temperature=0.2, top_k=0, top_p=1.0, seeds=3)
  c.eval.max_new_tokens = 128
  c.eval.max_new_tokens_of = ("*_qa=1024", "video_vqa=1024", "hal_act=1024")
  return c


def lora(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Stage 2 on a GPU or two: the LLM frozen, but for LoRA (LLaVA's values).

  `LLaVA:scripts/v1_5/finetune_lora.sh`.
  """
  c.lora.update(rank=128, alpha=256.0, dropout=0.05)
  c.trainable = ("adapter", "llm/layers/.*_lora_[ab]")
  c.optim.update(lr=2e-4, adapter_lr=2e-5)
  return c


def qlora(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Stage 2 on one small GPU: `lora` on an LLM in 4 bits (QLoRA's values).

  arXiv:2305.14314, table 9; LLaVA's `lora` has twice its rank.
  """
  c = lora(c)
  c.model.llm.base_weights = "nf4"
  c.model.remat = "full"
  c.lora.update(rank=64, alpha=16.0, dropout=0.1)
  return c


def one_gpu(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Full fine-tuning of stage 2 on one GPU of 80 GB."""
  c.optim.update(moments="8bit", masters="split")
  c.model.remat = "full"
  c.accumulate = 8
  c.mesh.update(data=1, fsdp=1)
  return c


def tiny(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same run in miniature: two steps of a toy model from nothing."""
  c.init.update(
    vision="", llm="", llava="", random=("vision", "adapter", "llm")
  )
  c.model.vision.update(
    image_size=32,
    patch_size=8,
    width=32,
    num_layers=2,
    num_heads=2,
    mlp_width=64,
  )
  c.model.llm.update(
    vocab_size=1024,
    width=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=64,
  )
  c.model.dtype = "float32"
  c.steps, c.batch_size, c.accumulate = 2, 8, 1
  c.log_every = c.checkpoint_every = 1
  c.eval.samples, c.eval.batch_size, c.eval.max_new_tokens = 8, 8, 4
  c.eval.max_new_tokens_of = ()
  return c

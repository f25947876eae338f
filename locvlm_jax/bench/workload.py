"""Models and batches that the measurements share; weights are random."""

import dataclasses
import types

import numpy as np

from locvlm_jax.data import packing
from locvlm_jax.models import clip_vit, llama, locvlm, lora
from locvlm_jax.text.formats import IMAGE_TOKEN

# Model -> (rows, text tokens of a row) of a training batch, if not given.
SIZES = {
  "micro": (8, 64), "100m": (8, 64), "b": (16, 128), "l": (16, 128),
}  # fmt: skip


def model_config(
  name: str, remat: str = "none", unroll: int = 1
) -> locvlm.LocVLMConfig:
  """Returns the config of one of `SIZES`.

  They are the micro-world's model ("micro"), one of 100 million parameters for
  CPUs ("100m"), LocVLM-B and -L.
  """
  configs = {
    "micro": _micro, "100m": _100m, "b": locvlm.locvlm_b, "l": locvlm.locvlm_l,
  }  # fmt: skip
  return dataclasses.replace(configs[name](), remat=remat, unroll=unroll)


def _micro() -> locvlm.LocVLMConfig:
  """Returns the size that configs/micro.py trains."""
  return locvlm.LocVLMConfig(
    clip_vit.VisionConfig(
      image_size=96,
      patch_size=12,
      width=128,
      num_layers=6,
      num_heads=4,
      mlp_width=512,
    ),
    "mlp",
    llama.LlamaConfig(
      vocab_size=1024,
      width=128,
      num_layers=4,
      num_heads=4,
      num_kv_heads=4,
      head_dim=32,
      mlp_width=352,
      eps=1e-5,
    ),
    dtype="float32",
  )


def _100m() -> locvlm.LocVLMConfig:
  """Returns a model of GPT-2's width and depth behind a small tower."""
  return locvlm.LocVLMConfig(
    clip_vit.VisionConfig(
      image_size=128,
      patch_size=16,
      width=384,
      num_layers=6,
      num_heads=6,
      mlp_width=1536,
    ),
    "mlp",
    llama.LlamaConfig(
      vocab_size=8192,
      width=768,
      num_layers=12,
      num_heads=12,
      num_kv_heads=12,
      head_dim=64,
      mlp_width=2048,
      eps=1e-5,
    ),
    dtype="float32",
  )


def random_batch(
  config: locvlm.LocVLMConfig, rows: int, text: int
) -> dict[str, np.ndarray]:
  """Draws rows of <s>, one image and text - 1 tokens that are all learned.

  Args:
    config: of a model of images.
    rows: of the batch.
    text: text tokens of a row.
  """
  rng, visual = np.random.default_rng(0), config.num_visual
  shapes = locvlm.batch_shapes(config, rows, visual + text)

  def draw(name: str, low: int, high: int) -> np.ndarray:
    return rng.integers(low, high, shapes[name].shape, shapes[name].dtype)

  tokens = draw("tokens", 3, config.llm.vocab_size)
  tokens[:, 1 : 1 + visual] = IMAGE_TOKEN
  loss_mask = np.ones(tokens.shape, bool)
  loss_mask[:, : 1 + visual] = False
  return {
    "images": draw("images", 0, 256),
    "tokens": tokens,
    "loss_mask": loss_mask,
    "lengths": np.full(rows, visual + text, np.int32),
  }


def text_lengths(rows: int, text: int) -> np.ndarray:
  """Returns text tokens of conversations, from text / 4 to text, shuffled."""
  lengths = np.linspace(max(text // 4, 2), text, rows).round().astype(int)
  return np.random.default_rng(0).permutation(lengths)


def packed_batch(
  config: locvlm.LocVLMConfig, rows: int, text: int, pack: int
) -> dict[str, np.ndarray]:
  """Draws conversations of `text_lengths`, and packs `pack` into each row.

  Long ones go with short ones, as in training. With `pack` 1 there is one in a
  row, and all rows are as long as the longest.

  Args:
    config: of a model of images.
    rows: conversations.
    text: text tokens of the longest.
    pack: divides their number.
  """
  batch, visual = random_batch(config, rows, text), config.num_visual
  lengths = (visual + text_lengths(rows, text)).astype(np.int32)
  real = np.arange(visual + text) < lengths[:, None]
  batch |= {"lengths": lengths, "loss_mask": batch["loss_mask"] & real}
  parts = np.argsort(lengths).reshape(pack, -1)
  parts[1::2] = parts[1::2, ::-1]
  each = {**batch, "valid": np.ones(rows, bool), "example": np.arange(rows)}
  ordered = [{k: v[i] for k, v in each.items()} for i in parts.T.ravel()]
  joined = packing.packed(ordered, pack)
  longest = int(joined["lengths"].max())
  length = longest + -longest % packing.LENGTH_MULTIPLE
  joined = packing.cropped(joined, length)
  return {k: v for k, v in joined.items() if k not in ("valid", "example")}


def trained_parts(stage: int, has_lora: bool = False) -> tuple[str, ...]:
  """Returns the parts of the model that a stage trains."""
  if stage == 1:
    return ("adapter",)
  return ("adapter", "llm/layers/.*_lora_[ab]" if has_lora else "llm")


def with_lora(
  config: locvlm.LocVLMConfig, base_weights: str, rank: int
) -> locvlm.LocVLMConfig:
  """Gives the LLM updates of a rank and kernels of a precision.

  Raises:
    ValueError: kernels would be quantized that train.
  """
  if base_weights != "float" and not rank:
    raise ValueError(
      f"--base_weights={base_weights}: quantized kernels do not train; set"
      " --lora_rank, such as 16."
    )
  llm = dataclasses.replace(config.llm, base_weights=base_weights)
  updates = lora.LoraConfig(rank=rank, dropout=0.1 if rank else 0.0)
  return dataclasses.replace(config, llm=llm, lora=updates)


def adamw(**fields: object) -> types.SimpleNamespace:
  """Returns the optimizer's settings, as `config.optim` has them.

  Args:
    fields: those that differ from LocVLM's.
  """
  own = {
    "name": "adamw",
    "lr": 2e-5,
    "adapter_lr": 0.0,
    "warmup_ratio": 0.03,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "mu_dtype": "float32",
    "moments": "float",
    "masters": "float32",
  }
  return types.SimpleNamespace(**own | fields)

"""The same training step by transformers on PyTorch, to compare with."""

import numpy as np

from locvlm_jax.bench import train
from locvlm_jax.models import locvlm
from locvlm_jax.perf import flops as flops_lib


def train_step(arguments, tuned: bool) -> dict:
  """transformers' Llava: the same batch, the same number of steps."""
  import torch
  import transformers

  torch.manual_seed(0)
  torch.backends.cuda.matmul.allow_tf32 = True
  shape = train.config(arguments.model)
  cuda = torch.cuda.is_available()
  device = "cuda" if cuda else "cpu"
  low = shape.dtype == "bfloat16"
  model = llava(
    shape, device, torch.bfloat16 if low and not tuned else torch.float32
  )
  _freeze(model, arguments.stage)
  if arguments.remat != "none" or not tuned and low:
    model.gradient_checkpointing_enable({"use_reentrant": False})
  if tuned:
    for layer in model.model.language_model.layers:
      layer.compile(dynamic=False)
  adam = torch.optim.AdamW(
    [p for p in model.parameters() if p.requires_grad],
    lr=2e-5,
    weight_decay=0.0,
    fused=cuda,
  )
  rows = _torch_rows(shape, arguments, device)
  losses = []

  def step() -> None:
    adam.zero_grad(set_to_none=True)
    parts = [
      {k: v.chunk(arguments.accumulate)[i] for k, v in rows.items()}
      for i in range(arguments.accumulate)
    ]
    for part in parts:
      with torch.autocast(device, torch.bfloat16, enabled=low and tuned):
        loss = _torch_loss(model, part, arguments.text if tuned else 0)
      (loss / len(parts)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    losses[:] = [loss.detach()]

  def wait() -> None:
    float(losses[-1])
    if cuda:
      torch.cuda.synchronize()

  seconds = train.timed(step, wait, arguments)
  forward = flops_lib.forward_flops(locvlm.LocVLM(shape), arguments.text)
  name = torch.cuda.get_device_name() if cuda else "cpu"
  return {
    "device": name,
    "devices": 1,
    "versions": {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
    },
    "row": rows["input_ids"].shape[1],
    "sample_flops": flops_lib.train_flops(
      forward, set(train.trained_parts(arguments.stage))
    ),
    "peak_flops": flops_lib.peak_flops(name),
    "memory": torch.cuda.max_memory_allocated() if cuda else None,
    "loss": float(losses[-1]),
    "seconds": seconds,
  }


def llava(shape, device: str, dtype):
  """transformers' Llava of `shape` with random weights, born on `device`.

  Its adapter always has two layers, and one token more than the vocabulary
  stands for the image.
  """
  import torch
  import transformers

  v, t = shape.vision, shape.llm
  vision = transformers.CLIPVisionConfig(
    hidden_size=v.width,
    intermediate_size=v.mlp_width,
    num_hidden_layers=v.num_layers,
    num_attention_heads=v.num_heads,
    image_size=v.image_size,
    patch_size=v.patch_size,
    projection_dim=v.width,
  )
  text = transformers.LlamaConfig(
    vocab_size=t.vocab_size + 1,
    hidden_size=t.width,
    intermediate_size=t.mlp_width,
    num_hidden_layers=t.num_layers,
    num_attention_heads=t.num_heads,
    num_key_value_heads=t.num_kv_heads,
    head_dim=t.head_dim,
    rms_norm_eps=t.eps,
    use_cache=False,
  )
  whole = transformers.LlavaConfig(
    vision_config=vision,
    text_config=text,
    image_token_index=t.vocab_size,
    vision_feature_layer=v.feature_layer,
  )
  with torch.device(device):  # billions of draws take a CPU minutes
    return transformers.LlavaForConditionalGeneration._from_config(
      whole, attn_implementation="sdpa", dtype=dtype
    )


def _freeze(model, stage: int) -> None:
  """Vision tower, and in stage 1 the language model; all else trains."""
  model.train()
  model.requires_grad_(False)
  model.model.multi_modal_projector.requires_grad_(True)
  if stage == 2:
    model.model.language_model.requires_grad_(True)
    model.lm_head.requires_grad_(True)
  model.model.vision_tower.eval()


def _torch_rows(shape, arguments, device: str) -> dict:
  import torch

  ours = train.batch(shape, arguments.batch, arguments.text)
  ids = np.where(ours["tokens"] < 0, shape.llm.vocab_size, ours["tokens"])
  labels = np.where(ours["loss_mask"], ids, -100)
  pixels = ours["images"][:, 0].transpose(0, 3, 1, 2) / 127.5 - 1
  arrays = {
    "input_ids": ids.astype(np.int64),
    "labels": labels.astype(np.int64),
    "pixel_values": pixels.astype(np.float32),
  }
  return {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}


def _torch_loss(model, rows, text: int):
  """transformers' own loss; with `text`, logits of the last positions alone."""
  import torch

  pixels = rows["pixel_values"].to(model.dtype)
  rows = {**rows, "pixel_values": pixels}
  if not text:
    return model(**rows).loss
  labels = rows.pop("labels")[:, -text:]
  logits = model(**rows, logits_to_keep=text).logits
  return torch.nn.functional.cross_entropy(
    logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
  )

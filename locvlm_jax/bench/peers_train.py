"""The training step of `bench.train` by transformers' Llava on PyTorch."""

from collections.abc import Mapping

import numpy as np
import torch
import transformers

from locvlm_jax.bench import peers, timing, train, workload
from locvlm_jax.models import locvlm
from locvlm_jax.perf import flops as flops_lib


def variants() -> dict[str, bool]:
  """Returns {name of a peer: whether it is tuned}; CUDA has both."""
  return {"peer": False} | (
    {"peer_tuned": True} if torch.cuda.is_available() else {}
  )


def train_step(settings: train.Settings, tuned: bool) -> dict:
  """Times the same number of steps on the same batch as ours."""
  torch.manual_seed(0)
  torch.backends.cuda.matmul.allow_tf32 = True
  config = workload.model_config(settings.model)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  is_low = config.dtype == "bfloat16"
  model = _model(config, settings, device, tuned)
  adam = torch.optim.AdamW(
    [p for p in model.parameters() if p.requires_grad],
    lr=2e-5,
    weight_decay=0.0,
    fused=device == "cuda",
  )
  batch = _torch_batch(config, settings, device)
  losses = []

  def step() -> None:
    adam.zero_grad(set_to_none=True)
    parts = [
      {k: v.chunk(settings.accumulate)[i] for k, v in batch.items()}
      for i in range(settings.accumulate)
    ]
    for part in parts:
      with torch.autocast(device, torch.bfloat16, enabled=is_low and tuned):
        loss = _loss(model, part, settings.text if tuned else 0)
      (loss / len(parts)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    losses[:] = [loss.detach()]

  def wait() -> None:
    float(losses[-1])
    if device == "cuda":
      torch.cuda.synchronize()

  seconds = timing.per_step(
    step,
    wait,
    warmup=settings.warmup,
    steps=settings.steps,
    rounds=settings.rounds,
  )
  return {
    **_device_facts(config, settings, device),
    "row": batch["input_ids"].shape[1],
    "loss": float(losses[-1]),
    "seconds": seconds,
  }


def _device_facts(
  config: locvlm.LocVLMConfig, settings: train.Settings, device: str
) -> dict:
  """Describes the device, and what a sample costs on it."""
  is_cuda = device == "cuda"
  name = torch.cuda.get_device_name() if is_cuda else device
  forward = flops_lib.forward_flops(locvlm.LocVLM(config), settings.text)
  trained = set(workload.trained_parts(settings.stage))
  return {
    "device": name,
    "devices": 1,
    "versions": {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
    },
    "sample_flops": flops_lib.train_flops(forward, trained),
    "peak_flops": flops_lib.peak_flops(name),
    "memory": torch.cuda.max_memory_allocated() if is_cuda else None,
  }


def _model(
  config: locvlm.LocVLMConfig,
  settings: train.Settings,
  device: str,
  tuned: bool,
) -> transformers.LlavaForConditionalGeneration:
  """Builds the model with what the stage freezes, common or tuned."""
  is_low = config.dtype == "bfloat16"
  dtype = torch.bfloat16 if is_low and not tuned else torch.float32
  model = peers.random_llava(config, device, dtype)
  _freeze(model, settings.stage)
  if settings.remat != "none" or not tuned and is_low:
    model.gradient_checkpointing_enable({"use_reentrant": False})
  if tuned:
    for layer in model.model.language_model.layers:
      layer.compile(dynamic=False)
  return model


def _freeze(
  model: transformers.LlavaForConditionalGeneration, stage: int
) -> None:
  """Freezes the vision tower, and in stage 1 the language model too."""
  model.train()
  model.requires_grad_(False)
  model.model.multi_modal_projector.requires_grad_(True)
  if stage == 2:
    model.model.language_model.requires_grad_(True)
    model.lm_head.requires_grad_(True)
  model.model.vision_tower.eval()


def _torch_batch(
  config: locvlm.LocVLMConfig, settings: train.Settings, device: str
) -> dict[str, torch.Tensor]:
  """Translates the batch of ours."""
  ours = workload.random_batch(config, settings.batch, settings.text)
  ids = np.where(ours["tokens"] < 0, config.llm.vocab_size, ours["tokens"])
  labels = np.where(ours["loss_mask"], ids, -100)
  pixels = ours["images"][:, 0].transpose(0, 3, 1, 2) / 127.5 - 1
  arrays = {
    "input_ids": ids.astype(np.int64),
    "labels": labels.astype(np.int64),
    "pixel_values": pixels.astype(np.float32),
  }
  return {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}


def _loss(
  model: transformers.LlavaForConditionalGeneration,
  batch: Mapping[str, torch.Tensor],
  text: int,
) -> torch.Tensor:
  """Computes transformers' loss; with `text`, of the last positions alone."""
  pixels = batch["pixel_values"].to(model.dtype)
  batch = {**batch, "pixel_values": pixels}
  if not text:
    return model(**batch).loss
  labels = batch.pop("labels")[:, -text:]
  logits = model(**batch, logits_to_keep=text).logits
  return torch.nn.functional.cross_entropy(
    logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
  )

"""Tokens a second of greedy generation, beside transformers on PyTorch.

A Llava directory answers pictures of noise with prompts of different lengths;
both sides write the same number of tokens and never stop early. The peer, with
--peer and torch installed, gets the same weights, tokens and pixels. With
--model both have random weights of that size, each its own.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax import ASSETS
from locvlm_jax.bench import peers, timing, train
from locvlm_jax.inference import decode
from locvlm_jax.models import locvlm
from locvlm_jax.text import encoding, formats, tokenizer
from locvlm_jax.weights import huggingface

_QUESTIONS = (
  "Where is the cup?", "What is in the picture?",
  "Is there a dog next to the tall red chair?", "Describe the picture.",
)  # fmt: skip
_NEVER = -2  # an id that no model generates
# Text tokens of the rows' prompts where no tokenizer is there.
_TEXT = (47, 52, 60, 49)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def add_arguments(parser) -> None:
  """The arguments of `measure`."""
  parser.add_argument(
    "--checkpoint",
    default=str(ASSETS / "micro_reference"),
    help="a Llava directory in Hugging Face layout; default: the micro model",
  )
  parser.add_argument("--model", choices=train.SIZES, help="random weights")
  parser.add_argument("--batch_sizes", default="1,16", help="comma list")
  parser.add_argument("--new_tokens", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--dtype", default="float32", choices=("float32", "bfloat16")
  )
  parser.add_argument("--peer", action="store_true", help="PyTorch too")


def measure(arguments) -> dict:
  """Tokens a second for each batch size, prefill included."""
  model, params = (_random if arguments.model else _loaded)(arguments)
  peer = _Peer(arguments, model) if arguments.peer else None
  result = {
    "device": jax.devices()[0].device_kind,
    "dtype": arguments.dtype,
    "model": arguments.model or arguments.checkpoint,
    "new_tokens": arguments.new_tokens,
  }
  for rows in map(int, arguments.batch_sizes.split(",")):
    batch = _batch(arguments, model, rows)
    ours = functools.partial(
      decode.generate,
      model,
      params,
      batch,
      decode.Sampling(max_new_tokens=arguments.new_tokens, stop=(_NEVER,)),
    )
    result[f"batch {rows}"] = _compared(ours, peer, batch, arguments)
  return result


def _loaded(arguments) -> tuple:
  """(model, parameters) of the Llava directory."""
  params, config = huggingface.load_llava(arguments.checkpoint)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=arguments.dtype))
  dtype = jnp.dtype(arguments.dtype)
  params = jax.tree.map(functools.partial(jnp.asarray, dtype=dtype), params)
  return locvlm.unstack_layers(model, params)


def _random(arguments) -> tuple:
  """(model, parameters) of --model."""
  config = train.config(arguments.model)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=arguments.dtype))

  def init(key):
    params = locvlm.init_params(model, key)
    return jax.tree.map(lambda x: x.astype(arguments.dtype), params)

  return locvlm.unstack_layers(model, jax.jit(init)(jax.random.key(0)))


def _compared(ours, peer, batch, arguments) -> dict:
  work = len(batch["tokens"]) * arguments.new_tokens

  def rate(answer) -> float:
    began = time.perf_counter()
    np.asarray(answer())
    return work / (time.perf_counter() - began)

  contestants, answers = {"ours": ours}, np.asarray(ours())
  if peer:
    contestants["peer"] = functools.partial(peer.generate, batch)
  rates = timing.rounds(
    {n: functools.partial(rate, f) for n, f in contestants.items()},
    arguments.rounds,
  )
  if not peer:
    return {"tokens_per_s": rates}
  result = {
    "tokens_per_s": rates,
    "ratio": rates["ours"]["median"] / rates["peer"]["median"],
  }
  if not arguments.model:
    same = (answers == peer.generate(batch)).mean()
    result["same_tokens"] = float(same)
  return result


def _prompts(arguments, model, rows: int) -> list[np.ndarray]:
  """Prompts of several lengths, each about one picture."""
  visual = model.config.vision.num_patches
  if arguments.model:
    rng = np.random.default_rng(0)
    made = [
      rng.integers(3, model.config.llm.vocab_size, visual + n) for n in _TEXT
    ]
    for ids in made:
      ids[1 : 1 + visual] = formats.IMAGE_TOKEN
  else:
    text = tokenizer.Tokenizer.load(arguments.checkpoint)
    made = [
      encoding.encode_prompt(text, formats.FORMATS["v1"], [], question, visual)
      for question in _QUESTIONS
    ]
  return [made[i % len(made)] for i in range(rows)]


def _batch(arguments, model, rows: int) -> dict:
  """Prompts of several lengths, each with a picture of noise."""
  encoded, vision = _prompts(arguments, model, rows), model.config.vision
  longest = max(map(len, encoded))
  # As answers are padded; the peer leaves what is padding in all rows.
  longest = decode.padded_length(longest)
  tokens = np.zeros((rows, longest), np.int32)
  for row, prompt in zip(tokens, encoded, strict=True):
    row[: len(prompt)] = prompt
  shape = (rows, 1, vision.image_size, vision.image_size, 3)
  rng = np.random.default_rng(0)
  return {
    "tokens": tokens,
    "lengths": np.array([*map(len, encoded)], np.int32),
    "images": rng.integers(0, 256, shape, dtype=np.uint8),
  }


class _Peer:
  """transformers' Llava on the same device as ours."""

  def __init__(self, arguments, model):
    try:
      import torch
    except ImportError:
      raise ValueError("--peer needs PyTorch: pip install torch.") from None
    import transformers

    self._torch, self._num = torch, arguments.new_tokens
    self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    self._dtype = getattr(torch, arguments.dtype)
    kind = transformers.LlavaForConditionalGeneration
    if arguments.model:
      shape = train.config(arguments.model)
      self._model = peers.llava(shape, self._device, self._dtype)
    else:
      found = kind.from_pretrained(arguments.checkpoint, dtype=self._dtype)
      self._model = found.to(self._device)
    self._model.eval()
    self._vocabulary = model.config.llm.vocab_size

  def generate(self, batch: dict) -> np.ndarray:
    """Its greedy tokens, [B, G]."""
    torch = self._torch
    tokens = batch["tokens"][:, : batch["lengths"].max()]
    image = self._model.config.image_token_id
    # Padded on the left, as it wants them.
    ids, mask = np.zeros_like(tokens), np.zeros_like(tokens)
    for i, n in enumerate(batch["lengths"]):
      ids[i, -n:], mask[i, -n:] = tokens[i, :n], 1
    ids = np.where(ids == formats.IMAGE_TOKEN, image, ids)
    pixels = (batch["images"][:, 0] / 255 - _CLIP_MEAN) / _CLIP_STD
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=self._dtype)
    with torch.inference_mode():
      out = self._model.generate(
        input_ids=torch.tensor(ids, dtype=torch.long).to(self._device),
        attention_mask=torch.tensor(mask).to(self._device),
        pixel_values=pixels.to(self._device),
        do_sample=False,
        use_cache=True,
        max_new_tokens=self._num,
        eos_token_id=None,
        pad_token_id=0,
        suppress_tokens=[image] if image >= self._vocabulary else None,
      )
    return out[:, tokens.shape[1] :].cpu().numpy()

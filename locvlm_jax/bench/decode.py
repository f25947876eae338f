"""Tokens a second of greedy generation, beside transformers on PyTorch.

A Llava directory answers questions about images of noise, with prompts of
different lengths. With --peer, transformers' Llava gets the same weights,
tokens and pixels. Both sides generate the same number of tokens and never stop
early. With --model, both have random weights of that size, each its own.
"""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from locvlm_jax import ASSETS
from locvlm_jax.bench import timing, workload
from locvlm_jax.inference import decode
from locvlm_jax.models import locvlm
from locvlm_jax.text import encoding, formats, tokenizer
from locvlm_jax.weights import huggingface

_QUESTIONS = (
  "Where is the cup?", "What is in the picture?",
  "Is there a dog next to the tall red chair?", "Describe the picture.",
)  # fmt: skip
# Text tokens of the prompts of a model that has no tokenizer.
_TEXT = (47, 52, 60, 49)
_NEVER = -2  # an id that no model generates


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `measure`."""
  parser.add_argument(
    "--checkpoint",
    default=str(ASSETS / "micro_reference"),
    help="a Llava directory in Hugging Face layout; default: the micro model",
  )
  parser.add_argument("--model", choices=workload.SIZES, help="random weights")
  parser.add_argument("--batch_sizes", default="1,16", help="comma list")
  parser.add_argument("--new_tokens", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--dtype", default="float32", choices=("float32", "bfloat16")
  )


def measure(arguments: argparse.Namespace) -> dict:
  """Returns tokens a second for each batch size, prefill included."""
  model, params = (_random if arguments.model else _loaded)(arguments)
  peer = _peer(arguments, model) if arguments.peer else None
  sampling = decode.Sampling(arguments.new_tokens, stop=(_NEVER,))
  result = {
    "device": jax.devices()[0].device_kind,
    "dtype": arguments.dtype,
    "model": arguments.model or arguments.checkpoint,
    "new_tokens": arguments.new_tokens,
  }
  for rows in map(int, arguments.batch_sizes.split(",")):
    batch = _batch(arguments, model, rows)
    ours = functools.partial(decode.generate, model, params, batch, sampling)
    theirs = peer and functools.partial(peer, batch)
    result[f"batch {rows}"] = _compared(ours, theirs, rows, arguments)
  return result


def _peer(arguments: argparse.Namespace, model: locvlm.LocVLM) -> Callable:
  """Returns the peer's function from a batch to its greedy tokens [B, G]."""
  # It imports torch, which need not be installed.
  from locvlm_jax.bench import peers_decode

  return peers_decode.Generator(arguments, model.config.llm.vocab_size)


def _loaded(arguments: argparse.Namespace) -> tuple[locvlm.LocVLM, dict]:
  """Reads the Llava directory."""
  params, config = huggingface.load_llava(arguments.checkpoint)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=arguments.dtype))
  dtype = jnp.dtype(arguments.dtype)
  params = jax.tree.map(functools.partial(jnp.asarray, dtype=dtype), params)
  return locvlm.unstack_layers(model, params)


def _random(arguments: argparse.Namespace) -> tuple[locvlm.LocVLM, dict]:
  """Draws weights for a model of the size --model."""
  config = workload.model_config(arguments.model)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=arguments.dtype))

  def init(key):
    params = locvlm.init_params(model, key)
    return jax.tree.map(lambda x: x.astype(arguments.dtype), params)

  return locvlm.unstack_layers(model, jax.jit(init)(jax.random.key(0)))


def _compared(
  ours: Callable, theirs: Callable | None, rows: int, arguments
) -> dict:
  """Times both in turn, and compares their tokens if the weights are alike."""
  contestants = {"ours": ours} | ({"peer": theirs} if theirs else {})
  # The first call compiles.
  answers = {name: np.asarray(f()) for name, f in contestants.items()}

  def rate(generate: Callable) -> float:
    began = time.perf_counter()
    np.asarray(generate())
    return rows * arguments.new_tokens / (time.perf_counter() - began)

  rates = timing.rounds(
    {n: functools.partial(rate, f) for n, f in contestants.items()},
    arguments.rounds,
  )
  result = {"tokens_per_s": rates}
  if theirs:
    result["ratio"] = rates["ours"]["median"] / rates["peer"]["median"]
  if theirs and not arguments.model:
    result["same_tokens"] = float((answers["ours"] == answers["peer"]).mean())
  return result


def _prompts(
  arguments: argparse.Namespace, model: locvlm.LocVLM, rows: int
) -> list[np.ndarray]:
  """Returns prompts of several lengths, each about one image."""
  visual = model.config.num_visual
  if arguments.model:
    rng = np.random.default_rng(0)
    prompts = [
      rng.integers(3, model.config.llm.vocab_size, visual + n) for n in _TEXT
    ]
    for ids in prompts:
      ids[1 : 1 + visual] = formats.IMAGE_TOKEN
  else:
    text = tokenizer.Tokenizer.load(arguments.checkpoint)
    prompts = [
      encoding.encode_prompt(text, formats.FORMATS["v1"], [], question, visual)
      for question in _QUESTIONS
    ]
  return [prompts[i % len(prompts)] for i in range(rows)]


def _batch(
  arguments: argparse.Namespace, model: locvlm.LocVLM, rows: int
) -> dict[str, np.ndarray]:
  """Builds a batch of prompts, each with an image of noise."""
  prompts = _prompts(arguments, model, rows)
  # As the predictor pads them; the peer drops what is padding in all rows.
  longest = decode.padded_length(max(map(len, prompts)))
  shapes = locvlm.batch_shapes(model.config, rows, longest)
  tokens = np.zeros(shapes["tokens"].shape, shapes["tokens"].dtype)
  for row, prompt in zip(tokens, prompts, strict=True):
    row[: len(prompt)] = prompt
  images = shapes["images"]
  noise = np.random.default_rng(0).integers(0, 256, images.shape, images.dtype)
  return {
    "tokens": tokens,
    "lengths": np.array([*map(len, prompts)], np.int32),
    "images": noise,
  }

"""Times greedy generation: `python -m locvlm_jax.bench decode`.

Prints tokens a second, prefill included; prompts a second, of the prefill and
the first token alone; and tokens a second after that. A Llava directory answers
questions about images of noise, with prompts of different lengths. With --peer,
transformers' Llava gets the same weights, tokens and pixels. Both sides
generate the same number of tokens and never stop early. With --model, both have
random weights of that size, each its own.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from locvlm_jax import ASSETS
from locvlm_jax.bench import command_line, timing, workload
from locvlm_jax.inference import decode
from locvlm_jax.models import locvlm
from locvlm_jax.text import encoding, formats, tokenizer
from locvlm_jax.weights.layouts import huggingface

_QUESTIONS = (
  "Where is the cup?", "What is in the picture?",
  "Is there a dog next to the tall red chair?", "Describe the picture.",
)  # fmt: skip
# Text tokens of the prompts of a model that has no tokenizer.
_TEXT = (47, 52, 60, 49)
# The rates, and the names of their ratios.
_RATIOS = {
  "tokens_per_s": "ratio",
  "prompts_per_s": "prefill_ratio",
  "decoded_per_s": "decode_ratio",
}
_NEVER = -2  # an id that no model generates


@dataclasses.dataclass(frozen=True)
class Settings:
  """What generates, and how much; each is a flag of the same name.

  Attributes:
    model: one of workload.SIZES, with random weights; None: that of
      `checkpoint`.
  """

  checkpoint: str
  model: str | None
  batch_sizes: list[str]
  new_tokens: int
  dtype: str
  rounds: int


def define_flags() -> None:
  """Defines the flags of `main`."""
  flags.DEFINE_string(
    "checkpoint",
    str(ASSETS / "micro_reference"),
    "A Llava directory in Hugging Face layout.",
  )
  flags.DEFINE_enum(
    "model", None, workload.SIZES, "A size to draw random weights for instead."
  )
  flags.DEFINE_list("batch_sizes", ["1", "16"], "Rows of each batch.")
  flags.DEFINE_integer("new_tokens", 64, "Tokens of each answer.", 1)
  flags.DEFINE_enum("dtype", "float32", locvlm.DTYPES, "Of both sides.")
  command_line.define_flags(rounds=5)


def main(argv: list[str]) -> None:
  """Prints what `measure` finds for the flags."""
  del argv
  settings = command_line.read(Settings)
  command_line.show(measure(settings, command_line.has_peer()))


def measure(settings: Settings, has_peer: bool) -> dict:
  """Returns the rates of each batch size, and their ratios to the peer's."""
  model, params = (random_model if settings.model else _loaded)(settings)
  peer = _peer(settings, model) if has_peer else None
  result = {
    "device": jax.devices()[0].device_kind,
    "dtype": settings.dtype,
    "model": settings.model or settings.checkpoint,
    "new_tokens": settings.new_tokens,
  }
  for rows in map(int, settings.batch_sizes):
    batch = prompts_batch(settings, model, rows)
    ours = functools.partial(_generate, model, params, batch)
    theirs = peer and functools.partial(peer, batch)
    result[f"batch {rows}"] = _compared(ours, theirs, rows, settings)
  return result


def _generate(
  model: locvlm.LocVLM, params: dict, batch: dict, num: int
) -> jax.Array:
  """Generates `num` tokens for each row, [B, G]."""
  sampling = decode.Sampling(num, stop=(_NEVER,))
  return decode.generate(model, params, batch, sampling)


def _peer(settings: Settings, model: locvlm.LocVLM) -> Callable:
  """Returns the peer's function from a batch and G to greedy tokens [B, G]."""
  # It imports torch, which need not be installed.
  from locvlm_jax.bench import peers_decode

  return peers_decode.Generator(settings, model.config.llm.vocab_size)


def _loaded(settings: Settings) -> tuple[locvlm.LocVLM, dict]:
  """Reads the Llava directory."""
  params, config = huggingface.load_llava(settings.checkpoint)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=settings.dtype))
  dtype = jnp.dtype(settings.dtype)
  params = jax.tree.map(functools.partial(jnp.asarray, dtype=dtype), params)
  return locvlm.unstack_layers(model, params)


def random_model(settings: Settings) -> tuple[locvlm.LocVLM, dict]:
  """Draws weights for a model of the size --model."""
  config = workload.model_config(settings.model)
  model = locvlm.LocVLM(dataclasses.replace(config, dtype=settings.dtype))

  def init(key):
    params = locvlm.init_params(model, key)
    return jax.tree.map(lambda x: x.astype(settings.dtype), params)

  return locvlm.unstack_layers(model, jax.jit(init)(jax.random.key(0)))


def _compared(
  ours: Callable, theirs: Callable | None, rows: int, settings: Settings
) -> dict:
  """Times both in turn, and compares their tokens if the weights are alike."""
  contestants = {"ours": ours} | ({"peer": theirs} if theirs else {})
  num = settings.new_tokens
  # The first calls compile.
  firsts = {name: np.asarray(f(1)) for name, f in contestants.items()}
  answers = {name: np.asarray(f(num)) for name, f in contestants.items()}
  assert all(first.shape == (rows, 1) for first in firsts.values())
  seconds = {name: [] for name in contestants}
  for _ in range(settings.rounds):
    for name, generate in contestants.items():
      seconds[name].append((_seconds(generate, 1), _seconds(generate, num)))
  result = rates(seconds, rows, num)
  if theirs and not settings.model:
    result["same_tokens"] = float((answers["ours"] == answers["peer"]).mean())
  return result


def _seconds(generate: Callable, num: int) -> float:
  began = time.perf_counter()
  np.asarray(generate(num))
  return time.perf_counter() - began


def rates(
  seconds: Mapping[str, Sequence[tuple[float, float]]], rows: int, num: int
) -> dict:
  """Computes rates and, if there is a peer, ours over the peer's.

  Args:
    seconds: {contestant: (of one token, of `num` tokens) in each round}.
    rows: of the batch.
    num: tokens of an answer; above 1 for `decoded_per_s`.
  """
  result = {"tokens_per_s": {}, "prompts_per_s": {}, "decoded_per_s": {}}
  for name, each in seconds.items():
    found = {
      "tokens_per_s": [rows * num / whole for _, whole in each],
      "prompts_per_s": [rows / first for first, _ in each],
      # A round in which the longer answer took less says nothing.
      "decoded_per_s": [
        rows * (num - 1) / (whole - first)
        for first, whole in each
        if whole > first
      ],
    }
    for rate, values in found.items():
      result[rate][name] = timing.spread(values) if values else None
  for rate, ratio in _RATIOS.items():
    ours, peer = result[rate]["ours"], result[rate].get("peer")
    if ours and peer:
      result[ratio] = ours["median"] / peer["median"]
  return result


def _prompts(
  settings: Settings, model: locvlm.LocVLM, rows: int
) -> list[np.ndarray]:
  """Returns prompts of several lengths, each about one image."""
  visual = model.config.num_visual
  if settings.model:
    rng = np.random.default_rng(0)
    prompts = [
      rng.integers(3, model.config.llm.vocab_size, visual + n) for n in _TEXT
    ]
    for ids in prompts:
      ids[1 : 1 + visual] = formats.IMAGE_TOKEN
  else:
    text = tokenizer.Tokenizer.load(settings.checkpoint)
    prompts = [
      encoding.encode_prompt(text, formats.FORMATS["v1"], [], question, visual)
      for question in _QUESTIONS
    ]
  return [prompts[i % len(prompts)] for i in range(rows)]


def prompts_batch(
  settings: Settings, model: locvlm.LocVLM, rows: int
) -> dict[str, np.ndarray]:
  """Builds a batch of prompts, each with an image of noise."""
  prompts = _prompts(settings, model, rows)
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

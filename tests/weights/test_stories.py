"""A real LLaMA: stories260K of llama2.c writes what its authors say it does.

Eight query heads share four key/value heads; rotary positions turn pairs
(2i, 2i + 1), Meta's layout, which the conversion here turns into halves.
"""

import os
import pathlib
import struct

import numpy as np
import pytest
from toy_models import CONFIG, params_of

from locvlm_jax.inference import decode
from locvlm_jax.models import llama, locvlm

FOLDER = pathlib.Path(os.environ.get("LOCVLM_TEST_DATA", ""), "stories260K")
needs_data = pytest.mark.skipif(
  "LOCVLM_TEST_DATA" not in os.environ,
  reason="LOCVLM_TEST_DATA names no folder with stories260K/",
)
BOS = 1


def _halves(kernel, heads):
  """[L, H K, D], pairs side by side -> the same, first all firsts."""
  num_layers, _, width = kernel.shape
  pairs = kernel.reshape(num_layers, heads, -1, 2, width)
  return pairs.swapaxes(2, 3).reshape(kernel.shape)


def _read(path):
  """(config, params) of a llama2.c file; its kernels are [out, in]."""
  raw = path.read_bytes()
  width, hidden, layers, heads, kv_heads, vocab, _ = struct.unpack_from(
    "<7i", raw
  )
  head = width // heads
  numbers = np.frombuffer(raw, np.float32, offset=28)

  def take(*shape):
    nonlocal numbers
    part, numbers = np.split(numbers, [int(np.prod(shape))])
    return part.reshape(shape)

  def heads_last(kernel, num):
    return kernel.swapaxes(1, 2).reshape(layers, width, num, head)

  embedding, attention_norm = take(vocab, width), take(layers, width)
  q = heads_last(_halves(take(layers, width, width), heads), heads)
  kv = (layers, kv_heads * head, width)
  k = heads_last(_halves(take(*kv), kv_heads), kv_heads)
  v = heads_last(take(*kv), kv_heads)
  out = take(layers, width, width).swapaxes(1, 2)
  mlp_norm = take(layers, width)
  gate = take(layers, hidden, width).swapaxes(1, 2)
  down = take(layers, width, hidden).swapaxes(1, 2)
  up = take(layers, hidden, width).swapaxes(1, 2)
  attention = {
    "q": q,
    "k": k,
    "v": v,
    "out": out.reshape(layers, heads, head, width),
  }
  params = {
    "embedding": embedding,
    "final_norm": {"scale": take(width)},
    "layers": {
      "attention_norm": {"scale": attention_norm},
      "attention": attention,
      "mlp_norm": {"scale": mlp_norm},
      "mlp": {"gate": gate, "up": up, "down": down},
    },
  }
  config = llama.LlamaConfig(
    vocab_size=vocab,
    width=width,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=head,
    mlp_width=hidden,
    eps=1e-5,
    tie_embeddings=True,
  )
  return config, params


def _pieces(path):
  """The vocabulary: a score, a length and bytes each, after one number."""
  raw, at, pieces = path.read_bytes(), 4, []
  while at < len(raw):
    _, size = struct.unpack_from("<fi", raw, at)
    pieces.append(raw[at + 8 : at + 8 + size].decode())
    at += 8 + size
  return pieces


def _text(ids, pieces):
  words = [pieces[i] for i in ids]
  words = ["\n" if w == "<0x0A>" else w for w in words]
  return "".join(words).removeprefix(" ")


@needs_data
def test_the_documented_story():
  llm, params = _read(FOLDER / "stories260K.bin")
  config = locvlm.LocVLMConfig(
    vision=CONFIG.vision, adapter="linear", llm=llm, dtype="float32"
  )
  whole = {**params_of(config), "llm": params}
  batch = {
    "tokens": np.full((1, 8), BOS, np.int32),
    "lengths": np.array([1], np.int32),
  }
  sampling = decode.Sampling(max_new_tokens=256, stop=(BOS,))
  ids = decode.generate(locvlm.LocVLM(config), whole, batch, sampling)
  text = _text(np.asarray(ids)[0], _pieces(FOLDER / "tok512.bin"))
  documented = (FOLDER / "stories260K.md").read_text()
  wanted = documented.split("-t 0.0\n")[1].split("\n```")[0]
  assert len(wanted) == 565 and text == wanted

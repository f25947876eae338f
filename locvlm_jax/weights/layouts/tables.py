"""Where each tensor of a Hugging Face directory belongs: the key tables.

Our parameters are a nested dict; layers, stored one by one there, are stacked
on a leading axis here. Key tables list every tensor once: whatever a file holds
too much, too little, twice or in another shape is an error.

Layouts of one tensor:

  ours                stored               layout
  [D, *F]             [F..., D] as matrix  "linear"   x @ kernel
  [H, K, D]           [D, H K]             "merge"    the two heads dims first
  [P, P, 3, D]        [D, 3, P, P]         "patch"
  any                 same numbers         "plain"    biases lose head dims
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from locvlm_jax.models import clip_vit, llama, locvlm, lora, params

# Within one layer: end of our path -> (end of the stored key, layout).
CLIP_LAYER = {
  "attention/q": ("self_attn.q_proj.weight", "linear"),
  "attention/q_bias": ("self_attn.q_proj.bias", "plain"),
  "attention/k": ("self_attn.k_proj.weight", "linear"),
  "attention/k_bias": ("self_attn.k_proj.bias", "plain"),
  "attention/v": ("self_attn.v_proj.weight", "linear"),
  "attention/v_bias": ("self_attn.v_proj.bias", "plain"),
  "attention/out": ("self_attn.out_proj.weight", "merge"),
  "attention/out_bias": ("self_attn.out_proj.bias", "plain"),
  "attention_norm/scale": ("layer_norm1.weight", "plain"),
  "attention_norm/bias": ("layer_norm1.bias", "plain"),
  "mlp/up": ("mlp.fc1.weight", "linear"),
  "mlp/up_bias": ("mlp.fc1.bias", "plain"),
  "mlp/down": ("mlp.fc2.weight", "linear"),
  "mlp/down_bias": ("mlp.fc2.bias", "plain"),
  "mlp_norm/scale": ("layer_norm2.weight", "plain"),
  "mlp_norm/bias": ("layer_norm2.bias", "plain"),
}
CLIP_REST = {
  "class_embedding": ("embeddings.class_embedding", "plain"),
  "patch": ("embeddings.patch_embedding.weight", "patch"),
  "patch_bias": ("embeddings.patch_embedding.bias", "plain"),
  "position_embedding": ("embeddings.position_embedding.weight", "plain"),
  "pre_layernorm/scale": ("pre_layrnorm.weight", "plain"),
  "pre_layernorm/bias": ("pre_layrnorm.bias", "plain"),
  "unused/post_layernorm/scale": ("post_layernorm.weight", "plain"),
  "unused/post_layernorm/bias": ("post_layernorm.bias", "plain"),
}
LLAMA_LAYER = {
  "attention/q": ("self_attn.q_proj.weight", "linear"),
  "attention/k": ("self_attn.k_proj.weight", "linear"),
  "attention/v": ("self_attn.v_proj.weight", "linear"),
  "attention/q_bias": ("self_attn.q_proj.bias", "plain"),
  "attention/k_bias": ("self_attn.k_proj.bias", "plain"),
  "attention/v_bias": ("self_attn.v_proj.bias", "plain"),
  "attention/out": ("self_attn.o_proj.weight", "merge"),
  "attention_norm/scale": ("input_layernorm.weight", "plain"),
  "mlp/gate": ("mlp.gate_proj.weight", "linear"),
  "mlp/up": ("mlp.up_proj.weight", "linear"),
  "mlp/down": ("mlp.down_proj.weight", "linear"),
  "mlp_norm/scale": ("post_attention_layernorm.weight", "plain"),
}
LLAMA_REST = {
  "embedding": ("model.embed_tokens.weight", "plain"),
  "final_norm/scale": ("model.norm.weight", "plain"),
  "head": ("lm_head.weight", "linear"),
}
ADAPTER = {
  "linear_1": ("linear_1.weight", "linear"),
  "linear_1_bias": ("linear_1.bias", "plain"),
  "linear_2": ("linear_2.weight", "linear"),
  "linear_2_bias": ("linear_2.bias", "plain"),
}
# Stored, but not parameters of ours.
CLIP_IGNORED = (
  r"text_model\..*|head\..*|logit_bias|.*_projection\.weight|logit_scale|.*position_ids"
  r"|(model\.)?(language_model|multi_modal_projector|lm_head)\..*"
)
LLAMA_IGNORED = r".*rotary_emb\.inv_freq"
LLAVA_IGNORED = rf"{LLAMA_IGNORED}|.*position_ids|vision_tower\.head\..*"
# Today's and earlier spellings of a key -> the tables' one.
CLIP_RENAMES = ((r"^((model\.)?vision_tower\.)?(vision_model\.)?", ""),)
LLAVA_RENAMES = (
  (r"^model\.language_model\.", "language_model.model."),
  (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
  (r"^vision_tower\.vision_model\.", "vision_tower."),
)
# Original LLaVA: the LLM's own keys, and the projector among them.
ORIGINAL_RENAMES = (
  (r"^base_model\.model\.", ""),
  (r"^model\.(mm_projector|vision_tower)\.", r"\1."),
  (
    r"^mm_projector\.(0\.)?(weight|bias)$",
    r"multi_modal_projector.linear_1.\2",
  ),
  (r"^vision_tower\.vision_tower\.(vision_model\.)?", "vision_tower."),
  (r"^mm_projector\.2\.", "multi_modal_projector.linear_2."),
  (r"^(model|lm_head)\.", r"language_model.\1."),
)


class Leaf(NamedTuple):
  """One stored tensor, and where it belongs.

  Attributes:
    key: its name in the file.
    path: our parameter, "a/b/c".
    layer: index into our parameter's leading axis, or None: all of it.
    layout: see the module.
    shape: of our parameter (without the leading axis where layer is given).
  """

  key: str
  path: str
  layer: int | None
  layout: str
  shape: tuple[int, ...]

  @property
  def stored_shape(self) -> tuple[int, ...]:
    """The tensor's shape in the file."""
    first, *rest = self.shape
    if self.layout == "linear":
      return math.prod(rest), first
    if self.layout == "merge":
      return self.shape[-1], math.prod(self.shape[:-1])
    if self.layout == "patch":
      return self.shape[3], self.shape[2], *self.shape[:2]
    if self.path.endswith("bias"):
      return (math.prod(self.shape),)
    return self.shape

  def stored_index(self, index: Sequence[slice]) -> tuple[slice, ...]:
    """Finds where a slice of `shape` is in `stored_shape`.

    Of dims that are one in the file, only the first may be cut.
    """
    first, *rest = index
    if self.layout == "linear":
      return _folded(rest, self.shape[1:]), first
    if self.layout == "merge":
      return index[-1], _folded(index[:-1], self.shape[:-1])
    if self.layout == "patch":
      return index[3], index[2], *index[:2]
    if self.path.endswith("bias"):
      return (_folded(index, self.shape),)
    return tuple(index)

  def ours(self, stored: np.ndarray) -> np.ndarray:
    """Turns a stored array into our layout."""
    return to_ours(stored, self.layout, self.shape)

  def stored(self, ours: np.ndarray) -> np.ndarray:
    """Turns our array into the stored layout."""
    if self.layout == "patch":
      return ours.transpose(3, 2, 0, 1)
    if self.layout in ("linear", "merge"):
      first, last = self.stored_shape
      return ours.reshape(last, first).T
    return ours.reshape(self.stored_shape)


def _folded(index: Sequence[slice], shape: Sequence[int]) -> slice:
  """A slice of dims as one of the single dim that they make together."""
  bounds = [s.indices(n) for s, n in zip(index, shape, strict=True)]
  inner = [(0, n, 1) for n in shape[1:]]
  assert bounds[1:] == inner, "no rule of sharding cuts a head"
  step = math.prod(shape[1:])
  return slice(bounds[0][0] * step, bounds[0][1] * step)


def to_ours(stored: np.ndarray, layout: str, shape: tuple[int, ...]):
  """Views a stored array in our layout, which gives it `shape`."""
  if layout == "patch":
    return stored.transpose(2, 3, 1, 0)
  if layout in ("linear", "merge"):
    stored = stored.T
  return stored.reshape(shape)


def clip_leaves(
  config: clip_vit.VisionConfig, shapes: Mapping | None = None
) -> list[Leaf]:
  """Makes the key table of a vision tower; keys without any prefix.

  Args:
    config: of the tower.
    shapes: {path: shape} of its parameters; None: they are traced.
  """
  shapes = shapes or _vision_shapes(config)
  leaves = _rest(CLIP_REST, shapes)
  used = config.num_used_layers
  for first, stack in ((0, "layers"), (used, "unused/layers")):
    leaves += _stacked(CLIP_LAYER, shapes, stack, "encoder.layers", first)
  return _complete(leaves, shapes)


def llama_leaves(
  config: llama.LlamaConfig, shapes: Mapping | None = None
) -> list[Leaf]:
  """Makes the key table of a language model; arguments as `clip_leaves`."""
  shapes = shapes or _llama_shapes(config)
  leaves = _rest(LLAMA_REST, shapes)
  leaves += _stacked(LLAMA_LAYER, shapes, "layers", "model.layers", 0)
  return _complete(leaves, shapes)


def llava_leaves(config: locvlm.LocVLMConfig) -> list[Leaf]:
  """Makes the key table of a whole model; a linear adapter has no linear_2."""
  wide, width = config.vision.width, config.llm.width
  shapes = {"linear_1": (wide, width), "linear_1_bias": (width,)}
  if config.adapter == "mlp":
    shapes |= {"linear_2": (width, width), "linear_2_bias": (width,)}
  merged = dataclasses.replace(config, lora=lora.LoraConfig())
  whole = params.param_shapes(locvlm.LocVLM(merged))

  def of(part: str) -> dict[str, tuple]:
    own = {p.partition("/"): x.shape for p, x in whole.items()}
    return {rest: shape for (top, _, rest), shape in own.items() if top == part}

  parts = (
    ("vision", "vision_tower", clip_leaves(config.vision, of("vision"))),
    ("adapter", "multi_modal_projector", _rest(ADAPTER, shapes)),
    ("llm", "language_model", llama_leaves(config.llm, of("llm"))),
  )
  return [
    leaf._replace(key=f"{theirs}.{leaf.key}", path=f"{ours}/{leaf.path}")
    for ours, theirs, leaves in parts
    for leaf in leaves
  ]


@functools.cache
def _vision_shapes(config: clip_vit.VisionConfig) -> dict[str, tuple]:
  size = (1, config.image_size, config.image_size, 3)
  images = jax.ShapeDtypeStruct(size, jnp.uint8)
  return _shapes(clip_vit.ClipVit(config), images)


@functools.cache
def _llama_shapes(config: llama.LlamaConfig) -> dict[str, tuple]:
  model = llama.Llama(config)
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)

  def touch(m, tokens):
    return m.logits(m(m.embed(tokens)))

  return _shapes(model, tokens, method=touch)


def _shapes(model, *args, method=None) -> dict[str, tuple]:
  init = functools.partial(model.init, method=method)
  params = jax.eval_shape(init, jax.random.key(0), *args)["params"]
  flat = traverse_util.flatten_dict(params, sep="/")
  return {path: x.shape for path, x in flat.items()}


def _rest(table: Mapping, shapes: Mapping) -> list[Leaf]:
  """Leaves of the parameters that exist, of those that `table` lists."""
  return [
    Leaf(key, path, None, layout, shapes[path])
    for path, (key, layout) in table.items()
    if path in shapes
  ]


def _stacked(
  table: Mapping, shapes: Mapping, ours: str, theirs: str, first: int
) -> list[Leaf]:
  """Leaves of one stack of layers, the first of which is stored as `first`."""
  return [
    Leaf(f"{theirs}.{first + i}.{key}", path, i, layout, shapes[path][1:])
    for end, (key, layout) in table.items()
    if (path := f"{ours}/{end}") in shapes
    for i in range(shapes[path][0])
  ]


def _complete(leaves: list[Leaf], shapes: Mapping) -> list[Leaf]:
  """The table covers all parameters; if not, that is our mistake."""
  assert {leaf.path for leaf in leaves} == shapes.keys()
  return leaves

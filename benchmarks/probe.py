"""Probes what a frozen ViT says of an object: its category and its box.

  python -m benchmarks.probe --weights locvlm_jax/assets/micro_base \\
    --root runs/microworld

Fits two linear probes on the mean feature of the patches that an object's box
touches, on the first training images, and scores them on the validation images.
An LLM finds by attention what such a probe finds; what is not linear here, it
learns late.

Letters: N objects, P patches, D width, C categories.
"""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from einops import rearrange
from jaxtyping import Array, Float, Int

from locvlm_jax import command
from locvlm_jax.data import geometry
from locvlm_jax.data.boxes import iou
from locvlm_jax.data.media import images as images_lib
from locvlm_jax.data.sources import coco
from locvlm_jax.models import clip_vit
from locvlm_jax.weights.layouts import huggingface

_WEIGHTS = flags.DEFINE_string("weights", None, "A Llava or CLIP directory.")
_ROOT = flags.DEFINE_string("root", None, "A micro-world.")
_IMAGES = flags.DEFINE_integer("images", 4000, "Training images.", 1)
_SPLITS = ("train", "val")


def objects(split: str, encode, size: int, limit: int):
  """Returns features [N, D], categories [N] and boxes [N, 4] in [0, 1]."""
  notes = f"{_ROOT.value}/annotations/instances_{split}.json"
  source = coco.Instances(notes, f"{_ROOT.value}/images/{split}")
  found = []
  for record in (source[i] for i in range(min(limit, len(source)))):
    image = images_lib.load_image(record.image)
    transform = geometry.make("square", *image.size, size)
    features = encode(transform.apply_image(image)[None])[0]
    count = Counter(o.category for o in record.objects)
    for o in (o for o in record.objects if count[o.category] == 1):
      box = transform.apply_box(o.box)
      if box is not None and not o.crowd:
        kind = source.categories.index(o.category)
        found.append((_mean_inside(features, box), kind, box))
  return tuple(np.array(column) for column in zip(*found, strict=True))


def _mean_inside(
  features: Float[np.ndarray, "P D"], box
) -> Float[np.ndarray, " D"]:
  """Averages the features of the patches that a box touches."""
  grid = round(len(features) ** 0.5)
  x1, y1 = (int(v * grid) for v in box[:2])
  x2, y2 = (max(int(np.ceil(v * grid)), 1) for v in box[2:])
  square = rearrange(features, "(h w) d -> h w d", h=grid)
  return square[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].mean((0, 1))


def logistic(
  x: Float[Array, "N D"], labels: Int[Array, " N"], classes: int
) -> Float[Array, "D C"]:
  """Fits the weights of a logistic regression by 200 steps of Adam."""

  def loss(w):
    cross = optax.softmax_cross_entropy_with_integer_labels(x @ w, labels)
    return cross.mean() + 1e-4 * jnp.square(w).sum()

  tx = optax.adam(2e-2)

  def step(carry, _):
    w, state = carry
    updates, state = tx.update(jax.grad(loss)(w), state)
    return (w + updates, state), None

  w = jnp.zeros((x.shape[1], classes))
  return jax.lax.scan(step, (w, tx.init(w)), length=200)[0][0]


def main(argv: list[str]) -> None:
  """Prints how often the probes are right on held-out images."""
  del argv
  params, config = huggingface.load_clip_vision(_WEIGHTS.value)
  vit = clip_vit.ClipVit(config, unroll=config.num_layers)
  params = jax.tree.map(jnp.asarray, params)
  encode = jax.jit(lambda images: vit.apply({"params": params}, images))
  data = [
    objects(s, lambda x: np.asarray(encode(x)), config.image_size, n)
    for s, n in zip(_SPLITS, (_IMAGES.value, 10**9), strict=True)
  ]
  mean, std = data[0][0].mean(0), data[0][0].std(0) + 1e-6
  x, held_out = (
    np.pad((d[0] - mean) / std, ((0, 0), (0, 1)), constant_values=1)
    for d in data
  )
  named = held_out @ logistic(x, data[0][1], int(data[0][1].max()) + 1)
  boxes = held_out @ np.linalg.lstsq(x, data[0][2], rcond=None)[0]
  right = (np.asarray(named).argmax(1) == data[1][1]).mean()
  found = np.mean([iou(*b) >= 0.5 for b in zip(boxes, data[1][2], strict=True)])
  print(f"{len(x)} objects to fit, {len(held_out)} held out")
  print(f"category {right:.3f}  box at IoU 0.5 {found:.3f}")


if __name__ == "__main__":
  command.run(main, required=["weights", "root"])

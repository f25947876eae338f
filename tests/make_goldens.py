"""Makes tests/golden/*.npz: `python tests/make_goldens.py` (needs PyTorch).

Runs transformers' CLIP, LLaMA and LLaVA at toy size in float32 and stores
inputs, results, config.json and the names and shapes of the tensors that it
writes. The weights are not stored: `weight` makes the same ones anywhere.
"""

import json
import os
import pathlib
import tempfile
import zlib

import numpy as np
import safetensors.numpy
from paths import GOLDEN

IMAGE_TOKEN = -1
VISION = {
  "image_size": 32, "patch_size": 8, "hidden_size": 32,
  "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
TEXT = {
  "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2,
  "num_attention_heads": 4, "num_key_value_heads": 2,
  "intermediate_size": 48, "max_position_embeddings": 128,
}  # fmt: skip
# What differs from TEXT, by name of the golden file.
LLAMAS = {
  "llama": {},
  "llama_tied": {"tie_word_embeddings": True, "head_dim": 16,
                 "rms_norm_eps": 1e-5, "rope_theta": 500.0},
  "qwen2": {},
  "llama3": {"rope_parameters": {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16}},
}  # fmt: skip
ODD_SIZE = 40  # 5 x 5 patches
IMAGE_ID = 63  # transformers' stand-in for IMAGE_TOKEN


def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 numbers of one stored tensor; they depend on its name."""
  rng = np.random.default_rng(zlib.crc32(key.encode()))
  x = rng.standard_normal(shape, np.float32)
  if len(shape) == 1:
    return 0.1 * x + np.float32("norm" in key and "weight" in key)
  return x * np.float32(1.5 / np.sqrt(np.prod(shape[1:])))


def write(directory, golden) -> str:
  """Writes the directory that transformers had when `golden` was made."""
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  (directory / "config.json").write_text(str(golden["config"]))
  shapes = json.loads(str(golden["shapes"]))
  tensors = {key: weight(key, tuple(shape)) for key, shape in shapes.items()}
  safetensors.numpy.save_file(
    tensors, directory / "model.safetensors", metadata={"format": "pt"}
  )
  return str(directory)


def images(count: int, size: int = VISION["image_size"]) -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def tokens(
  image: bool, num_images: int = 1, num_visual: int = 16
) -> np.ndarray:
  """Two rows; with images, their visual tokens after the first tokens."""
  text = np.random.default_rng(1).integers(3, 63, (2, 12)).astype(np.int32)
  block = np.full((2, num_visual if image else 0), IMAGE_TOKEN, np.int32)
  parts = [x for i in range(num_images) for x in (text[:, i : i + 1], block)]
  return np.concatenate([*parts, text[:, num_images:]], axis=1)


def pixels(images_: np.ndarray, siglip: bool = False):
  """What the family's image processor makes of images of the right size."""
  import torch

  mean = np.array([0.5] * 3 if siglip else [0.48145466, 0.4578275, 0.40821073])
  std = np.array([0.5] * 3 if siglip else [0.26862954, 0.26130258, 0.27577711])
  x = (images_ / 255 - mean) / std
  return torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32)


def run(model, golden_inputs) -> np.ndarray:
  """Penultimate patch features, or logits, of a transformers model."""
  import torch

  inputs = {}
  vision = getattr(model.config, "vision_config", model.config)
  siglip = vision.model_type == "siglip_vision_model"
  if "tokens" in golden_inputs:
    ids = golden_inputs["tokens"]
    inputs["input_ids"] = torch.tensor(np.where(ids < 0, IMAGE_ID, ids)).long()
  if "images" in golden_inputs:
    flat = golden_inputs["images"].reshape(
      -1, *golden_inputs["images"].shape[-3:]
    )
    inputs["pixel_values"] = pixels(flat, siglip)
  with torch.no_grad():
    if "input_ids" not in inputs:
      states = model(**inputs, output_hidden_states=True).hidden_states
      return states[-2][:, 0 if siglip else 1 :].numpy()
    return model(**inputs).logits.numpy()


def _flat(images_: np.ndarray) -> np.ndarray:
  """[B, K, H, W, 3] as transformers has it: the images of all rows."""
  return images_.reshape(-1, *images_.shape[-3:])


def greedy(model, golden_inputs, num: int) -> np.ndarray:
  """The next `num` tokens [B, num], whatever they are."""
  import torch

  ids = golden_inputs["tokens"]
  inputs = {"input_ids": torch.tensor(np.where(ids < 0, IMAGE_ID, ids)).long()}
  inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
  inputs["pixel_values"] = pixels(_flat(golden_inputs["images"]))
  out = model.generate(
    **inputs,
    do_sample=False,
    max_new_tokens=num,
    min_new_tokens=num,
    eos_token_id=None,
    pad_token_id=0,
    bad_words_ids=[[IMAGE_ID]],
  )
  return out[:, ids.shape[1] :].numpy().astype(np.int32)


def loaded(kind, directory: str):
  """A transformers model of a directory, which holds exactly its tensors."""
  model, info = kind.from_pretrained(directory, output_loading_info=True)
  for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
    assert not info[name], (name, info[name])
  return model.float().eval()


def make(
  name: str, model, inputs: dict[str, np.ndarray], num_greedy: int = 0
) -> None:
  """Gives `model` our weights, runs it and stores what came out."""
  with tempfile.TemporaryDirectory() as directory:
    model.save_pretrained(directory)
    path = os.path.join(directory, "model.safetensors")
    stored = safetensors.numpy.load_file(path)
    golden = {
      "config": pathlib.Path(directory, "config.json").read_text(),
      "shapes": json.dumps({k: v.shape for k, v in sorted(stored.items())}),
    }
    write(directory, golden)
    again = loaded(type(model), directory)
    output = run(again, inputs)
    if num_greedy:
      inputs = inputs | {"greedy": greedy(again, inputs, num_greedy)}
  np.savez_compressed(GOLDEN / f"{name}.npz", **golden, **inputs, output=output)
  print(f"{name}: {output.shape}, rms {np.sqrt((output**2).mean()):.3f}")


def main() -> None:
  import transformers

  GOLDEN.mkdir(exist_ok=True)
  for act in ("quick_gelu", "gelu"):
    config = transformers.CLIPVisionConfig(**VISION, hidden_act=act)
    model = transformers.CLIPVisionModel(config)
    make(f"clip_{act}", model, {"images": images(2)})
  config = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
  make("siglip", transformers.SiglipVisionModel(config), {"images": images(2)})
  for name, changes in LLAMAS.items():
    family = "Qwen2" if name == "qwen2" else "Llama"
    config = getattr(transformers, f"{family}Config")(**(TEXT | changes))
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    make(name, model, {"tokens": tokens(image=False)})
  for name, changes, num in (
    ("llava", {}, 1),
    ("llava_images", {"image_size": ODD_SIZE}, 2),
  ):
    config = transformers.LlavaConfig(
      vision_config=transformers.CLIPVisionConfig(**(VISION | changes)),
      text_config=transformers.LlamaConfig(**TEXT),
      image_token_index=IMAGE_ID,
      vision_feature_layer=-2,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    size = config.vision_config.image_size
    pictures = images(2 * num, size).reshape(2, num, size, size, 3)
    visual = (size // VISION["patch_size"]) ** 2
    inputs = {"tokens": tokens(True, num, visual), "images": pictures}
    make(name, model, inputs, 64)


if __name__ == "__main__":
  main()

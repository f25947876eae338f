"""Files about videos, as sources."""

import json


def source(root, kind, split="train"):
  """Opens a micro-world's videos as a source of this kind."""
  return kind(f"{root}/annotations/videos_{split}.json", f"{root}/videos")


def opened(folder, content, kind):
  """Writes a file about the videos of a folder, and opens it."""
  path = folder / "clips.json"
  path.write_text(json.dumps(content))
  return kind(str(path), str(folder))


def turn(question, answer="A dog."):
  """A question and its answer in LLaVA's format."""
  return [
    {"from": "human", "value": question},
    {"from": "gpt", "value": answer},
  ]

"""Makes tests/golden/conversations.json and spaces.* with SentencePiece.

  LOCVLM_TEST_DATA=DIR python tests/make_token_goldens.py

Renders whole conversations as LLaVA does (LLaVA:llava/conversation.py and, for
v0, llava/train/train.py), cuts them at the image and at <s> and </s> as its
slow tokenizer does, and encodes each part. The package goes another way, piece
by piece, so that the two can only agree if both are right. An answer is what
lies behind the last text of its question, found by encoding that much alone.

spaces.model is trained here on the package's own code; as in LLaMA's, runs of
spaces are pieces of the lowest score. spaces.json has what it makes of texts.
"""

import io
import json
import os
import pathlib
import re

from paths import GOLDEN, ROOT

IMAGE = "<image>"
NUM_VISUAL = 2
TURNS = (
  ("Where is the cat?", "It is at [12,34,150,98]."),
  ("And the dog?", "There is no dog."),
  ("What is at (0.5012, 12.34)?", "a cup\nand its saucer"),
)
CASES = {
  "one turn, image": (TURNS[:1], True),
  "three turns, image": (TURNS, True),
  "two turns, text": (TURNS[:2], False),
}
PATH = GOLDEN / "conversations.json"
SPACES = GOLDEN / "spaces.model"
SPACED = (
  "a  b", "is there  fish", "  two spaces first", "ends in two  ", " ", "   ",
  "def f(x):\n    if x:\n        return [1,  2]\n\treturn  {'a':   0}",
  "----  ====  ....", "x" + " " * 40 + "y", "\u2581 \u4e2d\u6587   \u00e9",
  "large  [0]->and:  [1, 2]", "<0x0A> <s>  </s>", "12  345",
)  # fmt: skip
_V1 = (
  "A chat between a curious user and an artificial intelligence assistant. The"
  " assistant gives helpful, detailed, and polite answers to the user's"
  " questions."
)
_LLAMA_2 = (
  "You are a helpful language and vision assistant. You are able to understand"
  " the visual content that the user provides, and assist the user with a"
  " variety of tasks using natural language."
)


def plain(turns):
  yield IMAGE, turns[0][1] + "\n"


def v0(turns):
  start = _V1.replace("user", "human") + "\n\n###"
  for question, answer in turns:
    yield f"{start} Human: {question}\n### Assistant:", f" {answer}\n###"
    start = ""


def v1(turns):
  start = _V1 + " "
  for question, answer in turns:
    yield f"{start}USER: {question} ASSISTANT:", f" {answer}</s>"
    start = ""


def llama_2(turns):
  start = f"[INST] <<SYS>>\n{_LLAMA_2}\n<</SYS>>\n\n"
  for question, answer in turns:
    yield f"{start}{question} [/INST]", f" {answer} </s>"
    start = "<s>[INST] "


def encode(model, text: str) -> list[int]:
  """The ids of a whole text; it is cut at the image and at special tokens."""
  ids = [1]
  specials = {"<s>": [1], "</s>": [2], IMAGE: [-1] * NUM_VISUAL}
  for part in re.split("(<image>|</?s>)", text):
    ids += specials.get(part) or model.encode(part)
  return ids


def conversation(model, render, turns, image) -> dict[str, list[int]]:
  """tokens, and targets: the positions that are trained."""
  if image and render is not plain:
    turns = [(f"{IMAGE}\n{turns[0][0]}", turns[0][1]), *turns[1:]]
  parts = list(render(turns))
  tokens, targets, text = encode(model, "".join(map("".join, parts))), [], ""
  for asked, answered in parts:
    start, text = len(encode(model, text + asked)), text + asked + answered
    end = len(encode(model, text))
    targets += range(start, end)
  return {"tokens": tokens, "targets": targets}


def write_spaces():
  """Trains spaces.model, and writes what SentencePiece makes of SPACED."""
  import sentencepiece
  from sentencepiece import sentencepiece_model_pb2

  code = (ROOT / "locvlm_jax").rglob("*.py")
  lines = [x for path in sorted(code) for x in path.read_text().splitlines()]
  trained = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines),
    model_writer=trained,
    model_type="bpe",
    vocab_size=700,
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    character_coverage=1.0,
    minloglevel=2,
  )
  proto = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
  for piece in proto.pieces:
    if not piece.piece.strip("\u2581"):
      piece.score = -1e9
  proto.trainer_spec.ClearField("input")
  SPACES.write_bytes(proto.SerializeToString())
  processor = sentencepiece.SentencePieceProcessor(model_file=str(SPACES))
  content = {text: processor.encode(text) for text in SPACED}
  SPACES.with_suffix(".json").write_text(json.dumps(content, indent=0) + "\n")


def main():
  import sentencepiece

  folder = pathlib.Path(os.environ["LOCVLM_TEST_DATA"], "tokenizers")
  model = sentencepiece.SentencePieceProcessor(
    str(folder / "llama2_tokenizer.model")
  )
  golden = {
    render.__name__: {
      name: conversation(model, render, turns, image)
      for name, (turns, image) in CASES.items()
      if render is not plain or (image and len(turns) == 1)
    }
    for render in (plain, v0, v1, llama_2)
  }
  PATH.write_text(json.dumps(golden) + "\n")
  write_spaces()


if __name__ == "__main__":
  main()

"""What lmms-eval asks for, as questions and as a way to decode."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from locvlm_jax.inference.predictor import Decoding
from locvlm_jax.inference.question import Question

# What a task may say of decoding that changes nothing here.
_WITHOUT_EFFECT = {"num_beams": (1, None), "do_sample": (True, False, None)}


def decoding_of(kwargs: Mapping[str, Any]) -> Decoding:
  """Reads a task's generation_kwargs.

  Raises:
    ValueError: names what can't be done.
  """
  left = dict(kwargs)
  for name, allowed in _WITHOUT_EFFECT.items():
    if left.get(name) not in allowed:
      raise ValueError(f"generation_kwargs: {name} {left[name]!r} is not done")
  sampled = left.pop("do_sample", None) is not False
  left.pop("num_beams", None)
  until = left.pop("until", None) or ()
  stop = (until,) if isinstance(until, str) else tuple(until)
  temperature = float(left.pop("temperature", None) or 0)
  found = Decoding(
    max_new_tokens=int(left.pop("max_new_tokens", 128)),
    temperature=temperature if sampled else 0.0,
    top_p=float(left.pop("top_p", None) or 1.0),
    top_k=int(left.pop("top_k", None) or 0),
    seed=int(left.pop("seed", None) or 0),
    stop=stop,
  )
  if left:
    raise ValueError(f"generation_kwargs: {', '.join(left)}: not known here")
  return found


def question_of(id: str, messages: Sequence[Mapping]) -> Question:
  """Makes a question of a conversation; pictures come before all its text.

  Args:
    id: tells it from the others.
    messages: of lmms-eval: role, and content as parts; the last one asks.

  Raises:
    ValueError: another role, or no alternation of questions and answers.
  """
  texts, pictures = [], []
  for message, role in zip(messages, itertools.cycle(("user", "assistant"))):
    if message["role"] != role:
      raise ValueError(
        f"a message of {message['role']!r}: {role!r} is expected"
      )
    parts = message["content"]
    texts.append("".join(p["text"] for p in parts if p["type"] == "text"))
    pictures += [p["url"] for p in parts if p["type"] in ("image", "video")]
  if len(texts) % 2 == 0:
    raise ValueError("the last message has to be the user's")
  history = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
  return Question(id, tuple(pictures) or None, texts[-1], history)

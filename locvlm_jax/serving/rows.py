"""What is asked of a writer, and what it answers."""

import dataclasses

from locvlm_jax.inference.question import Question

# Kinds of batches; see writer.py.
GREEDY, DETAILED, LOCATED, LISTED = "greedy", "detailed", "located", "listed"


@dataclasses.dataclass(frozen=True)
class Row:
  """One answer that is asked for.

  Attributes:
    question: what the model is asked.
    kind: of the batch that it can be part of.
    temperature, top_p, seed: of the sampling.
    limit: tokens, at most.
    stop: texts that end it.
  """

  question: Question
  kind: str = GREEDY
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int = 0
  limit: int = 1
  stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Token:
  """A token of an answer.

  Attributes:
    text: of it.
    log_probability: among all tokens.
    likely: (text, log-probability) of the likeliest ones, these first.
  """

  text: str
  log_probability: float
  likely: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
  """What is written of an answer so far.

  Attributes:
    text: from its beginning.
    num_tokens: that it took.
    finish: why nothing follows: "stop" or "length"; empty: more follows.
    tokens: with their probabilities, where these were asked for.
    probabilities: of the boxes of a located or listed answer, in its order.
  """

  text: str
  num_tokens: int
  finish: str
  tokens: tuple[Token, ...] = ()
  probabilities: tuple[float, ...] = ()

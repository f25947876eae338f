"""Conversation formats: how questions and answers become one text.

IMAGE_TOKEN marks the places of visual tokens in a row of token ids.
"""

import dataclasses

# Stands for one visual token in `tokens`; no vocabulary has a negative id.
IMAGE_TOKEN = -1
EOS = "</s>"  # stands for the tokenizer's own, whatever its name


@dataclasses.dataclass(frozen=True)
class Format:
  """How a conversation becomes text; <img> is where the image goes.

    {start}<img>\\n{question}{assistant} {answer}{end}{user}{question}...

  Attributes:
    name: the key in FORMATS; LLaVA's `--version`.
    start: the text before the first question and its image.
    user: the text before a later question.
    assistant: the text after a question.
    end: what follows an answer, is trained with it and stops generation;
      EOS in it is the token.
    bos: whether a later question has a token of its own that starts it.
    questions: False where an image stands alone and its caption follows.
  """

  name: str
  start: str = ""
  user: str = "USER: "
  assistant: str = " ASSISTANT:"
  end: str = EOS
  bos: bool = False
  questions: bool = True


def _chat(who: str) -> str:
  return (
    f"A chat between a curious {who} and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the"
    f" {who}'s questions."
  )


_LLAMA_2 = (
  "You are a helpful language and vision assistant. You are able to understand"
  " the visual content that the user provides, and assist the user with a"
  " variety of tasks using natural language."
)

# Facts from LLaVA:llava/conversation.py and llava/train/train.py. There,
# "plain" appends no end-of-text token, and "v0" is rendered with line breaks
# for training and without them for evaluation: here always as in training.
FORMATS = {
  f.name: f
  for f in (
    Format("plain", user="", assistant="", end="\n", questions=False),
    Format(
      "v0",
      start=_chat("human") + "\n\n### Human: ",
      user="Human: ",
      assistant="\n### Assistant:",
      end="\n###",
    ),
    Format("v1", start=_chat("user") + " USER: "),
    Format(
      "llama_2",
      start=f"[INST] <<SYS>>\n{_LLAMA_2}\n<</SYS>>\n\n",
      user="[INST] ",
      assistant=" [/INST]",
      end=" " + EOS,
      bos=True,
    ),
    Format("bare", start="USER: "),  # ours: v1 without the system text
  )
}

"""Serves a model over HTTP, in OpenAI's form, with a page to try it on.

  python -m locvlm_jax.serve                       the micro model, its pictures
  python -m locvlm_jax.serve --checkpoint runs/b2 --port 8000

Then http://127.0.0.1:8000/ is the page, and OpenAI's clients take
http://127.0.0.1:8000/v1 as their base_url; docs/serving.md says what they may
send. The variable LOCVLM_SERVE_TOKEN of the environment sets a token that every
request has to bring. It ends on SIGTERM or Ctrl-C, after the answers that are
under way. Needs the extra: pip install -e '.[serve]'
"""

import contextlib
import logging
import os
import re
import time

from absl import flags

from locvlm_jax import command

_CONFIG = command.define_config(
  "The config of a model that does not say how it was trained."
)
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "", "A run's workdir, or a Llava directory; default: the micro"
  " model of this package.",
)  # fmt: skip
_HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on.")
_PORT = flags.DEFINE_integer("port", 8000, "The port; 0: any.", 0, 65535)
_NAME = flags.DEFINE_string(
  "name", "", "What clients call the model; default: the folder's name."
)
_ROWS = flags.DEFINE_integer("rows", 16, "Answers of a batch.", 1)
_KEPT = flags.DEFINE_integer(
  "kept_pictures",
  0,
  "Conversations' pictures whose keys and values are kept;"
  " 0: as many as 4 GB hold, 64 at most.",
  0,
)
_NEW_TOKENS = flags.DEFINE_integer(
  "max_new_tokens", 128, "Of an answer, at most.", 1
)
_PROMPT_TOKENS = flags.DEFINE_integer(
  "max_prompt_tokens", 256, "Of a conversation's text, at most.", 16
)
_PICTURES = flags.DEFINE_integer(
  "max_pictures", 4, "Of a conversation, at most.", 1
)
_MEGABYTES = flags.DEFINE_integer(
  "max_megabytes", 20, "Of a request, at most.", 1
)
_MEGAPIXELS = flags.DEFINE_integer(
  "max_megapixels", 40, "Of a picture, at most.", 1
)
_LISTS = flags.DEFINE_bool(
  "lists", None, "Whether \"Find every cup.\" is answered by a legal list where"
  " constrained answers are asked for; default: if the model was trained on it"
  " (data.objectives.detect).",
)  # fmt: skip
_BOXES = flags.DEFINE_integer(
  "max_boxes", 20, "Of a category, in a list, at most.", 1
)
_QUEUE = flags.DEFINE_integer("queue", 256, "Answers that may wait.", 1)
_SECONDS = flags.DEFINE_integer("seconds", 120, "That an answer may take.", 1)
_LOG_TEXTS = flags.DEFINE_bool(
  "log_texts", False, "Log questions and answers, not only size and time."
)
_OVERRIDE = command.define_override()


def main(argv: list[str]) -> None:
  """Loads and compiles, then serves until it is asked to end."""
  del argv
  try:
    from locvlm_jax.serving.http import app, requests, web
  except ModuleNotFoundError as error:
    raise ValueError(
      f"{error.name} is not installed: pip install -e '.[serve]'"
    ) from None
  from locvlm_jax.inference import model as model_lib
  from locvlm_jax.serving import examples, loading

  if _NAME.value and not re.fullmatch(r"[\w.-]+", _NAME.value):
    raise ValueError(f"--name={_NAME.value}: use letters, digits, . _ and -")
  bounds = _limits()
  _log_to_standard_error(requests.LOG)
  with contextlib.closing(web.listen(_HOST.value, _PORT.value)) as listener:
    start = time.monotonic()
    folder = _CHECKPOINT.value or model_lib.DEFAULT
    config = _config(folder)
    model = model_lib.Model.load(folder, config=config)
    lists = config.data.objectives.detect > 0
    lists = lists if _LISTS.value is None else _LISTS.value
    name = os.path.basename(os.path.abspath(folder))
    name = _NAME.value or re.sub(r"[^\w.-]", "-", name)
    served = loading.serve_model(
      model, name, bounds, _ROWS.value, _KEPT.value, lists
    )
    shown = () if _CHECKPOINT.value else examples.micro_world()
    guarded = requests.Guard(
      app.make(served, shown, _LOG_TEXTS.value),
      os.environ.get("LOCVLM_SERVE_TOKEN", ""),
      requests.hosts_of(_HOST.value),
      app.is_open,
    )
    port = listener.getsockname()[1]
    seconds = time.monotonic() - start
    print(
      f"{name}: http://{_HOST.value}:{port}/ is ready after {seconds:.0f} s",
      flush=True,
    )
    web.run(guarded, listener, bounds)
    served.batcher.close()


def _limits():
  """The limits that the flags set."""
  from locvlm_jax.serving import limits

  return limits.Limits(
    body_bytes=_MEGABYTES.value << 20,
    pixels=_MEGAPIXELS.value * 10**6,
    pictures=_PICTURES.value,
    prompt_tokens=_PROMPT_TOKENS.value,
    new_tokens=_NEW_TOKENS.value,
    boxes=_BOXES.value,
    queue=_QUEUE.value,
    seconds=_SECONDS.value,
  )


def _config(folder: str):
  """What a model was trained with: as it says itself, or by --config."""
  from locvlm_jax import agreement

  if not _CONFIG.value:
    return agreement.recorded(folder)
  return agreement.adopt(
    command.config(), folder, command.said(), _OVERRIDE.value
  )


def _log_to_standard_error(log: logging.Logger) -> None:
  """Writes the time and what is logged, without what absl puts before it."""
  handler = logging.StreamHandler()
  handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
  log.addHandler(handler)
  log.propagate = False
  log.setLevel(logging.INFO)


if __name__ == "__main__":
  command.run(main, keeps_programs=True)
